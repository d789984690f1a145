"""A server of three models, one of which knows the digits, and a browser that visits it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browsing import chromium
from drawing import Visit
from msresnet import Classifier
from msresnet.bundle import Bundle, load_bundle
from msresnet.data.preprocess import Preprocess
from msresnet.infer.backends.graph import onnx_model
from msresnet.models.factory import create_classifier
from msresnet.tasks.classification import ClassificationTask
from randomise import randomised
from serving import Serving, server
from stories import NASTY

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
QUICK = {"device": "cpu", "precision": "fp32", "workers": 0}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of scikit-learn's digits; after 4 epochs it read drawings on some processors only."""
    folder = tmp_path_factory.mktemp("trained") / "digits"
    Classifier("msresnet_micro", epochs=10, batch_size=32, random_state=0, options=QUICK).fit("digits").save(folder)
    return folder


@pytest.fixture(scope="session")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of colour pictures whose names would run if they were not escaped; it answers at random."""
    model = create_classifier("msresnet_micro", num_classes=3, in_chans=3, img_size=(20, 20))
    randomised(model)
    arguments = {"num_classes": 3, "in_chans": 3, "img_size": [20, 20]}
    task, preprocess = (
        ClassificationTask(["cat", NASTY, "naïve 猫"]),
        Preprocess((20, 20), 3, "crop", mean=(0.5,) * 3, std=(0.2,) * 3),
    )
    return Bundle(model, "msresnet_micro", arguments, task, preprocess).save(tmp_path_factory.mktemp("nasty") / "m")


@pytest.fixture(scope="session")
def exported(trained: Path) -> Path:
    """The digits' model in a file of its own."""
    path = trained.parent / "file.onnx"
    path.write_bytes(onnx_model(load_bundle(trained)).SerializeToString())
    return path


@pytest.fixture(scope="session")
def serving(trained: Path, nasty: Path, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    words = [f"digits={trained}", f"nasty={nasty}", f"file={exported}"]
    small = ("--threads", "1", "--batch-size", "4", "--max-body", "1", "--workers", "0")
    with server(tmp_path_factory.mktemp("server"), "--model", *words, *small) as running:
        yield running


@pytest.fixture(scope="module")  # two at a time cannot be, nor one beside asyncio
def browser() -> Iterator[Browser]:
    """A real one, with a camera that shows a test picture."""
    with chromium(*CAMERA) as opened:
        yield opened


@pytest.fixture
def visit(browser: Browser, serving: Serving) -> Iterator[Visit]:
    """Opens the page; gives it, and what the browser complains of or asks for elsewhere."""
    opened: list[BrowserContext] = []

    def open_page(
        width: int = 1400, scheme: Any = "light", port: int | None = None, **more: Any
    ) -> tuple[Page, list[str]]:
        origin = f"http://127.0.0.1:{port or serving.port}"
        height = 844 if width < 600 else 900
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce", **more
        )
        opened.append(context)
        page, complaints = context.new_page(), list[str]()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        inside = (origin, "data:", "blob:" + origin)
        page.on("request", lambda asked: None if asked.url.startswith(inside) else complaints.append(asked.url))
        page.goto(origin)
        page.locator("#main:visible, #key:visible").wait_for()
        return page, complaints

    yield open_page
    for context in opened:
        context.close()

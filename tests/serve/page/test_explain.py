"""POST /explain over HTTP, against the library's own answers; and what refuses."""

from __future__ import annotations

import asyncio
import base64
import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from explained import heat_map
from hostile import encode, random_pixels, truncated_jpeg
from msresnet.bundle import load_bundle
from msresnet.data.decode import decode_bytes
from msresnet.data.preprocess import Preprocess
from msresnet.data.sources.digits import digits
from msresnet.explain.scales import Place, scale_responses
from msresnet.serve.failures import BUSY, Refusal
from msresnet.serve.page.explain import details, placed
from msresnet.serve.page.explainer import Explainer
from msresnet.serve.page.routes import PARTS
from msresnet.serve.served import Ready, signature
from serving import Serving, server

PICTURE = encode(digits().images[3][0], "PNG")


def ask(serving: Serving, data: bytes = PICTURE, model: str = "digits", wanted: str | None = None) -> httpx.Response:
    fields = {} if wanted is None else {"class": wanted}
    return serving.post(f"/explain?model={model}", files={"image": ("x.png", data)}, data=fields)


def pixels(url: str) -> npt.NDArray[np.uint8]:
    """A data: URL's picture (H, W, ...)."""
    kind, text = url.split(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_it_finds_what_the_library_finds(serving: Serving, trained: Path) -> None:
    found = ask(serving).json()
    bundle, image = load_bundle(trained), decode_bytes(PICTURE, "x", (24, 24))
    assert found["class"] == "3"
    heat = pixels(found["heat"])
    assert heat.shape == (24, 24, 4)
    expected = gaussian_filter(heat_map(bundle, image, 3), 24 / 40)
    strength = (heat[:, :, 3] / 255) ** (4 / 3)
    assert np.corrcoef(strength.ravel(), np.minimum(expected, np.quantile(expected, 0.99)).ravel())[0, 1] > 0.99
    assert np.array_equal(pixels(found["seen"]), bundle.preprocess.image(image)[0])
    responses = scale_responses(bundle, image, 3)
    blocks = len({r.operator for r in responses})
    small = sum(r.share for r in responses if r.receptive_field == (1, 1)) / blocks
    assert [row["share"] for row in found["scales"]] == pytest.approx([small, 1 - small], abs=1e-3)
    assert [row["block"] for row in found["blocks"]] == list(dict.fromkeys(r.operator for r in responses))


def test_another_class_is_found_elsewhere(serving: Serving) -> None:
    three, eight = ask(serving, wanted="3").json(), ask(serving, wanted="8").json()
    assert (three["class"], eight["class"]) == ("3", "8")
    assert three["heat"] != eight["heat"]
    assert three["heat"] == ask(serving).json()["heat"]


def test_brighter_means_hotter(serving: Serving) -> None:
    heat = pixels(ask(serving).json()["heat"]).astype(float)
    order = np.argsort(heat[:, :, 3], axis=None, kind="stable")
    luminance = (heat[:, :, :3] @ [0.2126, 0.7152, 0.0722]).ravel()[order]
    assert (np.diff(luminance) > -2).all()
    assert heat[:, :, 3].max() == 255


@pytest.mark.parametrize(
    ("status", "words", "asked"),
    [
        (404, "no such model", {"model": "nobody"}),
        (400, "no such class", {"wanted": "three"}),
        (501, "exported model", {"model": "file"}),
        (422, "decode", {"data": b"no image"}),
        (422, "decode", {"data": truncated_jpeg()}),
        (422, "empty", {"data": b""}),
        (413, "large", {"data": encode(random_pixels(700, 700, 3), "PNG")}),
    ],
)
def test_h24_it_refuses_in_words_and_tells_no_insides(
    serving: Serving, trained: Path, status: int, words: str, asked: dict[str, Any]
) -> None:
    answer = ask(serving, **asked)
    assert answer.status_code == status
    assert words in answer.text
    assert str(trained.parent) not in answer.text
    assert "Traceback" not in answer.text
    after = ask(serving)
    assert after.status_code == 200, after.text


def test_a_form_without_an_image_is_refused(serving: Serving) -> None:
    answer = serving.post("/explain", data={"class": "3"}, files={"other": b"x"})
    assert (answer.status_code, "image" in answer.text) == (400, True)
    assert serving.post("/explain", content=b"{}").status_code == 400


def test_too_many_at_once_are_told_when_to_ask_again(serving: Serving) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: ask(serving), range(16)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= 5
    assert all(int(a.headers["Retry-After"]) > 0 for a in answers if a.status_code == 429)
    heats = {a.json()["heat"] for a in answers if a.status_code == 200}
    assert len(heats) == 1
    assert serving.get("/health").status_code == 200


def test_answers_come_while_explanations_are_made(serving: Serving) -> None:
    expected = serving.predict(PICTURE).json()["result"]
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(ask, serving) for _ in range(3)]
        assert all(serving.predict(PICTURE).json()["result"] == expected for _ in range(10))
        assert all(one.result().status_code == 200 for one in waiting)


def test_the_parts_of_the_page_forbid_everything_from_elsewhere(serving: Serving) -> None:
    for path in ("/", *(f"/page/{part}" for part in PARTS)):
        answer = serving.get(path)
        assert answer.status_code == 200
        policy = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert {policy[kind] for kind in ("script-src", "style-src", "connect-src")} == {"'self'"}
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    for path in ("/page/routes.py", "/page/..%2froutes.py", "/page/index.html"):
        assert serving.get(path).status_code == 404


def test_it_stands_in_the_api_s_description(serving: Serving) -> None:
    described = serving.get("/openapi.json").json()["paths"]
    assert set(described["/explain"]["post"]["responses"]) >= {"200", "400", "404", "422", "429", "501"}
    assert "/" not in described
    assert not any(path.startswith("/page") for path in described)


@pytest.mark.parametrize(
    ("resize", "size"), [("squash", (30, 50)), ("pad", (30, 50)), ("pad", (50, 30)), ("crop", (30, 50))]
)
def test_a_map_is_laid_where_the_network_looked(resize: Any, size: tuple[int, int]) -> None:
    """A bright spot of the picture is, in the part of the input that is shown, at the same place of that part."""
    preprocess = Preprocess((20, 20), 1, resize)
    image = np.zeros((1, *size), np.uint8)
    row, column = round(0.5 * size[0]), round(0.45 * size[1])
    image[0, row - 2 : row + 2, column - 2 : column + 2] = 255
    rows, columns, (left, top, right, bottom) = placed(size, preprocess)
    shown = preprocess.image(image)[0][rows, columns].astype(float)
    middles = [(np.arange(side) + 0.5) / side for side in shown.shape]
    found = [float((shown.sum(1 - axis) * middles[axis]).sum() / shown.sum()) for axis in (0, 1)]
    assert top + found[0] * (bottom - top) == pytest.approx(row / size[0], abs=0.04)
    assert left + found[1] * (right - left) == pytest.approx(column / size[1], abs=0.04)


def test_details_are_put_into_at_most_three_sizes() -> None:
    def told(*fields: int) -> Any:
        branches = [Place("a", f"{side}x{side}", (side, side)) for side in fields]
        return details(branches, [1 / len(fields)] * len(fields))

    assert told(3) == told(3, 3) == {"scales": [], "blocks": [], "words": ""}
    assert [row["name"] for row in told(1, 3)["scales"]] == ["small details", "large details"]
    five = told(1, 3, 5, 7, 9)["scales"]
    assert [row["pixels"] for row in five] == ["1 to 3", "5 to 7", "9"]
    assert [row["share"] for row in five] == pytest.approx([0.4, 0.4, 0.2])
    assert told(1, 3, 5)["words"] == "Small and middle details counted about alike."
    two = [Place(name, str(side), (side, side)) for name in "ab" for side in (1, 3)]
    found = details(two, [0.1, 0.9, 0.3, 0.7])
    assert found["words"] == "Large details counted above all."
    assert [row["share"] for row in found["scales"]] == pytest.approx([0.2, 0.8])
    assert [row["shares"] for row in found["blocks"]] == [[0.1, 0.9], [0.3, 0.7]]


def test_f14_files_that_are_not_those_of_the_workers_are_not_explained(trained: Path, tmp_path: Path) -> None:
    place, told = tmp_path / "m", list[str]()
    shutil.copytree(trained, place)
    served: Any = SimpleNamespace(name="m", path=str(place), loaded=SimpleNamespace(files=signature(str(place))))
    served.changed = told.append
    bundle = load_bundle(place)
    image = decode_bytes(PICTURE, "x")
    ready = Ready(bundle.preprocess.image(image), bundle.preprocess.frame((image.shape[1], image.shape[2])))
    bundle.save(place)

    async def explain() -> None:
        explainer = Explainer()
        for _ in range(2):
            with pytest.raises(Refusal) as refused:
                await explainer(served, ready, None)
            assert (refused.value.status, refused.value.retry_after) == (BUSY, 2)
        assert told == ["m"]
        served.loaded.files = signature(str(place))
        assert (await explainer(served, ready, None))["class"] == "3"

    asyncio.run(explain())


@pytest.mark.slow
def test_f14_after_a_reload_the_new_model_is_explained(trained: Path, tmp_path: Path) -> None:
    place = tmp_path / "m"
    shutil.copytree(trained, place)
    with server(tmp_path, "--model", f"m={place}", "--threads", "1", "--batch-size", "1", "--workers", "0") as serving:
        before = ask(serving, model="m").json()
        bundle = load_bundle(place)
        with torch.no_grad():
            for parameter in bundle.model.parameters():
                parameter.mul_(-1)
        bundle.save(place)
        assert ask(serving, model="m").json()["heat"] == before["heat"]
        assert serving.post("/v2/repository/models/m/load", json={}).status_code == 200
        assert ask(serving, model="m").json()["heat"] != before["heat"]

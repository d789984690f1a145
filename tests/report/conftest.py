"""A browser where there is one, and a story to tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from browsing import chromium
from msresnet.report.html import render
from msresnet.report.story import Story
from stories import HISTORY, NASTY, story_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="package")
def story() -> Story:
    """Answers that are mostly right, of three classes, one with a name that would run if it were not escaped."""
    torch.manual_seed(1)
    targets = torch.arange(60) % 3
    outputs = torch.randn(60, 3) + 2 * torch.eye(3)[targets]
    rows = [{"scale": s, "top1": a, "top1_ci95": [a - 0.1, a + 0.1]} for s, a in ((0.5, 0.5), (1, 0.8), (2, 0.6))]
    curve = {"rows": rows, "area": 0.65, "area_ci95": [0.6, 0.7]}
    difference = {"area": 0.0, "ci95": [-0.1, 0.1]}
    figures = {
        "train_seconds": 2.5,
        "robustness": {"object_scale": {"metric": "top1", **curve, "baseline": curve, "difference": difference}},
    }
    ids = [f"image {i} {NASTY}" for i in range(60)]
    return story_of(["cat", NASTY, "naïve $x^ 猫"], targets, outputs, ids=ids, history=HISTORY, figures=figures)


@pytest.fixture(scope="package")
def told(story: Story) -> str:
    """Its report."""
    return render(story)


@pytest.fixture(scope="module")  # two at a time cannot be, nor one beside asyncio
def browser() -> Iterator[Browser]:
    """A real one."""
    with chromium() as opened:
        yield opened


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., tuple[Page, list[str]]]]:
    """Opens a page's text; gives the page, and what the browser complains of or asks for outside of the file."""
    opened = []

    def open_page(text: str, width: int = 1400, scheme: Any = "light", script: bool = True) -> tuple[Page, list[str]]:
        path = tmp_path / "page.html"
        path.write_text(text, encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            java_script_enabled=script,
            reduced_motion="reduce",
        )
        opened.append(context)
        page, complaints = context.new_page(), list[str]()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: None if asked.url[:5] in ("file:", "data:") else complaints.append(asked.url))
        page.goto(path.as_uri())
        return page, complaints

    yield open_page
    for context in opened:
        context.close()

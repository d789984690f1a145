"""Reports of runs for each task, in a real browser, as the command wrote them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from boxed import coco, truth
from browsing import TEXTS, contrast
from msresnet.cli.main import main
from tiny import train_words

if TYPE_CHECKING:
    from playwright.sync_api import Page

Show = Callable[..., "tuple[Page, list[str]]"]


@pytest.fixture(scope="module", params=["boxes", "masks", "classes"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a run."""
    place = tmp_path_factory.mktemp(request.param)
    data = Path("digits" if request.param == "classes" else "binary-digits")
    if request.param == "boxes":
        data = place / "set"
        coco(data, truth(16), "train")
        coco(data, truth(6, seed=1), "test")
    assert main(train_words(data, place / "run", epochs=1, batch=16)) == 0
    return (place / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [1400, 390])
def test_it_is_shown_without_complaint(written: str, show: Show, width: int) -> None:
    opened, complaints = show(written, width)
    assert complaints == []
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.evaluate("document.images.length") > 0
    assert opened.evaluate("[...document.images].every(i => i.alt && i.complete && i.naturalWidth > 0)")
    assert opened.evaluate("""[...document.querySelectorAll("svg")]
        .every(s => s.closest("[role=img]")?.getAttribute("aria-label"))""")
    texts = opened.evaluate(TEXTS)
    assert len(texts) > 50
    assert [text for text, ink, paper in texts if contrast(ink, paper) < 4.5] == []

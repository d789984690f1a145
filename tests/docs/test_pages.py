"""Documentation that is true: links lead somewhere, and the Python page runs as it is printed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from hostile import random_pixels
from msresnet import create_model
from msresnet.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("benchmarks/**/*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    for link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def blocks(page: Path) -> Iterator[str]:
    return iter(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL))


def test_the_python_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bunch = load_digits()
    images, labels = np.rint(bunch.images * 255 / 16).astype(np.uint8), bunch.target
    names = {"x_train": images[:200], "y_train": labels[:200], "x_val": images[300:400], "y_val": labels[300:400]}
    names |= {"x_test": images[400:500], "y_test": labels[400:500]}
    for name in ("a.jpg", "b.jpg", "photo.jpg"):
        Image.fromarray(images[0]).save(name)
    Image.fromarray(random_pixels(300, 200)).save("photo.jpg")
    torch.save(create_model("res2net50_26w_4s", num_classes=10, in_chans=1).state_dict(), "a_state_dict_of_timm.pt")
    code = list(blocks(ROOT / "docs" / "python.md"))
    assert len(code) == 5
    for number, block in enumerate(code):
        if number == 2:
            names["model"].save("runs/photos")
            assert main(["export", "--model", "runs/photos", "--format", "onnx", "--data", "digits", "-q"]) == 0
        exec(compile(block, f"python.md, block {number}", "exec"), names)
    assert names["found"].labels[0] == names["model"].predict("a.jpg").labels[0]
    exported = names["predictor"].predict([names["image"]], ["photo.jpg"])
    assert np.allclose(exported.probabilities, names["model"].predict_proba("photo.jpg"), atol=1e-4)

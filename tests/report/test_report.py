"""The report and the pictures, looked at in a real browser where there is one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from msresnet.bundle import Bundle
from msresnet.cli.main import main
from msresnet.data.loaders import Decoded
from msresnet.data.preprocess import Preprocess
from msresnet.models.factory import create_classifier
from msresnet.report.html import Story, render
from msresnet.results import Evaluation
from msresnet.runtime import environment
from msresnet.tasks.classification import ClassificationTask
from randomise import randomised

NASTY = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def story() -> Story:
    """An untrained network on random images, with a class name that would run if it were not escaped."""
    torch.manual_seed(0)
    model = create_classifier("msresnet_micro", num_classes=3, in_chans=1, img_size=(16, 16))
    randomised(model)
    task = ClassificationTask(["cat", NASTY, "naïve"])
    arguments = {"num_classes": 3, "in_chans": 1, "img_size": [16, 16]}
    made = Bundle(model, "msresnet_micro", arguments, task, Preprocess((16, 16), 1))
    images = torch.randint(0, 256, (40, 1, 16, 16), dtype=torch.uint8)
    ids = [f"image {i} {NASTY}" for i in range(40)]
    data = Decoded(images, torch.arange(40) % 3, ids)
    with torch.no_grad():
        predictions = task.decode(model(made.preprocess.tensor(images)), ids)
    measured = task.evaluate(predictions, data.targets.numpy())
    figures = {"split": "test", **measured.metrics, "macs": 1_000_000, "train_seconds": 2.5}
    history = [
        {"epoch": e, "train_loss": 1 / e, "val_loss": 1.2 / e, "val_top1": 1 - 0.5 / e, "lr": 0.1} for e in (1, 2, 3)
    ]
    measured = Evaluation(predictions, measured.targets, figures)
    return Story(made, measured, data, history, ["a note & more"], environment(), "msresnet train --data x")


class Tags(HTMLParser):
    """Collects tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_nothing_leaves_the_file_and_nothing_runs(story: Story) -> None:
    text = render(story)
    tags = Tags(text).seen
    assert not [t for t, _ in tags if t in ("script", "link", "iframe", "object")]
    sources = [a["src"] for t, a in tags if t == "img"]
    assert sources
    assert all(s is not None and s.startswith("data:image/png;base64,") for s in sources)
    assert "&lt;script&gt;" in text


def test_every_picture_has_a_text(story: Story) -> None:
    tags = Tags(render(story)).seen
    assert all(a.get("alt") for t, a in tags if t == "img")
    assert len([1 for _, a in tags if a.get("role") == "img" and a.get("aria-label")]) == len(
        [1 for t, _ in tags if t == "svg"]
    )


def test_the_figures_are_those_of_the_evaluation(story: Story) -> None:
    text = render(story)
    assert f"{100 * story.evaluation.metrics['top1']:.2f}" in text
    wrong = int((story.evaluation.predictions.indices != story.evaluation.targets).sum())
    assert f"of {wrong} mistakes" in text or f"All {wrong} mistakes" in text


def test_one_report_from_one_story(story: Story) -> None:
    assert render(story) == render(story)


def test_a_perfect_and_a_lone_answer_are_told_too(story: Story) -> None:
    answers = story.evaluation.predictions
    perfect = Evaluation(answers, answers.indices, story.evaluation.metrics)
    pictures = torch.stack([story.data.image(i) for i in range(len(story.data))])
    few = Decoded(pictures, torch.from_numpy(answers.indices), story.data.ids)
    told = render(Story(story.bundle, perfect, few, [], [], {}, "msresnet evaluate"))
    assert "No mistake on this set" in told
    assert "How it learnt" not in told


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_without_complaint(
    story: Story, browser: object, tmp_path: Path, width: int, scheme: str
) -> None:
    path = tmp_path / "report.html"
    path.write_text(render(story), encoding="utf-8")
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()  # type: ignore[attr-defined]
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request", lambda request: complaints.append(request.url) if request.url[:5] not in ("file:", "data:") else 0
    )
    page.goto(path.as_uri())
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.locator("h1").inner_text().startswith("msresnet_micro")
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert contrast(ink, paper) > 7


def contrast(a: str, b: str) -> float:
    """WCAG's contrast ratio of two CSS colours of the form rgb(r, g, b)."""

    def luminance(colour: str) -> float:
        channels = [int(c) / 255 for c in colour[4:-1].split(",")]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_explain_writes_a_picture_and_figures(story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story.bundle.save(tmp_path / "model")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8)).save(tmp_path / "x.png")
    assert main(["explain", str(tmp_path / "x.png"), "--model", str(tmp_path / "model"), "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row == json.loads(Path("explanation.json").read_text(encoding="utf-8"))[0]
    assert sum(s["share"] for s in row["scales"] if s["operator"] == "layer1.0.conv1") == pytest.approx(1, abs=1e-3)
    with Image.open("explanation.png") as picture:
        assert picture.width > 800
    assert main(["explain", str(tmp_path / "x.png"), "--model", str(tmp_path / "model"), "--target", "cta"]) == 2
    assert "cat" in capsys.readouterr().err


def test_data_show_draws_before_and_after(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", "threshold=otsu", "binary=true", "output=look.png", "count=6"]) == 0
    out = capsys.readouterr().out
    assert "1,797" in out or "all" in out
    with Image.open("look.png") as picture:
        assert picture.format == "PNG"


def test_data_show_takes_a_table_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savetxt(tmp_path / "pixels.csv", np.arange(48).reshape(3, 16) * 5, fmt="%d", delimiter=",")
    assert main(["data", "show", "--data", "pixels.csv"]) == 0
    assert "no labels" in capsys.readouterr().err
    assert Path("data.png").is_file()

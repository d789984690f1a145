"""The pages of comparisons and searches: the same parts, the same care."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from msresnet.compare.judge import Comparison, judge
from msresnet.compare.records import Answers, Training
from msresnet.report import comparison, tuning
from msresnet.report.comparison import accuracy_rows
from msresnet.tune.trials import Scale, State, Trial, Tuned
from stories import NASTY

if TYPE_CHECKING:
    from playwright.sync_api import Page

Show = Callable[..., "tuple[Page, list[str]]"]
MACHINE = {"python": "3", "gpus": ["one", "two"]}
NAMES = ["micro", f"{NASTY}: micro", "$\\frac{$ a name that is longer than there is room for"]


def compared(seeds: int = 2, failing: bool = True) -> Comparison:
    """Three contestants on 400 images, of which one fails once, if any does."""
    rng, luck = np.random.default_rng(0), np.random.default_rng(1).random(400)
    trainings = []
    for place, name in enumerate(NAMES):
        for seed in range(seeds):
            if failing and (place, seed) == (1, 1):
                trainings.append(Training(name, seed, failure=f"the loss is not a number {NASTY}", code=6))
                continue
            right = luck + 0.05 * rng.random(400) < 0.95 - 0.1 * place
            answers = {"test": Answers(right, "x"), "val": Answers(right[:100], "y")}
            trainings.append(Training(name, seed, 60.0, 10, 8000.0, 110_000, 12_000_000 * (place + 1), answers))
    speeds = {name: {1: 500.0, 64: 2300.0} for name in NAMES}
    found = judge(NAMES, trainings, speeds, "test", None)
    return Comparison(found, budget="60 s each", data="x", who=dict.fromkeys(NAMES, NASTY), notes=(NASTY,))


def searched() -> Tuned:
    """Trials of every kind."""
    states: list[State] = ["finished", "cut short", "diverged", "failed", "finished", "finished"]
    trials = []
    for number, state in enumerate(states, 1):
        score = 0.9 + number / 100 if state in ("finished", "cut short") else None
        loss = None if score is None else 1 - score
        chosen = {"lr": 10.0**-number, "model": ["a", "$x_{", NASTY][number % 3]}
        why = "" if score else f"it broke {NASTY}"
        trials.append(Trial(number, state, chosen, score, loss, 5, 12.0, why))
    scales: dict[str, Scale] = {"lr": "log", "model": "list"}
    return Tuned(tuple(trials), {"data": "x", "lr": 0.01}, {"lr": 0.8, "model": 0.2}, scales, "top1")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The texts of both pages."""
    folder = tmp_path_factory.mktemp("pages")
    comparison.write_page(folder / "comparison.html", compared(), MACHINE, "msresnet compare")
    tuning.write_page(folder / "tuning.html", searched(), "x", MACHINE, "msresnet tune")
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["comparison", "tuning"])
@pytest.mark.parametrize("width", [1400, 390])
def test_a_browser_shows_them_without_complaint(pages: dict[str, str], show: Show, name: str, width: int) -> None:
    opened, complaints = show(pages[name], width)
    assert complaints == []
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.evaluate("window.pwned") is None
    assert pages[name].count("<script") == 1
    assert (
        opened.evaluate("""[...document.querySelectorAll("svg")]
        .filter(s => !s.closest("[role=img]")?.getAttribute("aria-label")).length""")
        == 0
    )
    ids = opened.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_the_table_of_a_comparison_is_the_one_on_the_screen(pages: dict[str, str], show: Show) -> None:
    opened, _ = show(pages["comparison"])
    table = opened.get_by_role("table", name="Who is better")
    shown = [row.locator("th, td").all_inner_texts() for row in table.locator("tbody tr").all()]
    assert [tuple(row) for row in shown] == accuracy_rows(compared())
    opened.get_by_role("button", name="test top-1").first.click()
    assert table.locator("tbody th").first.inner_text() == NAMES[0]


def test_what_failed_is_told(pages: dict[str, str]) -> None:
    assert "seed 1: the loss is not a number" in pages["comparison"]
    assert "What failed" in pages["comparison"]
    assert "trial 3: it broke" in pages["tuning"]
    assert "trial 6" in pages["tuning"]


def test_a_comparison_of_which_nothing_is_left_has_a_page(tmp_path: Path) -> None:
    trainings = [Training(name, 0, failure="no", code=6) for name in NAMES]
    found = judge(NAMES, trainings, {}, "test", None)
    nothing = Comparison(found, budget="1 epoch each", data="x", who=dict.fromkeys(NAMES, ""), notes=())
    comparison.write_page(tmp_path / "page.html", nothing, MACHINE, "msresnet compare")
    assert "nothing to compare" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_pictures_stand_as_files_too(tmp_path: Path) -> None:
    comparison.picture(compared(seeds=1, failing=False), tmp_path / "a.png")
    tuning.tuning_picture(searched(), tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 1000


def alone(seeds: int) -> Comparison:
    """One contestant without any other."""
    answers = {"test": Answers(np.ones(50, bool), "x")}
    trainings = [Training("micro", seed, 60.0, 10, 8000.0, 110_000, 12_000_000, answers) for seed in range(seeds)]
    found = judge(["micro"], trainings, {}, "test", None)
    return Comparison(found, budget="1 epoch each", data="x", who={"micro": ""}, notes=())


def test_who_is_alone_is_held_against_nobody(tmp_path: Path) -> None:
    comparison.write_page(tmp_path / "page.html", alone(2), MACHINE, "msresnet compare")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "of 0" not in text
    assert "one seed" not in text
    assert alone(2).outcome.chance == "chance"
    assert "one seed" in alone(1).outcome.chance


def test_intervals_say_what_they_cover_of_each_contestant() -> None:
    assert f"those of one seed ({NAMES[1]}) the draw of images alone" in compared(2).outcome.explanation()[0]
    assert "those of one seed" not in compared(2, failing=False).outcome.explanation()[0]


def test_nothing_is_less_than_zero_by_nothing() -> None:
    answers = {"test": Answers(np.arange(50) < 40, "x")}
    trainings = [Training(name, 0, 60.0, 10, 8000.0, 1, 1, answers) for name in NAMES]
    found = judge(NAMES, trainings, {}, "test", None)
    same = Comparison(found, budget="1 epoch each", data="x", who=dict.fromkeys(NAMES, ""), notes=())
    assert not any("-0.00" in cell for row in accuracy_rows(same) for cell in row)
    assert "-0.0," not in json.dumps(same.to_dict())

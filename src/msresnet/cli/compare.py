"""`msresnet compare`."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.compare.config import CompareConfig, budget_free
from msresnet.errors import some
from msresnet.train.recipes import find_recipe

if TYPE_CHECKING:
    from msresnet.cli.screen import Screen
    from msresnet.compare.judge import Comparison

MARKDOWN, PICTURE, PAGE, LOG = "comparison.md", "comparison.png", "comparison.html", "log.txt"


def main(words: list[str], common: Common) -> int:
    """Train the contestants, print who is better, and write tables, a picture and a page."""
    config = parse("compare", CompareConfig, words, common, recipes=_recipe).config
    from msresnet.cli.screen import Bar, Screen
    from msresnet.compare.contestants import contestants
    from msresnet.compare.run import OURS, compare
    from msresnet.files import check_free, lock

    contestants(config)
    folder = Path(config.output or f"runs/compare-{Path(config.data).resolve().stem or 'data'}")
    screen = Screen(common)

    check_free(folder, ours=(*OURS, MARKDOWN, PICTURE, PAGE, LOG))
    with lock(folder):
        screen.note(f"msresnet compare → {folder}", "bold")
        try:
            comparison = compare(
                replace(config, output=str(folder)), None, folder, Bar(screen), screen.announcer(folder / LOG)
            )
        finally:
            screen.stop()
        _write(folder, comparison, shlex.join(["msresnet", "compare", *common.given, *words]))
    screen.note(f"report: {folder / PAGE}")
    _print(comparison, config.format, screen)
    return next((training.code for training in comparison.outcome.trainings if training.failure), 0)


def _recipe(name: str) -> dict[str, Any]:
    return budget_free(find_recipe(name).settings)


def _write(folder: Path, comparison: Comparison, command: str) -> None:
    from msresnet.files import write_text
    from msresnet.report.comparison import markdown, picture, write_page
    from msresnet.runtime import environment

    here = environment()
    machine = f"{here['processor']}, {some(here['threads'], 'thread')}, torch {here['torch']}"
    write_text(folder / MARKDOWN, markdown(comparison, command, ", ".join([machine, *here["gpus"]])))
    write_page(folder / PAGE, comparison, here, command)
    if comparison.outcome.reference is not None:
        picture(comparison, folder / PICTURE)


def _print(comparison: Comparison, form: str, screen: Screen) -> None:
    from msresnet.compare.records import to_csv
    from msresnet.report.comparison import ACCURACY, COST, WORDS, accuracy_rows, cost_rows

    if form == "json":
        print(json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False))
    elif form == "csv":
        print(to_csv(comparison.outcome.trainings), end="")
    else:
        for titles, rows in ((ACCURACY, accuracy_rows(comparison)), (COST, cost_rows(comparison))):
            screen.columns(titles, rows, words=WORDS)
            screen.out.print()
        screen.notes(comparison.outcome.explanation())

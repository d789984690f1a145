"""`msresnet tune`."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.train.recipes import find_recipe
from msresnet.tune.config import TuneConfig
from msresnet.tune.space import varies

if TYPE_CHECKING:
    from msresnet.cli.screen import Screen
    from msresnet.tune.trials import Tuned

PICTURE, PAGE, LOG = "tuning.png", "tuning.html", "log.txt"
MOST_ROWS = 10


def main(words: list[str], common: Common) -> int:
    """Search, print the best trials, and write best.yaml, trials.csv, a picture and a page."""
    config = parse("tune", TuneConfig, with_space(words), common, recipes=_settings).config
    from msresnet.cli.screen import Bar, Screen
    from msresnet.files import check_free, lock
    from msresnet.report.tuning import tuning_picture, write_page
    from msresnet.runtime import environment
    from msresnet.tune.study import OURS, check, tune

    check(config)
    folder = Path(config.output or f"runs/tune-{Path(config.data).resolve().stem or 'data'}")
    screen = Screen(common)

    check_free(folder, ours=(*OURS, PICTURE, PAGE, LOG))
    with lock(folder):
        screen.note(f"msresnet tune → {folder}", "bold")
        try:
            tuned = tune(replace(config, output=str(folder)), None, folder, Bar(screen), screen.announcer(folder / LOG))
        finally:
            screen.stop()
        tuning_picture(tuned, folder / PICTURE)
        command = shlex.join(["msresnet", "tune", *common.given, *words])
        write_page(folder / PAGE, tuned, config.data, environment(), command)
    screen.note(f"report: {folder / PAGE}")
    _print(tuned, config.format, screen)
    screen.note(f"best settings: msresnet train --config {folder / 'best.yaml'}")
    return 0


def _settings(name: str) -> dict[str, Any]:
    return find_recipe(name).settings


def with_space(words: list[str]) -> list[str]:
    """The words of the command, with those that say what varies behind --space; other flags keep their values."""
    space, rest, given, flag = list[str](), list[str](), list[str](), ""
    for word in words:
        flag = word if word.startswith("-") else flag
        if flag in ("--space", "--model-args"):
            (given if flag == "--space" and word != flag else rest).append(word)
        elif varies(word):
            space.append(word)
        else:
            rest.append(word)
    rest = [word for word in rest if word != "--space"]
    return [*rest, "--space", *given, *space] if given or space else rest


def _print(tuned: Tuned, form: str, screen: Screen) -> None:
    from msresnet.tune.trials import to_csv

    if form == "json":
        print(json.dumps(tuned.to_dict(), indent=2, ensure_ascii=False))
    elif form == "csv":
        print(to_csv(tuned.trials), end="")
    else:
        _table(tuned, screen)


def _table(tuned: Tuned, screen: Screen) -> None:
    """The best trials, and what each setting did."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from msresnet.tasks.words import title
    from msresnet.tune.trials import ranked, shown

    names = list(tuned.best.chosen)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in ("trial", f"val {title(tuned.metric)}", "val loss", "epochs", "seconds", *names, "end"):
        table.add_column(escape(column), justify="left" if column == "end" else "right")
    for trial in ranked(tuned.trials)[:MOST_ROWS]:
        figures = [
            str(trial.number),
            "" if trial.score is None else f"{100 * trial.score:.2f} %",
            "" if trial.loss is None else f"{trial.loss:.4f}",
            str(trial.epochs),
            f"{trial.seconds:.1f}",
        ]
        table.add_row(*figures, *(escape(shown(trial.chosen.get(name))) for name in names), trial.state)
    screen.table(table)
    if len(tuned.trials) > MOST_ROWS:
        screen.notes([f"the best {MOST_ROWS} of {len(tuned.trials)}; all of them: trials.csv, or --format csv"])
    if tuned.importance:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in tuned.importance.items())
        screen.notes([f"what the scores vary with (fANOVA): {shares}"])
    screen.notes(["chosen by the validation set; the score of the best is flattered by the search"])

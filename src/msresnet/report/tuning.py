"""Pictures of a search: how it went, and what each setting did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import LogFormatter

from msresnet.files import write_atomic
from msresnet.report.plots import BLUE, GREY, ORANGE, labelled, new_figure, plain_axes
from msresnet.tune.trials import Trial, Tuned, shown

COLUMNS, MOST = 3, 9
"""Panels in a row, and settings that are shown, the most important first."""
MARKS = {"finished": ("o", BLUE), "cut short": ("x", GREY), "diverged": ("v", GREY)}


def tuning_picture(tuned: Tuned, path: Path) -> None:
    """The errors in the order of trials, and against each setting, as a PNG file."""
    names = (list(tuned.importance) or list(tuned.scales))[:MOST]
    rows = 1 + -(-len(names) // COLUMNS)
    figure = new_figure(10.5, 2.7 * rows)
    figure.patch.set(facecolor="white", alpha=1)
    grid = figure.add_gridspec(rows, COLUMNS)
    _history(plain_axes(figure, grid[0, :]), tuned)
    for index, name in enumerate(names):
        _slice(plain_axes(figure, grid[1 + index // COLUMNS, index % COLUMNS]), tuned, name)
    write_atomic(path, lambda part: figure.savefig(part, format="png", dpi=120))


def _history(axes: Any, tuned: Tuned) -> None:
    """Each trial, and the best so far."""
    _points(axes, tuned, [trial.number for trial in tuned.trials])
    finished = [trial for trial in tuned.trials if trial.state == "finished"]
    lowest = np.minimum.accumulate([_error(trial, tuned) for trial in finished])
    axes.step([trial.number for trial in finished], lowest, where="post", color=BLUE, linewidth=1.2, alpha=0.6)
    above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0}
    axes.legend(frameon=False, labelcolor=GREY, fontsize=9, ncols=4, **above)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _upright(axes)
    labelled(axes, "The search: up is better", "trial", "validation error, %")


def _slice(axes: Any, tuned: Tuned, name: str) -> None:
    """The errors against one setting."""
    values = [trial.chosen.get(name) for trial in tuned.trials]
    if tuned.scales[name] == "list":
        kinds = sorted(set(map(shown, values)), key=lambda text: (not text[:1].isdigit(), len(text), text))
        _points(axes, tuned, [kinds.index(shown(value)) for value in values])
        axes.set_xticks(range(len(kinds)), kinds)
        axes.set_xlim(-0.6, len(kinds) - 0.4)
    else:
        _points(axes, tuned, values)
    if tuned.scales[name] == "log":
        axes.set_xscale("log")
        axes.tick_params(which="minor", labelbottom=False, colors=GREY)
    _upright(axes)
    share = f": {100 * tuned.importance[name]:.0f} % of the variation" if name in tuned.importance else ""
    labelled(axes, f"{name}{share}", "", "error, %")


def _points(axes: Any, tuned: Tuned, across: list[Any]) -> None:
    """One mark for each trial that has a score, the best one larger."""
    for state, (marker, colour) in MARKS.items():
        points = [(x, _error(t, tuned)) for x, t in zip(across, tuned.trials, strict=True) if t.state == state]
        if points:
            axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=5, label=state)
    best = tuned.best
    label = f"best: trial {best.number}"
    axes.plot(across[best.number - 1], _error(best, tuned), "o", color=ORANGE, markersize=8, label=label, zorder=3)


def _error(trial: Trial, tuned: Tuned) -> float:
    """Wrong answers in per cent; none at all stands half below the least that some trial has, for the logarithm."""
    errors = [100 * (1 - t.score) for t in tuned.trials if t.score is not None and t.score < 1]
    least = min(errors, default=1.0) / 2
    return max(least, 100 * (1 - (trial.score or 0.0)))


def _upright(axes: Any) -> None:
    """Errors by their logarithm, so that the good ones are told apart; the best on top."""
    axes.set_yscale("log")
    axes.invert_yaxis()
    for setter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        setter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
    axes.tick_params(which="minor", colors=GREY, labelsize=8)

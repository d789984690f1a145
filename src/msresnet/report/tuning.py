"""What a search found: how it went, what each setting did, as a picture and as an offline page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import LogFormatter

from msresnet.files import as_yaml, write_atomic
from msresnet.report import page
from msresnet.report.charts import HIGH, WIDE, chart, key, literal
from msresnet.report.overview import machine
from msresnet.report.page import Chart, Command, Heading, Headline, Headlines, Notes, Part, Row, Section, Table, percent
from msresnet.report.plots import BLUE, GREY, ORANGE, labelled, new_figure, plain_axes
from msresnet.tasks.words import title
from msresnet.tune.trials import Trial, Tuned, ranked, shown

COLUMNS, MOST = 3, 9
"""Panels in a row, and settings that are shown, the most important first."""
MARKS = {"finished": ("o", BLUE), "cut short": ("x", GREY), "diverged": ("v", GREY)}


def tuning_picture(tuned: Tuned, path: Path) -> None:
    """The errors in the order of trials, and against each setting, as a PNG file."""
    names = _names(tuned)
    rows = 1 + -(-len(names) // COLUMNS)
    figure = new_figure(10.5, 2.7 * rows)
    figure.patch.set(facecolor="white", alpha=1)
    grid = figure.add_gridspec(rows, COLUMNS)
    history = plain_axes(figure, grid[0, :])
    _history(history, tuned)
    key(history, ncols=4, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    for index, name in enumerate(names):
        _slice(plain_axes(figure, grid[1 + index // COLUMNS, index % COLUMNS]), tuned, name)
    write_atomic(path, lambda part: figure.savefig(part, format="png", dpi=120))


def write_page(path: Path, tuned: Tuned, data: str, environment: dict[str, Any], command: str) -> None:
    """One HTML file that opens anywhere, offline."""
    origin = Section("origin", "How this came about", [Command(command), Notes(tuned.best.notes), machine(environment)])
    sections = [_found(tuned), _settings(tuned), _trials(tuned), origin]
    count = len(tuned.trials)
    lead = "Chosen by the validation set: the score of the best is flattered by the search."
    page.write_page(path, f"{data} · search of {count} trial{'s' if count > 1 else ''}", lead, sections)


def _found(tuned: Tuned) -> Section:
    """The best trial, and the command that trains with its settings."""
    best, states, metric = tuned.best, [trial.state for trial in tuned.trials], title(tuned.metric)
    numbers = [Headline(percent(best.score or 0.0), f"validation {metric} of the best, trial {best.number}")]
    numbers += [Headline(f"{states.count(state)}", state) for state in dict.fromkeys(states)]
    told = f"Validation error of each trial and the lowest so far; the best is trial {best.number}"
    figure = new_figure(WIDE, HIGH)
    _history(plain_axes(figure, 1, 1, 1), tuned)
    figure.legend(frameon=False, labelcolor=GREY, fontsize=9, ncols=2, loc="outside lower center")
    beside: list[Part] = [chart(figure, told)]
    if tuned.importance:
        rows = [(name, percent(share, 0)) for name, share in tuned.importance.items()]
        shades = [[share] for share in tuned.importance.values()]
        beside.append(Table("What the scores vary with (fANOVA)", ("setting", "share"), rows, shades=shades))
    settings = as_yaml(tuned.settings).strip()
    kept: list[Part] = [Heading("The best settings, as best.yaml holds them"), Command(settings)]
    return Section("found", "What it found", [Headlines(numbers), Row(beside), *kept])


def _settings(tuned: Tuned) -> Section:
    """The errors against each setting."""
    return Section("settings", "What each setting did", [Row([_drawn(tuned, name) for name in _names(tuned)])])


def _trials(tuned: Tuned) -> Section:
    """Every trial, the best first."""
    names = list(dict.fromkeys(name for trial in tuned.trials for name in trial.chosen))
    rows = []
    for trial in ranked(tuned.trials):
        score = "" if trial.score is None else percent(trial.score)
        loss = "" if trial.loss is None else f"{trial.loss:.4f}"
        settings = (shown(trial.chosen.get(name, "")) for name in names)
        rows.append((str(trial.number), score, loss, str(trial.epochs), f"{trial.seconds:.1f}", *settings, trial.state))
    columns = ("trial", f"val {title(tuned.metric)}", "val loss", "epochs", "seconds", *names, "end")
    reasons = [f"trial {trial.number}: {trial.why}" for trial in tuned.trials if trial.why]
    parts: list[Part] = [Table("The best first", columns, rows, sort=True)]
    return Section("trials", "Every trial", [*parts, Notes(reasons)] if reasons else parts)


def _drawn(tuned: Tuned, name: str) -> Chart:
    """The errors against one setting, as a chart of its own."""
    figure = new_figure(WIDE, HIGH)
    _slice(plain_axes(figure, 1, 1, 1), tuned, name)
    return chart(figure, f"Validation error against {name}")


def _names(tuned: Tuned) -> list[str]:
    """The settings that are shown."""
    return (list(tuned.importance) or list(tuned.scales))[:MOST]


def _history(axes: Any, tuned: Tuned) -> None:
    """Each trial, and the best so far."""
    _points(axes, tuned, [trial.number for trial in tuned.trials])
    finished = [trial for trial in tuned.trials if trial.state == "finished"]
    lowest = np.minimum.accumulate([_error(trial, tuned) for trial in finished])
    axes.step([trial.number for trial in finished], lowest, where="post", color=BLUE, linewidth=1.2, alpha=0.6)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _upright(axes)
    labelled(axes, "The search: up is better", "trial", "validation error, %")


def _slice(axes: Any, tuned: Tuned, name: str) -> None:
    """The errors against one setting."""
    values = [trial.chosen.get(name) for trial in tuned.trials]
    if tuned.scales[name] == "list":
        kinds = sorted(set(map(shown, values)), key=lambda text: (not text[:1].isdigit(), len(text), text))
        _points(axes, tuned, [kinds.index(shown(value)) for value in values])
        axes.set_xticks(range(len(kinds)), [literal(page.short(kind, 14)) for kind in kinds])
        axes.set_xlim(-0.6, len(kinds) - 0.4)
    else:
        _points(axes, tuned, values)
    if tuned.scales[name] == "log":
        axes.set_xscale("log")
        axes.tick_params(which="minor", labelbottom=False, colors=GREY)
    _upright(axes)
    share = f": {100 * tuned.importance[name]:.0f} % of the variation" if name in tuned.importance else ""
    labelled(axes, literal(f"{name}{share}"), "", "error, %")


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

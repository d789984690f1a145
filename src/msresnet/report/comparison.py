"""What a comparison found: pictures, an offline page, and tables for people and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from msresnet.compare.judge import Comparison, Interval, Standing
from msresnet.files import write_atomic, write_text
from msresnet.report.html import fill
from msresnet.report.plots import BLUE, GREY, ORANGE, labelled, new_figure, plain_axes, svg

ACCURACY = ("contestant", "seeds", "test top-1", "95 %", "val top-1", "difference", "95 %", "p", "verdict")
COST = ("contestant", "parameters", "mult-adds", "train img/s", "img/s at 1", "img/s at 64", "epochs", "seconds")
WORDS = ("contestant", "verdict")
"""Columns of words; the others hold numbers."""
BESIDE = 1.04
"""Factor between points of the same cost, so that they stand side by side."""


def accuracy_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The cells under `ACCURACY`, best first."""
    return [_accuracy_row(comparison, standing) for standing in comparison.standings]


def cost_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The cells under `COST`, in the same order."""
    return [_cost_row(standing) for standing in comparison.standings if standing.seeds]


def markdown(comparison: Comparison, command: str, machine: str) -> str:
    """Both tables with what they mean, the command and the machine, for a file that is kept."""
    lines = [f"# {comparison.data}: {_title(comparison)}", ""]
    lines += [*_table(ACCURACY, accuracy_rows(comparison)), "", *_table(COST, cost_rows(comparison)), ""]
    lines += [f"- {line}" for line in comparison.explanation()]
    return "\n".join([*lines, "", machine, "", f"`{command}`", ""])


def picture(comparison: Comparison, path: Path) -> None:
    """Accuracy with intervals, by contestant and against cost, as a PNG file."""
    figure = _drawn(comparison)
    figure.patch.set(facecolor="white", alpha=1)
    write_atomic(path, lambda part: figure.savefig(part, format="png", dpi=130))


def write_page(path: Path, comparison: Comparison, environment: dict[str, Any], command: str) -> None:
    """One HTML file that opens anywhere, offline."""
    text = fill(
        "comparison.html.jinja",
        title=f"{comparison.data} · {_title(comparison)}",
        comparison=comparison,
        reference=next((s for s in comparison.standings if s.name == comparison.reference), None),
        plot=Markup(svg(_drawn(comparison))) if comparison.reference else None,
        tables=((ACCURACY, accuracy_rows(comparison)), (COST, cost_rows(comparison))),
        words=WORDS,
        failures=_failures(comparison),
        environment=environment,
        command=command,
    )
    write_text(path, text)


def _failures(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Contestant, seeds and reason, a line for each reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for standing in comparison.standings:
        for seed, why in standing.failures.items():
            found.setdefault((standing.name, why), []).append(str(seed))
    return [(name, ", ".join(seeds), why) for (name, why), seeds in found.items()]


def _title(comparison: Comparison) -> str:
    seeds = max(s.seeds + len(s.failures) for s in comparison.standings)
    people = len(comparison.standings)
    return (
        f"{people} contestant{'s' if people > 1 else ''}, {comparison.budget}, {seeds} seed{'s' if seeds > 1 else ''}"
    )


def _accuracy_row(comparison: Comparison, standing: Standing) -> tuple[str, ...]:
    if not standing.seeds:
        return standing.name, "0", *[""] * 6, f"failed: {next(iter(standing.failures.values()))}"
    scores = (*_scores(standing.test), _scores(standing.val)[0])
    asked = standing.seeds + len(standing.failures)
    seeds = str(standing.seeds) if not standing.failures else f"{standing.seeds} of {asked}"
    contest = comparison.contest(standing.name)
    if contest is None:
        if standing.name != comparison.reference:
            return standing.name, seeds, *scores, "", "", "", "no seed in common"
        return standing.name, seeds, *scores, "", "", "", "baseline" if comparison.chosen else "highest"
    found = contest.difference
    interval = f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"
    return standing.name, seeds, *scores, f"{100 * found.mean:+.2f}", interval, _p(contest.p), contest.verdict


def _scores(interval: Interval | None) -> tuple[str, str]:
    """A share in per cent, and its interval."""
    if interval is None:
        return "", ""
    return f"{100 * interval.mean:.2f} %", f"{100 * interval.low:.2f} to {100 * interval.high:.2f}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _cost_row(standing: Standing) -> tuple[str, ...]:
    inference = standing.inference or {}
    speeds = tuple(f"{inference[batch]:,.0f}" if batch in inference else "" for batch in (1, 64))
    macs = f"{standing.macs / 1e6:,.1f} M"
    training = f"{standing.images_per_second:,.0f}"
    spent = (f"{standing.epochs:g}", f"{standing.seconds:.1f}")
    return standing.name, f"{standing.params:,}", macs, training, *speeds, *spent


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    cells = [[text.replace("|", "\\|") for text in row] for row in (titles, *rows)]
    rule = ["---" if title in WORDS else "---:" for title in titles]
    return [f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:])]


def _drawn(comparison: Comparison) -> Figure:
    """Left: each contestant with its seeds. Right: accuracy against what an answer costs."""
    shown = [s for s in comparison.standings if s.seeds]
    figure = new_figure(9.5, max(2.9, 1.2 + 0.42 * len(shown)))
    left, right = plain_axes(figure, 1, 2, 1), plain_axes(figure, 1, 2, 2)
    taken: list[int] = []
    for place, standing in enumerate(shown):
        colour = _colour(comparison, standing)
        _bar(left, _interval(standing, comparison.split), place, colour, upright=False)
        for training in comparison.trainings:
            if training.contestant == standing.name and training.answers:
                left.plot(100 * training.answers[comparison.split].top1, place + 0.22, ".", color=GREY, markersize=5)
        across = standing.macs / 1e6 * BESIDE ** taken.count(standing.macs)
        taken.append(standing.macs)
        _bar(right, _interval(standing, comparison.split), across, colour, upright=True)
        number = (across, 100 * _interval(standing, comparison.split).mean)
        right.annotate(str(place + 1), number, (5, 4), textcoords="offset points", color=colour, fontsize=9)
    left.set_yticks(range(len(shown)), [f"{_shortened(s.name)}  {place}" for place, s in enumerate(shown, 1)])
    left.set_ylim(len(shown) - 0.4, -0.6)
    left.grid(axis="y", visible=False)
    told = "top-1, % (small dots: single trainings)"
    if comparison.contests:
        told += f"\norange differs from blue by more than {comparison.chance.partition(';')[0]}"
    labelled(left, f"Accuracy on the {comparison.split} set", told, "")
    right.margins(x=0.12)
    if len(set(taken)) == 1:
        right.set_xlim(0.6 * taken[0] / 1e6, 1.8 * taken[0] / 1e6)  # side by side is no difference in cost
    else:
        right.set_xscale("log")
        for axis in (right.xaxis.set_major_formatter, right.xaxis.set_minor_formatter):
            axis(LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.6)))
        right.tick_params(which="minor", colors=GREY, labelsize=9)
    labelled(right, "Accuracy against cost", "million multiply-adds an image", "top-1, %")
    return figure


def _interval(standing: Standing, split: str) -> Interval:
    interval = standing.test if split == "test" else standing.val
    assert interval is not None
    return interval


def _colour(comparison: Comparison, standing: Standing) -> str:
    """Blue for the reference, orange for who differs by more than chance, grey for the rest."""
    if standing.name == comparison.reference:
        return BLUE
    contest = comparison.contest(standing.name)
    return ORANGE if contest is not None and contest.beyond_chance else GREY


def _bar(axes: Any, interval: Interval, place: float, colour: str, upright: bool) -> None:
    """A point with its interval."""
    mean, low, high = (100 * share for share in interval)
    sides = [[mean - low], [high - mean]]
    where = {"x": [place], "y": [mean], "yerr": sides} if upright else {"x": [mean], "y": [place], "xerr": sides}
    axes.errorbar(**where, fmt="o", color=colour, markersize=6, capsize=3, linewidth=1.6)


def _shortened(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"

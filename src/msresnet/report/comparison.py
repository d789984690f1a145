"""What a comparison found: pictures, an offline page, and tables for people and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from msresnet.compare.judge import Comparison, Interval, Standing
from msresnet.files import write_atomic
from msresnet.report import page
from msresnet.report.charts import WIDE, chart, literal
from msresnet.report.overview import machine
from msresnet.report.page import (
    Chart,
    Command,
    Headline,
    Headlines,
    Notes,
    Part,
    Row,
    Section,
    Table,
    Words,
    percent,
    short,
    span,
)
from msresnet.report.plots import BLUE, GREY, ORANGE, labelled, new_figure, plain_axes

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
    seen = (
        ", which neither training nor the choice of an epoch has seen."
        if comparison.split == "test"
        else ", which also chose the epoch of each training."
    )
    lead = f"Measured on {comparison.images:,} images of the {comparison.split} set{seen}"
    origin = Section("origin", "How this came about", [Command(command), Notes(comparison.notes), machine(environment)])
    sections = [_verdict(comparison), _failed(comparison), _trainings(comparison), origin]
    title = f"{comparison.data} · {_title(comparison)}"
    page.write_page(path, title, lead, [section for section in sections if section is not None])


def _verdict(comparison: Comparison) -> Section:
    """Who is better, and what it costs."""
    parts: list[Part] = []
    reference = next((s for s in comparison.standings if s.name == comparison.reference), None)
    if reference is not None:
        parts += [Headlines(_headlines(comparison, reference)), Row(_charts(comparison))]
        parts.append(Words(f"In the charts, {'; '.join(_legend(comparison))}."))
    parts.append(Table("Who is better", ACCURACY, accuracy_rows(comparison), sort=True))
    parts.append(Notes(comparison.explanation()))
    if costs := cost_rows(comparison):
        parts.append(Table("What it costs", COST, costs, sort=True))
    return Section("verdict", "Who is better, and what it costs", parts)


def _headlines(comparison: Comparison, reference: Standing) -> list[Headline]:
    score = _interval(reference, comparison.split)
    place = "the baseline" if comparison.chosen else "the highest"
    beyond = sum(contest.beyond_chance for contest in comparison.contests)
    others = f"others differ from it by more than {comparison.chance}"
    return [
        Headline(percent(score.mean), f"{reference.name}, {place}; 95 % interval {span((score.low, score.high))}"),
        *([Headline(f"{beyond} of {len(comparison.contests)}", others)] if comparison.contests else []),
        Headline(f"{reference.seeds}", f"seed{'s' if reference.seeds != 1 else ''}"),
        Headline(comparison.budget, "budget"),
    ]


def _charts(comparison: Comparison) -> list[Chart]:
    """The picture's two halves, one drawing each, so that they stand below each other on a phone."""
    shown = [s for s in comparison.standings if s.seeds]
    told = ", ".join(f"{s.name} {percent(_interval(s, comparison.split).mean)}" for s in shown)
    accuracy, cost = (new_figure(WIDE, _height(shown)) for _ in range(2))
    _draw_accuracy(plain_axes(accuracy, 1, 1, 1), comparison, shown)
    _draw_cost(plain_axes(cost, 1, 1, 1), comparison, shown)
    words = f"Accuracy with 95 % intervals: {told}"
    return [chart(accuracy, words), chart(cost, "Accuracy against multiply-adds, numbered as in the chart of accuracy")]


def _failed(comparison: Comparison) -> Section | None:
    found = _failures(comparison)
    lines = [f"{name}, seed {seeds}: {why}" for name, seeds, why in found]
    return Section("failed", "What failed", [Notes(lines)]) if found else None


def _trainings(comparison: Comparison) -> Section:
    rows = []
    for training in comparison.trainings:
        if not training.failure:
            row = training.row()
            scores = ("" if row[name] is None else percent(row[name]) for name in ("test_top1", "val_top1"))
            rows.append((row["contestant"], str(row["seed"]), *scores, str(row["epochs"]), f"{row['seconds']:.1f}"))
    columns = ("contestant", "seed", "test top-1", "val top-1", "epochs", "seconds")
    who = Table(
        "What each says beyond what is the same for all", ("contestant", "settings"), list(comparison.who.items())
    )
    return Section("trainings", "Every training", [Table("Accuracy and time", columns, rows, sort=True), who])


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
    interval = f"{100 * found.low:+z.2f} to {100 * found.high:+z.2f}"
    return standing.name, seeds, *scores, f"{100 * found.mean:+z.2f}", interval, _p(contest.p), contest.verdict


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


def _height(shown: Sequence[Standing]) -> float:
    return max(2.9, 1.2 + 0.42 * len(shown))


def _drawn(comparison: Comparison) -> Figure:
    """Left: each contestant with its seeds. Right: accuracy against what an answer costs."""
    shown = [s for s in comparison.standings if s.seeds]
    figure = new_figure(9.5, _height(shown))
    _draw_accuracy(plain_axes(figure, 1, 2, 1), comparison, shown, _legend(comparison))
    _draw_cost(plain_axes(figure, 1, 2, 2), comparison, shown)
    return figure


def _legend(comparison: Comparison) -> list[str]:
    """What dots and colours mean."""
    lines = ["small dots: single trainings"]
    if comparison.contests:
        lines.append(f"orange differs from blue by more than {comparison.chance.partition(';')[0]}")
    return lines


def _draw_accuracy(axes: Any, comparison: Comparison, shown: Sequence[Standing], told: Sequence[str] = ()) -> None:
    for place, standing in enumerate(shown):
        _bar(axes, _interval(standing, comparison.split), place, _colour(comparison, standing), upright=False)
        for training in comparison.trainings:
            if training.contestant == standing.name and training.answers:
                axes.plot(100 * training.answers[comparison.split].top1, place + 0.22, ".", color=GREY, markersize=5)
    axes.set_yticks(range(len(shown)), [f"{literal(short(s.name, 24))}  {place}" for place, s in enumerate(shown, 1)])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    labelled(axes, f"Accuracy on the {comparison.split} set", "\n".join(["top-1, %", *told]), "")


def _draw_cost(axes: Any, comparison: Comparison, shown: Sequence[Standing]) -> None:
    taken: list[int] = []
    for place, standing in enumerate(shown):
        interval, colour = _interval(standing, comparison.split), _colour(comparison, standing)
        across = standing.macs / 1e6 * BESIDE ** taken.count(standing.macs)
        taken.append(standing.macs)
        _bar(axes, interval, across, colour, upright=True)
        number = (across, 100 * interval.mean)
        axes.annotate(str(place + 1), number, (5, 4), textcoords="offset points", color=colour, fontsize=9)
    axes.margins(x=0.12)
    if len(set(taken)) == 1:
        axes.set_xlim(0.6 * taken[0] / 1e6, 1.8 * taken[0] / 1e6)  # side by side is no difference in cost
    else:
        axes.set_xscale("log")
        for setter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            setter(LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.6)))
        axes.tick_params(which="minor", colors=GREY, labelsize=9)
    labelled(axes, "Accuracy against cost", "million multiply-adds an image", "top-1, %")


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

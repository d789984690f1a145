"""What a comparison found: pictures, an offline page, and tables for people and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from msresnet.compare.judge import Comparison, Interval, Outcome, Standing
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
from msresnet.tasks.words import interval, points
from msresnet.tasks.words import percent as plain_percent

ACCURACY = ("contestant", "seeds", "test top-1", "95 %", "val top-1", "difference", "95 %", "p", "verdict")
COST = ("contestant", "parameters", "mult-adds", "train img/s", "img/s at 1", "img/s at 64", "epochs", "seconds")
WORDS = ("contestant", "verdict")
"""Columns of words; the others hold numbers."""
BESIDE = 1.04
"""Factor between points of the same cost, so that they stand side by side."""


def accuracy_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The cells under `ACCURACY`, best first."""
    return [_accuracy_row(comparison.outcome, standing) for standing in comparison.outcome.standings]


def cost_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The cells under `COST`, in the same order."""
    return [_cost_row(standing) for standing in comparison.outcome.standings if standing.seeds]


def markdown(comparison: Comparison, command: str, machine: str) -> str:
    """Both tables with what they mean, the command and the machine, for a file that is kept."""
    lines = [f"# {comparison.data}: {_title(comparison)}", ""]
    lines += [*_table(ACCURACY, accuracy_rows(comparison)), "", *_table(COST, cost_rows(comparison)), ""]
    lines += [f"- {line}" for line in (*comparison.outcome.explanation(), *comparison.notes)]
    return "\n".join([*lines, "", machine, "", f"`{command}`", ""])


def picture(comparison: Comparison, path: Path) -> None:
    """Accuracy with intervals, by contestant and against cost, as a PNG file."""
    figure = _drawn(comparison.outcome)
    figure.patch.set(facecolor="white", alpha=1)
    write_atomic(path, lambda part: figure.savefig(part, format="png", dpi=130))


def write_page(path: Path, comparison: Comparison, environment: dict[str, Any], command: str) -> None:
    """One HTML file that opens anywhere, offline."""
    outcome = comparison.outcome
    lead = f"Measured on {outcome.images:,} images of the {outcome.split} set{_seen(outcome)}."
    origin = Section("origin", "How this came about", [Command(command), Notes(comparison.notes), machine(environment)])
    sections = [_verdict(comparison), _failed(comparison.outcome), _trainings(comparison), origin]
    title = f"{comparison.data} · {_title(comparison)}"
    page.write_page(path, title, lead, [section for section in sections if section is not None])


def _seen(outcome: Outcome) -> str:
    """What has seen the images, where that is known."""
    if outcome.split == "val":
        return ", which also chose the epoch of each training"
    copies = [training.copies for training in outcome.trainings if not training.failure]
    known = [count for count in copies if count is not None]
    if any(known):
        return f", of which {max(known):,} are also in the training set: accuracies flatter"
    return ", which neither training nor the choice of an epoch has seen" if known and None not in copies else ""


def _verdict(comparison: Comparison) -> Section:
    """Who is better, and what it costs."""
    parts: list[Part] = []
    reference = next((s for s in comparison.outcome.standings if s.name == comparison.outcome.reference), None)
    if reference is not None:
        parts += [Headlines(_headlines(comparison, reference)), Row(_charts(comparison.outcome))]
        parts.append(Words(f"In the charts, {'; '.join(_legend(comparison.outcome))}."))
    parts.append(Table("Who is better", ACCURACY, accuracy_rows(comparison), sort=True))
    parts.append(Notes(comparison.outcome.explanation()))
    if costs := cost_rows(comparison):
        parts.append(Table("What it costs", COST, costs, sort=True))
    return Section("verdict", "Who is better, and what it costs", parts)


def _headlines(comparison: Comparison, reference: Standing) -> list[Headline]:
    outcome = comparison.outcome
    score = _interval(reference, outcome.split)
    place = "the baseline" if outcome.chosen else "the highest"
    beyond = sum(contest.beyond_chance for contest in outcome.contests)
    others = f"others differ from it by more than {outcome.chance}"
    return [
        Headline(percent(score.mean), f"{reference.name}, {place}; 95 % interval {span((score.low, score.high))}"),
        *([Headline(f"{beyond} of {len(outcome.contests)}", others)] if outcome.contests else []),
        Headline(f"{reference.seeds}", f"seed{'s' if reference.seeds != 1 else ''}"),
        Headline(comparison.budget, "budget"),
    ]


def _charts(outcome: Outcome) -> list[Chart]:
    """The picture's two halves, one drawing each, so that they stand below each other on a phone."""
    shown = [s for s in outcome.standings if s.seeds]
    told = ", ".join(f"{s.name} {percent(_interval(s, outcome.split).mean)}" for s in shown)
    accuracy, cost = (new_figure(WIDE, _height(shown)) for _ in range(2))
    _draw_accuracy(plain_axes(accuracy, 1, 1, 1), outcome, shown)
    _draw_cost(plain_axes(cost, 1, 1, 1), outcome, shown)
    words = f"Accuracy with 95 % intervals: {told}"
    return [chart(accuracy, words), chart(cost, "Accuracy against multiply-adds, numbered as in the chart of accuracy")]


def _failed(outcome: Outcome) -> Section | None:
    found = _failures(outcome)
    lines = [f"{name}, seed {seeds}: {why}" for name, seeds, why in found]
    return Section("failed", "What failed", [Notes(lines)]) if found else None


def _trainings(comparison: Comparison) -> Section:
    rows = []
    for training in comparison.outcome.trainings:
        if not training.failure:
            row = training.row()
            scores = ("" if row[name] is None else percent(row[name]) for name in ("test_top1", "val_top1"))
            rows.append((row["contestant"], str(row["seed"]), *scores, str(row["epochs"]), f"{row['seconds']:.1f}"))
    columns = ("contestant", "seed", "test top-1", "val top-1", "epochs", "seconds")
    who = Table(
        "What each says beyond what is the same for all", ("contestant", "settings"), list(comparison.who.items())
    )
    return Section("trainings", "Every training", [Table("Accuracy and time", columns, rows, sort=True), who])


def _failures(outcome: Outcome) -> list[tuple[str, str, str]]:
    """Contestant, seeds and reason, a line for each reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for standing in outcome.standings:
        for seed, why in standing.failures.items():
            found.setdefault((standing.name, why), []).append(str(seed))
    return [(name, ", ".join(seeds), why) for (name, why), seeds in found.items()]


def _title(comparison: Comparison) -> str:
    seeds = max(s.seeds + len(s.failures) for s in comparison.outcome.standings)
    people = len(comparison.outcome.standings)
    return (
        f"{people} contestant{'s' if people > 1 else ''}, {comparison.budget}, {seeds} seed{'s' if seeds > 1 else ''}"
    )


def _accuracy_row(outcome: Outcome, standing: Standing) -> tuple[str, ...]:
    if not standing.seeds:
        return standing.name, "0", *[""] * 6, f"failed: {next(iter(standing.failures.values()))}"
    scores = (*_scores(standing.test), _scores(standing.val)[0])
    asked = standing.seeds + len(standing.failures)
    seeds = str(standing.seeds) if not standing.failures else f"{standing.seeds} of {asked}"
    contest = outcome.contest(standing.name)
    if contest is None:
        if standing.name != outcome.reference:
            return standing.name, seeds, *scores, "", "", "", "no seed in common"
        return standing.name, seeds, *scores, "", "", "", "baseline" if outcome.chosen else "highest"
    found = contest.difference
    mean, low, high = map(points, (found.mean, found.low, found.high))
    return standing.name, seeds, *scores, mean, f"{low} to {high}", _p(contest.p), contest.verdict


def _scores(found: Interval | None) -> tuple[str, str]:
    """A share in per cent, and its interval."""
    return ("", "") if found is None else (plain_percent(found.mean), interval((found.low, found.high), unit=""))


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


def _drawn(outcome: Outcome) -> Figure:
    """Left: each contestant with its seeds. Right: accuracy against what an answer costs."""
    shown = [s for s in outcome.standings if s.seeds]
    figure = new_figure(9.5, _height(shown))
    _draw_accuracy(plain_axes(figure, 1, 2, 1), outcome, shown, _legend(outcome))
    _draw_cost(plain_axes(figure, 1, 2, 2), outcome, shown)
    return figure


def _legend(outcome: Outcome) -> list[str]:
    """What dots and colours mean."""
    lines = ["small dots: single trainings"]
    if outcome.contests:
        lines.append(f"orange differs from blue by more than {outcome.chance.partition(';')[0]}")
    return lines


def _draw_accuracy(axes: Any, outcome: Outcome, shown: Sequence[Standing], told: Sequence[str] = ()) -> None:
    for place, standing in enumerate(shown):
        _bar(axes, _interval(standing, outcome.split), place, _colour(outcome, standing), upright=False)
        for training in outcome.trainings:
            if training.contestant == standing.name and training.answers:
                axes.plot(100 * training.answers[outcome.split].top1, place + 0.22, ".", color=GREY, markersize=5)
    axes.set_yticks(range(len(shown)), [f"{literal(short(s.name, 24))}  {place}" for place, s in enumerate(shown, 1)])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    labelled(axes, f"Accuracy on the {outcome.split} set", "\n".join(["top-1, %", *told]), "")


def _draw_cost(axes: Any, outcome: Outcome, shown: Sequence[Standing]) -> None:
    taken: list[int] = []
    for place, standing in enumerate(shown):
        interval, colour = _interval(standing, outcome.split), _colour(outcome, standing)
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


def _colour(outcome: Outcome, standing: Standing) -> str:
    """Blue for the reference, orange for who differs by more than chance, grey for the rest."""
    if standing.name == outcome.reference:
        return BLUE
    contest = outcome.contest(standing.name)
    return ORANGE if contest is not None and contest.beyond_chance else GREY


def _bar(axes: Any, interval: Interval, place: float, colour: str, upright: bool) -> None:
    """A point with its interval."""
    mean, low, high = (100 * share for share in interval)
    sides = [[mean - low], [high - mean]]
    where = {"x": [place], "y": [mean], "yerr": sides} if upright else {"x": [mean], "y": [place], "xerr": sides}
    axes.errorbar(**where, fmt="o", color=colour, markersize=6, capsize=3, linewidth=1.6)

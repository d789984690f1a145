"""Pictures of explanations: of single images, and of the scales over a whole set."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from msresnet.data.decode import printable
from msresnet.explain.explanation import Explanation, Look
from msresnet.explain.neighbours import Neighbour
from msresnet.explain.scale_table import ScaleTable
from msresnet.explain.scales import ScaleResponse
from msresnet.report.charts import literal
from msresnet.report.plots import GREY, as_rgb, overlay

Floats = npt.NDArray[np.float64]
PANEL, ROW, BAND = 2.6, 3.3, 1.7
"""Inches: the width of a picture, the height of an image's row, the height of a band of neighbours under it."""
ABREAST = 8
"""Neighbours in a band."""
DPI, LONGEST = 110, 60_000
"""Pixels of an inch, and of the longest side: of a taller figure an inch has fewer."""
MOST_CLASSES = 24
"""Of more classes, those are drawn that differ most from the mean."""
NAME, FILE = 24, 40
"""Characters of a name that have room over a picture, and of a path, in smaller letters, under it."""


def explanation_picture(items: Sequence[Explanation], path: Path) -> None:
    """One row for each image: the picture, the heat maps, the scales block by block, its neighbours. A PNG file."""
    methods = max(len(item.looks) for item in items)
    heights = [ROW + BAND * _bands(item) for item in items]
    figure = Figure((PANEL * (methods + 1) + 4.4, sum(heights)), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(len(items), 1, height_ratios=heights)
    for row, item in enumerate(items):
        _image_row(figure, grid[row, 0], item, methods)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG; letters that the font lacks are drawn as boxes, which needs no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(path, format="png", dpi=min(DPI, LONGEST / max(figure.get_size_inches())))


def _image_row(figure: Figure, place: SubplotSpec, item: Explanation, methods: int) -> None:
    bands = place.subgridspec(1 + _bands(item), 1, height_ratios=(ROW, *[BAND] * _bands(item)))
    views = bands[0, 0].subgridspec(1, methods + 2, width_ratios=(*[1] * (methods + 1), 1.6))
    label, probability = item.answer
    seen = figure.add_subplot(views[0, 0])
    _show(seen, as_rgb(item.picture), f"{_short(label)}\n{probability:.4f}")
    seen.text(0.5, -0.03, _file(item.id), transform=seen.transAxes, ha="center", va="top", fontsize=8, color=GREY)
    for column, look in enumerate(item.looks, 1):
        _show(figure.add_subplot(views[0, column]), overlay(item.picture, look.heat), _title(look, item))
    _stacked(figure.add_subplot(views[0, methods + 1]), item.scales)
    for band in range(_bands(item)):
        places = bands[1 + band, 0].subgridspec(1, min(ABREAST, max(6, len(item.neighbours))))
        for number, neighbour in enumerate(item.neighbours[band * ABREAST :][:ABREAST], band * ABREAST):
            axes = figure.add_subplot(places[0, number % ABREAST])
            _show(axes, as_rgb(neighbour.picture), _beside(number, neighbour), size=8)


def _bands(item: Explanation) -> int:
    """How many bands its neighbours fill."""
    return -(-len(item.neighbours) // ABREAST)


def _title(look: Look, item: Explanation) -> str:
    title = f"{look.method}\n{_short(item.target)}" + ("" if look.hottest else ": nothing speaks for it")
    if look.scores is None:
        return title
    return f"{title}\ndeletion {look.scores.deletion:.2f}, insertion {look.scores.insertion:.2f}"


def _beside(number: int, neighbour: Neighbour) -> str:
    return f"{'nearest' if number == 0 else number + 1}: {_short(neighbour.label)}\ndistance {neighbour.distance:.4f}"


def _short(text: str) -> str:
    """A name with room over a picture, as it is written."""
    text = printable(text)
    return literal(text if len(text) <= NAME else text[: NAME - 1] + "…")


def _file(text: str) -> str:
    """A file with room under a picture: of a longer path the end, which tells files apart."""
    text = printable(text)
    return literal(text if len(text) <= FILE else "…" + text[1 - FILE :])


def _show(axes: Any, view: npt.NDArray[np.uint8], title: str, size: int = 10) -> None:
    axes.imshow(view, interpolation="nearest" if max(view.shape) < 64 else None)
    axes.set_title(title, fontsize=size)
    axes.axis("off")


def _stacked(axes: Any, scales: Sequence[ScaleResponse]) -> None:
    """The shares of each operator's branches as stacked bars, from the image's side to the answer's."""
    axes.set_title("at which scale", fontsize=10)
    if not scales:
        axes.axis("off")
        axes.text(0.5, 0.5, "no operator whose scales\ncan be told apart", ha="center", color=GREY)
        return
    operators = list(dict.fromkeys(s.operator for s in scales))
    branches = list(dict.fromkeys(s.branch for s in scales))
    palette = matplotlib.colormaps["viridis"](np.linspace(0.1, 0.9, len(branches)))
    start = np.zeros(len(operators))
    for branch, colour in zip(branches, palette, strict=True):
        shares = np.array([sum(s.share for s in scales if (s.operator, s.branch) == (o, branch)) for o in operators])
        axes.barh(operators, 100 * shares, left=100 * start, color=colour, label=branch)
        start += shares
    axes.invert_yaxis()
    axes.set_xlabel("share of the response, %", fontsize=9)
    axes.tick_params(labelsize=8 if len(operators) <= 16 else 5)
    axes.legend(fontsize=8, ncols=min(4, len(branches)), loc="upper center", bbox_to_anchor=(0.5, -0.22), frameon=False)


@dataclass(frozen=True)
class Heats:
    """A table of numbers, each on a colour: rows by columns; NaN stays white."""

    values: Floats
    rows: Sequence[str]
    columns: Sequence[str]


def scale_table_figure(table: ScaleTable) -> Figure:
    """Two heat tables: the share of each branch in each block, and how each class differs from the mean."""
    operators, branches = table.operators, table.branches
    chosen = _differing(table)
    width = 2.8 + 0.75 * len(branches)
    height = max(2.8, 1.6 + 0.27 * max(len(operators), len(chosen)))
    figure = Figure((2 * width, height), layout="constrained", facecolor="white")
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    shares = Heats(100 * table.by_operator(table.overall()), operators, branches)
    _sequential(left, shares)
    left.set_title(f"share of each scale, %\n{int(table.counts.sum()):,} images", fontsize=10)
    names = [_short(table.class_names[k]) for k in chosen]
    _diverging(right, Heats(100 * (table.by_class() - _mean(table))[chosen], names, branches))
    right.set_title("how classes differ\nfrom the mean, points", fontsize=10)
    return figure


def _mean(table: ScaleTable) -> Floats:
    """The mean share of each kind of branch over all images and operators."""
    seen = table.counts > 0
    mean: Floats = table.counts[seen] @ table.by_class()[seen] / table.counts.sum()
    return mean


def _differing(table: ScaleTable) -> npt.NDArray[np.intp]:
    """The classes with images, in their order; of too many those that differ most from the mean."""
    present = np.flatnonzero(table.counts)
    far = np.abs(table.by_class()[present] - _mean(table)).max(1)
    return present[np.sort(np.argsort(-far, kind="stable")[:MOST_CLASSES])]


def _sequential(axes: Any, heats: Heats) -> None:
    """Percentages, dark to bright."""
    axes.imshow(heats.values, aspect="auto", cmap="viridis", vmin=0, vmax=100)
    _numbers(axes, heats, "{:.0f}", heats.values < 60)


def _diverging(axes: Any, heats: Heats) -> None:
    """Differences, blue under and red over zero."""
    most = max(0.1, float(np.abs(heats.values).max()))
    axes.imshow(heats.values, aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most)
    _numbers(axes, heats, "{:+.1f}", np.abs(heats.values) > 0.7 * most)


def _numbers(axes: Any, heats: Heats, form: str, dark: npt.NDArray[np.bool_]) -> None:
    """Each number on its colour, white where that is dark, and the names of rows and columns."""
    axes.set_yticks(range(len(heats.rows)), heats.rows, fontsize=8)
    axes.set_xticks(range(len(heats.columns)), heats.columns, fontsize=8, rotation=30, ha="right")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for (row, column), value in np.ndenumerate(heats.values):
        if np.isfinite(value):
            colour = "white" if dark[row, column] else "black"
            axes.text(column, row, form.format(value), ha="center", va="center", fontsize=8, color=colour)

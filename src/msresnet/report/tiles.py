"""A large image's answer as a picture: the image, reduced, with each cell in the colour of its class, or with boxes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from msresnet.boxes import scale
from msresnet.report.annotate import as_picture, fitting
from msresnet.tasks.palette import hue, outlined
from msresnet.tasks.tiling.boxes import BoxMap
from msresnet.tasks.tiling.classes import ClassMap
from msresnet.tasks.tiling.grid import Grid
from msresnet.tasks.tiling.masks import MaskMap
from msresnet.tasks.tiling.merge import Tiled

LISTED = 10
"""Classes that have a colour and a line in the legend, those of the largest areas; all others share the last colour."""
STRONGEST = 0.6
"""Share of the colour in a cell that is sure."""
ROW, WIDTH, MARGIN, SMALLEST = 24, 300, 12, 400
PAPER, INK, OTHERS = (255, 255, 255), (40, 40, 40), (150, 150, 150)
Pixels = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]
Shares = npt.NDArray[np.floating[Any]]


@singledispatch
def map_picture(tiled: Tiled[Any]) -> Pillow.Image:
    """The picture of an answer, by its kind."""
    raise TypeError(f"{type(tiled).__name__} has no picture")


@map_picture.register
def _(tiled: BoxMap) -> Pillow.Image:
    """The boxes over the image in the colours of their classes, and a legend of classes, their objects counted."""
    (height, width), (_, high, wide) = tiled.grid.size, tiled.overview.shape
    classes = tiled.answer.classes[0]
    smaller = scale(tiled.answer.boxes[0], (high / height, wide / width))
    counts = np.bincount(classes, minlength=len(tiled.answer.class_names))
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    rows = [(tiled.answer.class_names[i], f"{counts[i]:,}", hue(i)) for i in order[:LISTED]]
    rows += [("all others", f"{sum(counts[order[LISTED:]]):,}", OTHERS)] if order[LISTED:] else []
    return _with_legend(_enlarged(as_picture(outlined(tiled.overview, smaller, classes))), rows)


@map_picture.register
def _(tiled: ClassMap) -> Pillow.Image:
    """The map over the image, stronger where the answer is surer, and a legend of classes, their areas in percent."""
    return _coloured(tiled, tiled.labels, tiled.areas, tiled.grid, tiled.probabilities.max(2))


@map_picture.register
def _(tiled: MaskMap) -> Pillow.Image:
    """The mask over the image, and a legend of classes, their areas in percent."""
    return _coloured(tiled, tiled.labels, tiled.areas, tiled.coarse, np.ones(tiled.labels.shape))


def _coloured(tiled: Tiled[Any], labels: Indices, areas: Indices, grid: Grid, sure: Shares) -> Pillow.Image:
    """The image under the colours of its cells' classes (rows, columns), as strong as each is sure, and a legend."""
    base = _enlarged(as_picture(tiled.overview))
    order = _largest(areas)
    colours = _colours(order, len(areas))
    strengths = np.rint(255 * STRONGEST * sure).astype(np.uint8)
    cells, strong = (_fitted(Pillow.fromarray(each), grid, base.size) for each in (colours[labels], strengths))
    base.paste(cells, (0, 0), strong)
    whole = int(areas.sum())
    rows = [(tiled.answer.class_names[i], _percent(areas[i] / whole), tuple(map(int, colours[i]))) for i in order]
    rest = whole - int(areas[order].sum())
    return _with_legend(base, rows + ([("all others", _percent(rest / whole), OTHERS)] if rest else []))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _enlarged(picture: Pillow.Image) -> Pillow.Image:
    """A small picture at a multiple of its size."""
    factor = max(1, -(-SMALLEST // max(picture.size)))
    return picture.resize((picture.width * factor, picture.height * factor), Pillow.Resampling.NEAREST)


def _largest(areas: Indices) -> list[int]:
    """The classes with the largest areas."""
    return [int(i) for i in np.argsort(-areas, kind="stable")[:LISTED] if areas[i] > 0]


def _colours(order: Sequence[int], classes: int) -> Pixels:
    """A colour for each class (K, 3)."""
    colours = np.full((classes, 3), OTHERS, np.uint8)
    palette = matplotlib.colormaps["tab10"](range(LISTED))[:, :3]
    for place, index in enumerate(order):
        colours[index] = np.rint(255 * palette[place])
    return colours


def _fitted(cells: Pillow.Image, grid: Grid, size: tuple[int, int]) -> Pillow.Image:
    """One pixel a cell -> the size of the picture; cells at the edges may reach beyond the image."""
    (height, width), (down, across) = grid.size, grid.step
    box = (0.0, 0.0, width / across, height / down)
    return cells.resize(size, Pillow.Resampling.NEAREST, box)


def _with_legend(base: Pillow.Image, rows: Sequence[tuple[str, str, tuple[int, ...]]]) -> Pillow.Image:
    """A picture, and beside it a line for each class: its name, a figure, its colour."""
    height = max(base.height, 2 * MARGIN + ROW * len(rows))
    paper = Pillow.new("RGB", (base.width + WIDTH, height), PAPER)
    paper.paste(base, (0, 0))
    draw, font = ImageDraw.Draw(paper), ImageFont.load_default(14)
    left = base.width + MARGIN
    for number, (name, figure, colour) in enumerate(rows):
        top = MARGIN + ROW * number
        draw.rectangle((left, top + 2, left + 14, top + 16), fill=colour)
        draw.text((left + 24, top), fitting(name, font, WIDTH - 2 * MARGIN - 100), INK, font)
        draw.text((base.width + WIDTH - MARGIN - font.getlength(figure), top), figure, INK, font)
    return paper

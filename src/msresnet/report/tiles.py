"""A large image's answer as a picture: the image, reduced, with each cell in the colour of its class, or with boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from msresnet.boxes import scale
from msresnet.infer.tiling.boxes import BoxMap
from msresnet.infer.tiling.classes import ClassMap
from msresnet.infer.tiling.merge import Tiled
from msresnet.report.annotate import as_picture, boxed, fitting

LISTED = 10
"""Classes that have a colour and a line in the legend, those of the largest areas; all others share the last colour."""
STRONGEST = 0.6
"""Share of the colour in a cell that is sure."""
ROW, WIDTH, MARGIN, SMALLEST = 24, 300, 12, 400
PAPER, INK, OTHERS = (255, 255, 255), (40, 40, 40), (150, 150, 150)
Pixels = npt.NDArray[np.uint8]


@singledispatch
def map_picture(tiled: Tiled[Any]) -> Pillow.Image:
    """The picture of an answer, by its kind."""
    raise TypeError(f"{type(tiled).__name__} has no picture")


@map_picture.register
def _(tiled: BoxMap) -> Pillow.Image:
    """The boxes over the image, and what each is."""
    (height, width), (_, high, wide) = tiled.grid.size, tiled.overview.shape
    smaller = scale(tiled.answer.boxes[0], (high / height, wide / width))
    return boxed(tiled.overview, replace(tiled.answer, boxes=(smaller,)))


@map_picture.register
def _(tiled: ClassMap) -> Pillow.Image:
    """The map over the image, stronger where the answer is surer, and a legend of classes, their areas in percent."""
    base = as_picture(tiled.overview)
    factor = max(1, -(-SMALLEST // max(base.size)))
    base = base.resize((base.width * factor, base.height * factor), Pillow.Resampling.NEAREST)
    order = _largest(tiled)
    colours = _colours(order, len(tiled.areas))
    cells = _fitted(Pillow.fromarray(colours[tiled.labels]), tiled, base.size)
    strengths = np.rint(255 * STRONGEST * tiled.probabilities.max(2)).astype(np.uint8)
    base.paste(cells, (0, 0), _fitted(Pillow.fromarray(strengths), tiled, base.size))
    return _with_legend(base, tiled, order, colours)


def _largest(tiled: ClassMap) -> list[int]:
    """The classes with the largest areas."""
    order = np.argsort(-tiled.areas, kind="stable")[:LISTED]
    return [int(i) for i in order if tiled.areas[i] > 0]


def _colours(order: Sequence[int], classes: int) -> Pixels:
    """A colour for each class (K, 3)."""
    colours = np.full((classes, 3), OTHERS, np.uint8)
    palette = matplotlib.colormaps["tab10"](range(LISTED))[:, :3]
    for place, index in enumerate(order):
        colours[index] = np.rint(255 * palette[place])
    return colours


def _fitted(cells: Pillow.Image, tiled: ClassMap, size: tuple[int, int]) -> Pillow.Image:
    """One pixel a cell -> the size of the picture; cells at the edges may reach beyond the image."""
    (height, width), (down, across) = tiled.grid.size, tiled.grid.step
    box = (0.0, 0.0, width / across, height / down)
    return cells.resize(size, Pillow.Resampling.NEAREST, box)


def _with_legend(base: Pillow.Image, tiled: ClassMap, order: Sequence[int], colours: Pixels) -> Pillow.Image:
    names, areas = tiled.answer.class_names, tiled.areas
    rows = [(names[i], int(areas[i]), tuple(map(int, colours[i]))) for i in order]
    rest = int(areas.sum()) - sum(area for _, area, _ in rows)
    rows += [("all others", rest, OTHERS)] if rest else []
    height = max(base.height, 2 * MARGIN + ROW * len(rows))
    paper = Pillow.new("RGB", (base.width + WIDTH, height), PAPER)
    paper.paste(base, (0, 0))
    draw, font = ImageDraw.Draw(paper), ImageFont.load_default(14)
    left = base.width + MARGIN
    for number, (name, area, colour) in enumerate(rows):
        top = MARGIN + ROW * number
        draw.rectangle((left, top + 2, left + 14, top + 16), fill=colour)
        share = f"{100 * area / int(areas.sum()):.1f} %"
        draw.text((left + 24, top), fitting(name, font, WIDTH - 2 * MARGIN - 100), INK, font)
        draw.text((base.width + WIDTH - MARGIN - font.getlength(share), top), share, INK, font)
    return paper

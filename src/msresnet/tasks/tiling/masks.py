"""The masks of all tiles -> one mask: where tiles overlap, each gives the half that is nearer to its own middle.

What a network says at a tile's edge it says without having seen what lies beyond; half an overlap away it has seen it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from msresnet.data.sample import Image
from msresnet.errors import UsageError
from msresnet.results import Results, Segmentation
from msresnet.tasks.tiling.grid import Grid, Place
from msresnet.tasks.tiling.merge import Features, Merge, Tiled
from msresnet.tasks.tiling.regions import features, regions

MOST = 1 << 30
"""Pixels of an image: its mask is kept in memory, a byte for each."""
OUTLINED = 1024
"""Longest side, in cells, of the map that polygons are drawn around."""
BAND = 1 << 20
"""Pixels that are counted at a time."""
FILE = "mask.png"


@dataclass(frozen=True, kw_only=True)
class MaskMap(Tiled[Segmentation]):
    """The class of every pixel of a large image.

    Args:
        tiles: how many were looked at.
        coarse: squares of pixels, no more than OUTLINED of them along a side.
        labels: the class of most pixels of each square (rows, columns).
        areas: pixels of each class (K,).
    """

    tiles: int
    coarse: Grid
    labels: npt.NDArray[np.int64]
    areas: npt.NDArray[np.int64]

    counted: ClassVar[tuple[str, ...]] = ("class", "area", "share")

    def counts(self) -> list[tuple[str | int | float, ...]]:
        """Of each class its pixels, and their share of the image."""
        total = int(self.areas.sum())
        return [(name, n, n / total) for name, n in zip(self.answer.class_names, self.areas.tolist(), strict=True)]

    def features(self) -> Features:
        """The largest connected areas of one class, to a square of `coarse`: in images up to OUTLINED, to the pixel."""
        return features(regions(self.labels, None, self.coarse), self.answer.class_names)

    def facts(self) -> dict[str, Any]:
        """The number of tiles, and the pixels of an outline's smallest step."""
        return {"tiles": self.tiles, "outlined": self.coarse.step[0]}

    def described(self) -> str:
        """The tiles and the largest classes."""
        (row,) = self.answer.to_dict()
        shares = ", ".join(f"{item['label']} {100 * item['share']:.1f} %" for item in row["shares"])
        return f"{self.tiles:,} tiles of {self.grid.tile[1]}x{self.grid.tile[0]}: {shares}"

    def save(self, folder: Path) -> None:
        """Write the mask, a palette PNG of the image's size."""
        from msresnet.tasks.mask_files import save_mask  # a server reads this file and writes none

        save_mask(self.answer.masks[0], len(self.answer.class_names), folder / FILE)


class MaskMerge(Merge):
    """Puts masks side by side.

    Args:
        grid: of the tiles.
        class_names: of the segmenter.

    Raises UsageError for an image of too many pixels.
    """

    def __init__(self, grid: Grid, class_names: tuple[str, ...]) -> None:
        super().__init__(grid, class_names)
        height, width = grid.size
        if height * width > MOST:
            why, hint = f"masks are kept in memory, up to {MOST:,} pixels", "cut the image into parts"
            raise UsageError(f"a mask of {width:,} x {height:,} pixels", why=why, hint=hint)
        self.tiles, self.sure = 0, 0.0
        self.downs, self.acrosses = middles(grid.tops, grid.tile[0]), middles(grid.lefts, grid.tile[1])
        self.mask = np.zeros(grid.size, np.uint8)

    def add(self, places: Sequence[Place], results: Results) -> None:
        """Copy the middles of some tiles' masks to where they are in the image."""
        assert isinstance(results, Segmentation)
        for (top, left), mask, confidence in zip(places, results.masks, results.confidences, strict=True):
            down, across = self.downs[top], self.acrosses[left]
            inner = mask[down.start - top : down.stop - top, across.start - left : across.stop - left]
            self.mask[down, across] = inner
            self.sure += float(confidence) * inner.size
        self.tiles += len(places)

    def finish(self, name: str, overview: Image, note: str) -> MaskMap:
        """The mask, as sure as its tiles are on average, by the area that each gave."""
        confidence = np.array([self.sure / self.mask.size])
        answer = Segmentation((name,), self.class_names, (self.mask,), confidence)
        coarse = squares(self.grid.size)
        labels, areas = majority(self.mask, coarse, len(self.class_names))
        return MaskMap(
            answer=answer,
            grid=self.grid,
            overview=overview,
            note=note,
            tiles=self.tiles,
            coarse=coarse,
            labels=labels,
            areas=areas,
        )


def middles(begins: Sequence[int], tile: int) -> dict[int, slice]:
    """What each tile along a side gives, by where it begins: up to the middle of what it shares with its neighbours."""
    edges = [begins[0], *((before + tile + after) // 2 for before, after in pairwise(begins))]
    ends = [*edges[1:], begins[-1] + tile]
    return {begin: slice(first, last) for begin, first, last in zip(begins, edges, ends, strict=True)}


def squares(size: Place) -> Grid:
    """Squares of equal whole sides over an image (H, W)."""
    side = -(-max(size) // OUTLINED)
    return Grid(size, (side, side), (side, side))


def majority(
    mask: npt.NDArray[np.uint8], coarse: Grid, classes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The most frequent class of each square (rows, columns), the first of several; and each class's pixels (K,)."""
    (height, width), step, (down, across) = mask.shape, coarse.step[0], coarse.cells
    counts = np.zeros((down, across, classes), np.int32)
    places, some = np.arange(width) // step * classes, max(1, BAND // width)
    for top in (top for first in range(0, height, step) for top in range(first, min(first + step, height), some)):
        rows = mask[top : min(top + some, (top // step + 1) * step)]  # within one row of squares
        found = np.bincount((places + rows).ravel(), minlength=across * classes)
        counts[top // step] += found.reshape(across, classes)
    return counts.argmax(2), counts.sum((0, 1), dtype=np.int64)

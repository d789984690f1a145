"""Tiles of a file, read from top to bottom, and a small picture of the whole that is made on the way."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from msresnet.data.bands.base import Bands
from msresnet.data.decode import upright
from msresnet.data.sample import Image
from msresnet.errors import DataError
from msresnet.tasks.tiling.grid import Grid, Place

MOST_ROWS = 1 << 30
"""Bytes of the rows that are kept for the tiles over them."""
OVERVIEW = 1024
"""Longest side, in pixels, of the picture under a map."""


def tiles(bands: Bands, grid: Grid, overview: Overview) -> Iterator[tuple[Place, Image]]:
    """((top, left), pixels (C, h, w)) of all tiles, upright, in the order in which the file holds them."""
    lying = sorted((_laid_down(top, left, bands, grid), (top, left)) for top in grid.tops for left in grid.lefts)
    high, wide = grid.tile[::-1] if bands.turn[0] else grid.tile
    strip = Strip(bands, overview)
    for (top, left), place in lying:
        rows = strip.rows(top, high)
        yield place, upright(rows[:, :, left : left + wide], bands.turn)
    strip.finish()


def _laid_down(top: int, left: int, bands: Bands, grid: Grid) -> Place:
    """Where a tile of the upright image begins in the file's own rows and columns."""
    swapped, rows_back, columns_back = bands.turn
    top = grid.size[0] - grid.tile[0] - top if rows_back else top
    left = grid.size[1] - grid.tile[1] - left if columns_back else left
    return (left, top) if swapped else (top, left)


class Strip:
    """Some rows of an image, those that tiles are taken from at present."""

    def __init__(self, bands: Bands, overview: Overview) -> None:
        self.bands, self.overview = bands, overview
        self.coming, self.parts, self.start, self.end = bands.rows(), list[Image](), 0, 0

    def rows(self, top: int, count: int) -> Image:
        """Rows (C, count, W) from `top` on, which never goes back. Raises DataError."""
        while self.end < top + count:
            band = next(self.coming)
            self._check(band, count)
            self.overview.add(band)
            self.parts.append(band)
            self.end += band.shape[1]
        while self.start + self.parts[0].shape[1] <= top:
            self.start += self.parts.pop(0).shape[1]
        if len(self.parts) > 1:
            self.parts = [np.concatenate([self.parts[0][:, top - self.start :], *self.parts[1:]], 1)]
            self.start = top
        return self.parts[0][:, top - self.start : top - self.start + count]

    def finish(self) -> None:
        """Read what is left, so that it is known to be whole. Raises DataError."""
        for _ in self.coming:
            pass

    def _check(self, band: Image, count: int) -> None:
        size = band.shape[0] * count * band.shape[2]
        if size > MOST_ROWS:
            why = f"{count:,} rows of {band.shape[2]:,} pixels do not fit into memory"
            raise DataError("the image is too wide", where=self.bands.where, why=why, hint="a smaller --tile")


class Overview:
    """A reduced picture of an image, each pixel the mean of a square; made while bands go by."""

    def __init__(self, bands: Bands) -> None:
        self.factor = math.ceil(max(bands.height, bands.width) / OVERVIEW)
        self.height, self.row = bands.height, 0
        self.sums: npt.NDArray[np.int64] | None = None

    def add(self, band: Image) -> None:
        """Look at the next rows (C, h, W)."""
        wide = np.arange(0, band.shape[2], self.factor)
        across = np.add.reduceat(band, wide, axis=2, dtype=np.int64)
        begin = [0, *range(-self.row % self.factor or self.factor, band.shape[1], self.factor)]
        down = np.add.reduceat(across, begin, axis=1)
        if self.sums is None:
            self.sums = np.zeros((len(band), -(-self.height // self.factor), len(wide)), np.int64)
            self.width = band.shape[2]
        first = self.row // self.factor
        self.sums[:, first : first + len(begin)] += down
        self.row += band.shape[1]

    def picture(self) -> Image:
        """What was seen (C, h, w)."""
        assert self.sums is not None
        rows, columns = (
            np.minimum(self.factor, length - self.factor * np.arange(count))
            for length, count in zip((self.height, self.width), self.sums.shape[1:], strict=True)
        )
        return np.asarray(np.rint(self.sums / np.outer(rows, columns)), np.uint8)

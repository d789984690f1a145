"""Prediction on images of any size: tile by tile, from top to bottom, in memory that does not grow with their height.

Tiles overlap, and those at the right and lower edges are moved inwards, so that each holds as many pixels as others.
The answers are blended on a grid of cells as wide as the step from tile to tile: a cell's probabilities are the mean
of those of the tiles over it, weighted by the area that they share. H and W pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from msresnet.data.bands.base import Bands
from msresnet.data.bands.opened import open_bands
from msresnet.data.decode import decode_bytes, upright
from msresnet.data.sample import Image
from msresnet.errors import DataError, UsageError
from msresnet.infer.config import Tiling
from msresnet.infer.predictor import Predictor, batched
from msresnet.results import Classification, classified

MOST_VALUES = 1 << 26
"""Numbers in a map: cells times classes."""
MOST_ROWS = 1 << 30
"""Bytes of the rows that are kept for the tiles over them."""
OVERVIEW = 1024
"""Longest side, in pixels, of the picture under a map."""
Place = tuple[int, int]
Map = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """Where the tiles lie on an upright image.

    Args:
        size: (H, W) of the image.
        tile: (h, w) of a tile, no larger than the image.
        step: from a tile to the next, down and across.
    """

    size: Place
    tile: Place
    step: Place

    @property
    def tops(self) -> list[int]:
        """The first rows of tiles."""
        return places(self.size[0], self.tile[0], self.step[0])

    @property
    def lefts(self) -> list[int]:
        """The first columns of tiles."""
        return places(self.size[1], self.tile[1], self.step[1])

    @property
    def cells(self) -> Place:
        """Rows and columns of cells; those at the lower and right edges may be smaller."""
        return -(-self.size[0] // self.step[0]), -(-self.size[1] // self.step[1])

    @property
    def areas(self) -> npt.NDArray[np.int64]:
        """Pixels of each cell (rows, columns)."""
        down, across = (
            np.minimum(step, length - step * np.arange(count))
            for step, length, count in zip(self.step, self.size, self.cells, strict=True)
        )
        return np.outer(down, across)


def places(length: int, tile: int, step: int) -> list[int]:
    """Where tiles begin along a side, so that they cover it and none goes beyond it."""
    return [*range(0, length - tile, step), length - tile]


def grid_for(size: Place, asked: Tiling, network: Place) -> Grid:
    """The tiles of an image (H, W) for a network's input (H, W). Raises UsageError for too many of them."""
    side = network if asked.side is None else (asked.side, asked.side)
    tile = min(side[0], size[0]), min(side[1], size[1])
    step = _step(tile[0], asked.overlap), _step(tile[1], asked.overlap)
    return Grid(size, tile, step)


def _step(side: int, overlap: float) -> int:
    return max(1, round(side * (1 - overlap)))


class Blend:
    """The map that is being made.

    Args:
        grid: of the tiles.
        classes: K.

    Raises UsageError for a map that would be too large.
    """

    def __init__(self, grid: Grid, classes: int) -> None:
        rows, columns = grid.cells
        if rows * columns * classes > MOST_VALUES:
            what = f"a map of {rows:,} x {columns:,} cells and {classes:,} classes"
            raise UsageError(what, why="it does not fit into memory", hint="a larger --tile, or a smaller --overlap")
        self.grid = grid
        self.sums = np.zeros((rows, columns, classes), np.float32)
        self.weights = np.zeros((rows, columns), np.float32)

    def add(self, place: Place, probabilities: npt.NDArray[np.float64]) -> None:
        """Add the answer (K,) of the tile that begins at (top, left)."""
        (rows, down), (columns, across) = (self._shared(axis, place[axis]) for axis in (0, 1))
        weights = np.outer(down, across).astype(np.float32)
        self.sums[rows, columns] += weights[..., None] * probabilities.astype(np.float32)
        self.weights[rows, columns] += weights

    def _shared(self, axis: int, begin: int) -> tuple[slice, npt.NDArray[np.float64]]:
        """The cells along an axis that a tile lies over, and the share of a step that they have in common."""
        step, end = self.grid.step[axis], begin + self.grid.tile[axis]
        first, last = begin // step, -(-end // step)
        edges = step * np.arange(first, last + 1)
        shared = np.minimum(edges[1:], end) - np.maximum(edges[:-1], begin)
        return slice(first, last), shared / step

    def probabilities(self) -> Map:
        """The map (rows, columns, K); each cell's sum to 1."""
        blended: Map = self.sums / self.weights[..., None]
        return blended


@dataclass(frozen=True)
class Tiled:
    """A large image's answer.

    Args:
        answer: of the whole image (1, K).
        grid: of the tiles.
        probabilities: of the cells (rows, columns, K).
        tiles: how many tiles each class won (K,).
        overview: the image, reduced (C, h, w).
        note: why the image was decoded whole; '' where it was not.
    """

    answer: Classification
    grid: Grid
    probabilities: Map
    tiles: npt.NDArray[np.int64]
    overview: Image
    note: str

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The most probable class of each cell (rows, columns)."""
        return np.asarray(self.probabilities.argmax(2), np.int64)

    @property
    def areas(self) -> npt.NDArray[np.int64]:
        """Pixels of the cells that each class won (K,)."""
        counted = np.bincount(self.labels.ravel(), self.grid.areas.ravel(), minlength=len(self.tiles))
        return counted.astype(np.int64)


def _silent(done: int, total: int) -> None:
    """Say nothing of tiles that were answered."""


def predict_tiles(
    predictor: Predictor, file: BinaryIO, name: str, asked: Tiling, progress: Callable[[int, int], None] = _silent
) -> Tiled:
    """The answer for an image of any size, and the map behind it; `progress` hears how many tiles of all are done.

    An image that is no larger than a tile is predicted on as without tiles. Raises DataError for a file that cannot be
    read to its end, UsageError for a map that would be too large.
    """
    bands = open_bands(file, name)
    grid = grid_for(bands.size, asked, predictor.trained.preprocess.size)
    if grid.tile == grid.size:
        return _single(predictor, file, name, grid)
    overview, blend = Overview(bands), Blend(grid, len(predictor.trained.postprocess.class_names))
    highest = np.zeros(len(predictor.trained.postprocess.class_names))
    won = np.zeros(len(highest), np.int64)
    prepared = ((place, predictor.trained.preprocess.image(image)) for place, image in tiles(bands, grid, overview))
    for chunk in batched(prepared, predictor.batch_size):
        ready = torch.from_numpy(np.stack([image for _, image in chunk]))
        found = classified(predictor.predict_ready(ready, [name] * len(chunk)))
        won += np.bincount(found.indices, minlength=len(won))
        highest = np.maximum(highest, found.probabilities.max(0))
        for (place, _), row in zip(chunk, found.probabilities, strict=True):
            blend.add(place, row)
        progress(int(won.sum()), len(grid.tops) * len(grid.lefts))
    whole = blend.probabilities()
    answer = highest if asked.whole == "max" else np.average(whole.reshape(-1, len(won)), 0, grid.areas.ravel())
    results = Classification((name,), found.class_names, (answer / answer.sum())[None].astype(np.float64))
    return Tiled(results, grid, whole, won, upright(overview.picture(), bands.turn), bands.note)


def _single(predictor: Predictor, file: BinaryIO, name: str, grid: Grid) -> Tiled:
    file.seek(0)
    image = decode_bytes(file.read(), name, predictor.trained.preprocess.at_least)
    found = classified(predictor.predict([image], [name]))
    won = np.bincount(found.indices, minlength=len(found.class_names))
    probabilities = found.probabilities[None].astype(np.float32)
    return Tiled(replace(found, exits=None), replace(grid, step=grid.size), probabilities, won, image, "")


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

"""One class for each tile -> a map of probabilities, the whole image's answer, and areas of each class.

The answers are blended on the grid's cells: a cell's probabilities are the mean of those of the tiles over it, weighted
by the area that they share. K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from msresnet.data.sample import Image
from msresnet.errors import UsageError
from msresnet.results import Classification, Results, classified
from msresnet.tasks.tiling.grid import Grid, Place
from msresnet.tasks.tiling.merge import Features, Merge, Tiled
from msresnet.tasks.tiling.regions import features, regions

MOST_VALUES = 1 << 26
"""Numbers in a map: cells times classes."""
Map = npt.NDArray[np.float32]


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


@dataclass(frozen=True, kw_only=True)
class ClassMap(Tiled[Classification]):
    """What each part of a large image shows.

    Args:
        probabilities: of the cells (rows, columns, K).
        tiles: how many tiles each class won (K,).
        whole: what the tiles say about the image: 'mean' over its area, or 'max'.
    """

    probabilities: Map
    tiles: npt.NDArray[np.int64]
    whole: str

    counted: ClassVar[tuple[str, ...]] = ("class", "tiles", "area", "share")

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The most probable class of each cell (rows, columns)."""
        return np.asarray(self.probabilities.argmax(2), np.int64)

    @property
    def areas(self) -> npt.NDArray[np.int64]:
        """Pixels of the cells that each class won (K,)."""
        counted = np.bincount(self.labels.ravel(), self.grid.areas.ravel(), minlength=len(self.tiles))
        return counted.astype(np.int64)

    def counts(self) -> list[tuple[str | int | float, ...]]:
        """Of each class the tiles that it won, the pixels of the cells that it won, and their share of the image."""
        total = int(self.areas.sum())
        columns = zip(self.answer.class_names, self.tiles.tolist(), self.areas.tolist(), strict=True)
        return [(name, tiles, area, area / total) for name, tiles, area in columns]

    def features(self) -> Features:
        """Connected areas of one class."""
        found = regions(self.labels, self.probabilities.max(2), self.grid)
        return features(found, self.answer.class_names)

    def facts(self) -> dict[str, Any]:
        """What the tiles say about the image, and numbers of tiles and cells."""
        return {"whole": self.whole, "tiles": int(self.tiles.sum()), "cells": list(self.grid.cells)}

    def described(self) -> str:
        """The tiles and the cells of the map."""
        (high, wide), (down, across), (rows, columns) = self.grid.tile, self.grid.step, self.grid.cells
        return f"{int(self.tiles.sum()):,} tiles of {wide}x{high}, {rows:,} x {columns:,} cells of {across}x{down}"


class ClassMerge(Merge):
    """Blends probabilities.

    Args:
        grid: of the tiles.
        class_names: of the classifier.
        whole: what the tiles say about the image: 'mean' over its area, or 'max', the highest of each class.

    Raises UsageError for a map that would be too large.
    """

    def __init__(self, grid: Grid, class_names: tuple[str, ...], whole: str) -> None:
        super().__init__(grid, class_names)
        self.whole, classes = whole, len(class_names)
        self.blend = Blend(grid, classes)
        self.highest, self.won = np.zeros(classes), np.zeros(classes, np.int64)
        self.last: npt.NDArray[np.floating[Any]] = self.highest

    def add(self, places: Sequence[Place], results: Results) -> None:
        """Blend the answers of some tiles into the map."""
        found = classified(results)
        self.won += np.bincount(found.indices, minlength=len(self.won))
        self.highest, self.last = np.maximum(self.highest, found.probabilities.max(0)), found.probabilities[-1]
        for place, row in zip(places, found.probabilities, strict=True):
            self.blend.add(place, row)

    def finish(self, name: str, overview: Image, note: str) -> ClassMap:
        """The map, and what it says about the whole image."""
        cells = self.blend.probabilities()
        answer: npt.NDArray[np.floating[Any]] = self.last  # of one tile, to the last digit
        if self.won.sum() > 1:
            mean = np.average(cells.reshape(-1, len(self.won)), 0, self.grid.areas.ravel())
            answer = self.highest if self.whole == "max" else mean
            answer = answer / answer.sum()
        results = Classification((name,), self.class_names, answer[None].astype(np.float64))
        return ClassMap(
            answer=results,
            grid=self.grid,
            overview=overview,
            note=note,
            probabilities=cells,
            tiles=self.won,
            whole=self.whole,
        )

"""Where tiles lie on an image, and the cells between their beginnings. H and W pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Place = tuple[int, int]
"""Down and across, in pixels: sides, or a corner."""


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


def grid_for(size: Place, side: Place, overlap: float) -> Grid:
    """The tiles of an image (H, W): of (h, w) pixels, or as large as it is; neighbours overlap by a share of a tile."""
    tile = min(side[0], size[0]), min(side[1], size[1])
    return Grid(size, tile, (_step(tile[0], overlap), _step(tile[1], overlap)))


def _step(side: int, overlap: float) -> int:
    return max(1, round(side * (1 - overlap)))

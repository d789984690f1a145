"""Connected areas of a map of classes, as polygons in pixels.

Coordinates are (x, y) from the upper left corner, y downwards. Outlines follow the cells' edges; cells that touch at a
corner only are not connected. Rings are closed; the outer ring comes first and has a positive area by the shoelace
formula ("counterclockwise" as RFC 7946 computes it), holes a negative one. Rings may touch in a point, and never cross.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.results import DIGITS
from msresnet.tasks.tiling.grid import Grid

MOST = 20_000
"""Areas that are outlined."""
Point = tuple[int, int]
Ring = list[Point]
Mask = npt.NDArray[np.bool_]
_RIGHT, _DOWN, _LEFT, _UP = (1, 0), (0, 1), (-1, 0), (0, -1)
_TURNS = {_RIGHT: (_UP, _DOWN), _DOWN: (_RIGHT, _LEFT), _LEFT: (_DOWN, _UP), _UP: (_LEFT, _RIGHT)}
"""By the direction of an edge: where to look for the next one at a corner where two ways are open, first and second."""


@dataclass(frozen=True)
class Region:
    """A connected area of one class.

    Args:
        label: index of the class.
        rings: the outer ring, then holes, in pixels.
        probability: mean over the area; None where it is not known.
        area: in pixels.
    """

    label: int
    rings: list[Ring]
    probability: float | None
    area: int


def regions(labels: npt.NDArray[np.int64], best: npt.NDArray[np.floating[Any]] | None, grid: Grid) -> list[Region]:
    """The areas of a map of classes, and how sure each cell is (rows, columns); the largest of a class first.

    No more than MOST of them, the largest: noise has as many as it has pixels.
    """
    from scipy import ndimage  # a server reads this file and outlines nothing

    areas, parts = grid.areas, np.zeros(labels.shape, np.int64)
    for label in np.unique(labels):
        mine, _ = ndimage.label(labels == label)
        parts += np.where(mine > 0, mine + parts.max(), 0)
    sizes = np.bincount(parts.ravel(), areas.ravel()).astype(np.int64)
    xs = [min(grid.step[1] * i, grid.size[1]) for i in range(grid.cells[1] + 1)]
    ys = [min(grid.step[0] * i, grid.size[0]) for i in range(grid.cells[0] + 1)]
    boxes, found = ndimage.find_objects(parts), []
    for number in np.argsort(-sizes, kind="stable")[:MOST].tolist():
        if not sizes[number]:
            continue
        box = boxes[number - 1]
        mask, corner = parts[box] == number, (box[1].start, box[0].start)
        rings = [[(xs[x + corner[0]], ys[y + corner[1]]) for x, y in ring] for ring in outlines(mask)]
        mean = None if best is None else float(np.average(best[box][mask], weights=areas[box][mask]))
        found.append(Region(int(labels[box][mask][0]), rings, mean, int(sizes[number])))
    return sorted(found, key=lambda region: (region.label, -region.area))


def outlines(mask: Mask) -> list[Ring]:
    """The closed rings around the cells of one connected area (rows, columns), in corners of cells; outer first."""
    edges = _edges(mask)
    rings = []
    for start in sorted(edges):  # the leftmost corner of a ring belongs to no other that is still to come
        while start in edges:
            rings.append(_ring(edges, start))
    return sorted(rings, key=lambda ring: -signed_area(ring))


def _edges(mask: Mask) -> dict[Point, list[Point]]:
    """The directions of the edges that begin at each corner; the area lies to the right of one who looks along them."""
    padded = np.pad(mask, 1)
    edges: dict[Point, list[Point]] = {}
    inner = padded[1:-1, 1:-1]
    for (rows, columns), (x, y), direction in (
        ((slice(None, -2), slice(1, -1)), (0, 0), _RIGHT),
        ((slice(1, -1), slice(2, None)), (1, 0), _DOWN),
        ((slice(2, None), slice(1, -1)), (1, 1), _LEFT),
        ((slice(1, -1), slice(None, -2)), (0, 1), _UP),
    ):
        for row, column in np.argwhere(inner & ~padded[rows, columns]).tolist():
            edges.setdefault((column + x, row + y), []).append(direction)
    return edges


def _ring(edges: dict[Point, list[Point]], start: Point) -> Ring:
    """Follow edges, which are taken away, from a corner back to it; corners on a straight line are left out."""
    at, before, ring = start, edges[start][0], [start]
    while True:
        ways = edges[at]
        # Where two corners of the area meet, the edge around the same gap, so that no ring meets itself.
        direction = ways[0] if len(ways) == 1 else next(way for way in _TURNS[before] if way in ways)
        if direction != before:
            ring.append(at)
        ways.remove(direction)
        if not ways:
            del edges[at]
        at, before = (at[0] + direction[0], at[1] + direction[1]), direction
        if at == start:
            return [*ring, start]


def signed_area(ring: Ring) -> float:
    """The area of a ring by the shoelace formula."""
    return sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in pairwise(ring)) / 2


def features(found: list[Region], class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Regions as GeoJSON's features; coordinates are pixels, not degrees."""
    return [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": region.rings},
            "properties": {"class": class_names[region.label], **_sure(region), "area": region.area},
        }
        for region in found
    ]


def _sure(region: Region) -> dict[str, float]:
    return {} if region.probability is None else {"probability": round(region.probability, DIGITS)}

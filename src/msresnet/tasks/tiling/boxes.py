"""The boxes of all tiles -> those of the image: what a tile's edge cut is put together again. M boxes, K classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from msresnet.boxes import areas, clip, iou_of_pairs, nms, shift
from msresnet.data.sample import Image
from msresnet.errors import UsageError
from msresnet.results import Detections, Results
from msresnet.results.detections import counted
from msresnet.tasks.tiling.grid import Grid, Place
from msresnet.tasks.tiling.merge import Features, Merge, Tiled

EDGE = 0.02
"""Share of a tile's side: a box that ends so close to an edge inside of the image is taken to be cut by it."""
SAME = 0.5
"""Intersection over union, within what two tiles both saw, from which on their boxes are of one object."""
MOST = 50_000
"""Boxes of all tiles: they are kept until the last one, and put together in memory."""
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class BoxMap(Tiled[Detections]):
    """The objects in a large image.

    Args:
        tiles: how many were looked at.
    """

    tiles: int

    counted: ClassVar[tuple[str, ...]] = ("class", "objects")

    def counts(self) -> list[tuple[str | int | float, ...]]:
        """Of each class how many objects there are."""
        found = np.bincount(self.answer.classes[0], minlength=len(self.answer.class_names))
        return list(zip(self.answer.class_names, found.tolist(), strict=True))

    def features(self) -> Features:
        """Boxes, the surest first."""
        return [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [_ring(*row["box"])]},
                "properties": {"class": row["label"], "score": row["score"]},
            }
            for row in self._rows
        ]

    @property
    def _rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.answer.to_dict()[0]["detections"]
        return rows

    def facts(self) -> dict[str, Any]:
        """Numbers of tiles and objects."""
        return {"tiles": self.tiles, "objects": len(self.answer.boxes[0])}

    def described(self) -> str:
        """The tiles and the objects in them."""
        size = f"{self.grid.tile[1]}x{self.grid.tile[0]}"
        return f"{self.tiles:,} tiles of {size}: {counted(self._rows)}"


def _ring(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    """The corners of a box, closed, the way round that outer rings of `regions` go."""
    return [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]


class BoxMerge(Merge):
    """Collects boxes, in the image's own pixels.

    Args:
        grid: of the tiles.
        class_names: of the detector.
        overlap: intersection over union with a surer box of its class above which a box is left out.
        sure: the lowest score that people are shown.
    """

    def __init__(self, grid: Grid, class_names: tuple[str, ...], overlap: float, sure: float) -> None:
        super().__init__(grid, class_names)
        self.overlap, self.sure, self.tiles, self.count = overlap, sure, 0, 0
        self.seen: list[Seen] = []

    def add(self, places: Sequence[Place], results: Results) -> None:
        """Move the boxes of some tiles to where they are in the image. Raises UsageError for too many of them."""
        assert isinstance(results, Detections)
        shown = results.above(self.sure)
        for place, boxes, scores, classes in zip(places, shown.boxes, shown.scores, shown.classes, strict=True):
            tile = np.array([*place[::-1], place[1] + self.grid.tile[1], place[0] + self.grid.tile[0]], np.float32)
            tiles = np.tile(tile, (len(boxes), 1))
            self.seen.append(Seen(shift(boxes, place), scores, classes, tiles, self._cut(boxes, place)))
        self.tiles, self.count = self.tiles + len(places), self.count + int(shown.counts.sum())
        if self.count > MOST:
            why = "they are put together in memory"
            raise UsageError(
                f"more than {MOST:,} boxes in one image", why=why, hint="a higher --score, or a larger --tile"
            )

    def _cut(self, boxes: Floats, place: Place) -> npt.NDArray[np.bool_]:
        """Which boxes (M, 4) of a tile end at an edge behind which the image goes on (M,)."""
        (high, wide), (height, width) = self.grid.tile, self.grid.size
        (top, left), (down, across) = place, (max(1.0, EDGE * high), max(1.0, EDGE * wide))
        ends = [
            (boxes[:, 0] <= across) & (left > 0),
            (boxes[:, 1] <= down) & (top > 0),
            (boxes[:, 2] >= wide - across) & (left + wide < width),
            (boxes[:, 3] >= high - down) & (top + high < height),
        ]
        return np.asarray(np.any(ends, 0), np.bool_)

    def finish(self, name: str, overview: Image, note: str) -> BoxMap:
        """The boxes of the image, the surest first."""
        boxes, scores, classes = one_each(Seen.joined(self.seen), self.overlap)
        inside = clip(boxes, self.grid.size)
        found = Detections((name,), self.class_names, (inside,), (scores,), (classes,))
        return BoxMap(answer=found, grid=self.grid, overview=overview, note=note, tiles=self.tiles)


class Seen(NamedTuple):
    """What tiles saw.

    Args:
        boxes: (M, 4) in the image's pixels.
        scores, classes: of each (M,).
        tiles: (M, 4) the tile that saw it, xyxy in the image's pixels.
        cut: whether the tile's edge cut it (M,).
    """

    boxes: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]
    tiles: Floats
    cut: npt.NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: Sequence[Seen]) -> Seen:
        """All of several, at least one."""
        columns: list[Any] = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return cls(*columns)


def _shared(box: Floats, others: Floats) -> Floats:
    """What boxes (..., 4) have in common, as boxes; corners in the wrong order where that is nothing."""
    return np.concatenate([np.maximum(box, others)[..., :2], np.minimum(box, others)[..., 2:]], -1)


def one_each(seen: Seen, overlap: float) -> tuple[Floats, Floats, Ints]:
    """Boxes (N, 4), scores and classes (N,) by falling score, when several tiles saw the same objects.

    Of boxes that no edge cut, those that a surer one of their class covers go, as within one tile. A cut box that is
    what its tile shows of one of these goes too. Those that agree with each other, where two tiles look, are parts of
    an object that no tile holds: one box is put around them, as sure as the surest.
    """
    boxes, scores, classes, tiles, cut = seen
    whole = np.flatnonzero(~cut)
    stays = np.zeros(len(cut), np.bool_)
    stays[whole[nms(boxes[whole], scores[whole], classes[whole], overlap)]] = True
    around = _Around(seen)
    parts = []
    for index in np.flatnonzero(cut).tolist():
        near = around(index)
        near = near[stays[near]]
        if not (iou_of_pairs(boxes[index], _shared(tiles[index], boxes[near])) >= SAME).any():
            parts.append(index)
    left = np.zeros(len(cut), np.bool_)
    left[parts] = True
    groups = _groups(seen, around, left)
    chosen = np.flatnonzero(stays)
    joined = [np.concatenate([boxes[group][:, :2].min(0), boxes[group][:, 2:].max(0)])[None] for group in groups]
    every = np.concatenate([boxes[chosen], *joined])
    sure = np.concatenate([scores[chosen], *(scores[group].max(keepdims=True) for group in groups)])
    kinds = np.concatenate([classes[chosen], *(classes[group[:1]] for group in groups)])
    order = np.argsort(-sure, kind="stable")
    return every[order], sure[order], kinds[order]


class _Around:
    """Which boxes of a box's class other tiles saw that lie over its own: only these can show the same object."""

    def __init__(self, seen: Seen) -> None:
        self.classes = seen.classes
        self.places, self.of = np.unique(seen.tiles, axis=0, return_inverse=True)
        order = np.argsort(self.of, kind="stable")
        self.members = np.split(order, np.cumsum(np.bincount(self.of, minlength=len(self.places)))[:-1])
        self.known: dict[int, Ints] = {}

    def __call__(self, index: int) -> Ints:
        tile = int(self.of[index])
        if tile not in self.known:
            over = areas(_shared(self.places[tile], self.places)) > 0
            over[tile] = False
            members = [self.members[i] for i in np.flatnonzero(over)]
            self.known[tile] = np.sort(np.concatenate([np.zeros(0, np.int64), *members]))
        near = self.known[tile]
        alike: Ints = near[self.classes[near] == self.classes[index]]
        return alike


def _groups(seen: Seen, around: _Around, left: npt.NDArray[np.bool_]) -> list[Ints]:
    """The indices of boxes that agree with each other, directly or through others, at most one of each tile.

    What agrees most is joined first: so objects side by side, which one tile told apart, stay apart.
    """
    boxes, tiles = seen.boxes, seen.tiles
    pairs: list[tuple[float, int, int]] = []
    for index in np.flatnonzero(left).tolist():
        near = around(index)
        near = near[left[near] & (near > index)]
        both = _shared(tiles[index], tiles[near])
        ratio = iou_of_pairs(_shared(boxes[index], both), _shared(boxes[near], both))
        pairs += [(-float(r), index, int(j)) for r, j in zip(ratio, near, strict=True) if r >= SAME]
    group = {int(i): [int(i)] for i in np.flatnonzero(left)}
    for _, first, second in sorted(pairs):
        mine, other = group[first], group[second]
        if mine is not other and not set(around.of[mine]) & set(around.of[other]):
            mine += other
            group.update(dict.fromkeys(other, mine))
    each = {id(members): members for members in group.values()}
    return [np.array(members, np.int64) for members in each.values()]

"""The boxes of all tiles -> those of the image: what a tile's edge cut is put together again. M boxes, K classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from msresnet.boxes import clip, iou_of_pairs, nms, shift
from msresnet.data.sample import Image
from msresnet.errors import UsageError
from msresnet.infer.tiling.grid import Grid, Place
from msresnet.infer.tiling.merge import Features, Merge, Tiled
from msresnet.results import DIGITS, Detections, Results
from msresnet.results.detections import BOX_DIGITS
from msresnet.tasks.postprocess.base import Postprocess
from msresnet.tasks.postprocess.detection import DetectionPostprocess

EDGE = 0.02
"""Share of a tile's side: a box that ends so close to an edge inside of the image is taken to be cut by it."""
SAME = 0.5
"""Intersection over union, within what two tiles both saw, from which on their boxes are of one object."""
Floats = npt.NDArray[np.float32]


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
                "geometry": {"type": "Polygon", "coordinates": [_ring(box)]},
                "properties": {"class": self.answer.class_names[index], "score": round(score, DIGITS)},
            }
            for box, index, score in zip(
                self.answer.boxes[0].tolist(), self.answer.classes[0], self.answer.scores[0].tolist(), strict=True
            )
        ]

    def facts(self) -> dict[str, Any]:
        """Numbers of tiles and objects."""
        return {"tiles": self.tiles, "objects": len(self.answer.boxes[0])}

    def described(self) -> str:
        """The tiles and the objects in them."""
        names = Counter(self.answer.class_names[index] for index in self.answer.classes[0])
        told = ", ".join(f"{count:,} {name}" for name, count in names.most_common()) or "nothing"
        return f"{self.tiles:,} tiles of {self.grid.tile[1]}x{self.grid.tile[0]}: {told}"


def _ring(box: Sequence[float]) -> list[tuple[float, float]]:
    """The corners of a box, closed, the way round that outer rings of `regions` go."""
    left, top, right, bottom = (round(value, BOX_DIGITS) for value in box)
    return [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]


class BoxMerge(Merge):
    """Collects boxes, in the image's own pixels.

    Args:
        grid: of the tiles.
        postprocess: whose rules say which boxes cover each other, and from which score on people see them.
        whole: 'mean'; there is nothing to choose.

    Raises UsageError for another `whole`.
    """

    def __init__(self, grid: Grid, postprocess: Postprocess, whole: str) -> None:
        assert isinstance(postprocess, DetectionPostprocess)
        if whole != "mean":
            raise UsageError(f"--whole {whole} has no effect here", why="boxes of tiles are those of the image")
        self.grid, self.postprocess, self.tiles = grid, postprocess, 0
        self.seen: list[Seen] = []

    def add(self, places: Sequence[Place], results: Results) -> None:
        """Move the boxes of some tiles to where they are in the image."""
        assert isinstance(results, Detections)
        shown = self.postprocess.shown(results)
        assert isinstance(shown, Detections)
        for place, boxes, scores, classes in zip(places, shown.boxes, shown.scores, shown.classes, strict=True):
            tile = np.array([*place[::-1], place[1] + self.grid.tile[1], place[0] + self.grid.tile[0]], np.float32)
            tiles = np.tile(tile, (len(boxes), 1))
            self.seen.append(Seen(shift(boxes, place), scores, classes, tiles, self._cut(boxes, place)))
        self.tiles += len(places)

    def _cut(self, boxes: Floats, place: Place) -> npt.NDArray[np.bool_]:
        """Which boxes (M, 4) of a tile end at an edge behind which the image goes on (M,)."""
        (high, wide), (height, width) = self.grid.tile, self.grid.size
        (top, left), (down, across) = place, (max(1.0, EDGE * high), max(1.0, EDGE * wide))
        ends = [
            (boxes[:, 0] < across) & (left > 0),
            (boxes[:, 1] < down) & (top > 0),
            (boxes[:, 2] > wide - across) & (left + wide < width),
            (boxes[:, 3] > high - down) & (top + high < height),
        ]
        return np.asarray(np.any(ends, 0), np.bool_)

    def finish(self, name: str, overview: Image, note: str) -> BoxMap:
        """The boxes of the image, the surest first."""
        boxes, scores, classes = one_each(Seen.joined(self.seen), self.postprocess.rules.overlap)
        inside = clip(boxes, self.grid.size)
        found = Detections((name,), self.postprocess.class_names, (inside,), (scores,), (classes,))
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

    def chosen(self, which: npt.NDArray[np.int64]) -> Seen:
        """Some of them."""
        return Seen(self.boxes[which], self.scores[which], self.classes[which], self.tiles[which], self.cut[which])

    def alike(self, index: int, others: Seen) -> npt.NDArray[np.bool_]:
        """Which of others (N,) from other tiles show the object of one box, as far as both tiles saw the place."""
        both = _shared(self.tiles[index], others.tiles)
        ratio = iou_of_pairs(_shared(self.boxes[index], both), _shared(others.boxes, both))
        elsewhere = (self.tiles[index] != others.tiles).any(1)
        return np.asarray((ratio >= SAME) & elsewhere & (others.classes == self.classes[index]))


def _shared(box: Floats, others: Floats) -> Floats:
    """What boxes (..., 4) have in common, as boxes; corners in the wrong order where that is nothing."""
    return np.concatenate([np.maximum(box, others)[..., :2], np.minimum(box, others)[..., 2:]], -1)


def one_each(seen: Seen, overlap: float) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Boxes (N, 4), scores and classes (N,) by falling score, when several tiles saw the same objects.

    Of boxes that no edge cut, those that a surer one of their class covers go, as within one tile. Cut boxes that agree
    with one of these, where both tiles look, are parts of it and go. Those that agree with each other are parts of an
    object that no tile holds: one box is put around them, as sure as the surest.
    """
    whole = seen.chosen(np.flatnonzero(~seen.cut))
    whole = whole.chosen(nms(whole.boxes, whole.scores, whole.classes, overlap))
    cut = seen.chosen(np.flatnonzero(seen.cut))
    cut = cut.chosen(np.array([i for i in range(len(cut.cut)) if not cut.alike(i, whole).any()], np.int64))
    parts = [cut.chosen(members) for members in _groups(cut)]
    around = [np.concatenate([part.boxes[:, :2].min(0), part.boxes[:, 2:].max(0)])[None] for part in parts]
    boxes = np.concatenate([whole.boxes, *around])
    scores = np.concatenate([whole.scores, *(part.scores.max(keepdims=True) for part in parts)])
    classes = np.concatenate([whole.classes, *(part.classes[:1] for part in parts)])
    order = np.argsort(-scores, kind="stable")
    return boxes[order], scores[order], classes[order]


def _groups(cut: Seen) -> list[npt.NDArray[np.int64]]:
    """The indices of boxes that agree with each other, directly or through others."""
    count = len(cut.cut)
    pairs = [
        np.stack([np.full(len(near), i), near]) for i in range(count) if len(near := np.flatnonzero(cut.alike(i, cut)))
    ]
    rows, columns = np.concatenate(pairs, 1) if pairs else np.zeros((2, 0), np.int64)
    near = coo_array((np.ones(len(rows)), (rows, columns)), (count, count))
    groups, labels = connected_components(near, directed=False) if count else (0, np.zeros(0))
    return [np.flatnonzero(labels == group) for group in range(groups)]

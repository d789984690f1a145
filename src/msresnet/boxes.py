"""Boxes around objects, as arrays: xyxy in absolute pixels, x to the right, y down, from the upper left corner.

A pixel is one unit wide: that of row 2 and column 5 fills the box (5, 2, 6, 3). M boxes, K classes, H and W pixels. The
same arithmetic on tensors, for losses, is in box_tensors.py; this file needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
F = TypeVar("F", np.float32, np.float64)


@dataclass(frozen=True)
class Boxes:
    """The objects of one image.

    Args:
        xyxy: (M, 4) float32, x1 <= x2 and y1 <= y2, in the image's own pixels.
        classes: (M,) int64, class indices.
        crowd: (M,) whether a box is around a crowd, or marked to be ignored: neither learnt nor asked for.

    Raises ValueError for shapes that disagree, corners in the wrong order and what is not a number.
    """

    xyxy: Floats
    classes: Ints
    crowd: Bools

    def __post_init__(self) -> None:
        shapes = self.xyxy.shape, self.classes.shape, self.crowd.shape
        count = len(self.classes)
        if shapes != ((count, 4), (count,), (count,)):
            raise ValueError(f"boxes, classes and crowd of shapes {shapes[0]}, {shapes[1]} and {shapes[2]}")
        kinds = self.xyxy.dtype, self.classes.dtype, self.crowd.dtype
        if kinds != (np.dtype(np.float32), np.dtype(np.int64), np.dtype(np.bool_)):
            raise ValueError(f"boxes, classes and crowd are {kinds[0]}, {kinds[1]} and {kinds[2]}")
        if not is_xyxy(self.xyxy):
            raise ValueError("a box is not x1 <= x2 and y1 <= y2 in finite numbers")
        if count and self.classes.min() < 0:
            raise ValueError(f"a box is of class {self.classes.min()}")

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def of(cls, xyxy: npt.ArrayLike, classes: npt.ArrayLike, crowd: npt.ArrayLike | None = None) -> Boxes:
        """From any numbers; without `crowd`, none is one."""
        indices = np.asarray(classes, np.int64).reshape(-1)
        ignored = np.zeros(len(indices), np.bool_) if crowd is None else np.asarray(crowd, np.bool_).reshape(-1)
        return cls(np.asarray(xyxy, np.float32).reshape(-1, 4), indices, ignored)

    @classmethod
    def none(cls) -> Boxes:
        """No boxes."""
        return cls.of((), ())

    @classmethod
    def joined(cls, parts: Sequence[Boxes]) -> Boxes:
        """All boxes of several."""
        if not parts:
            return cls.none()
        columns = ([getattr(part, name) for part in parts] for name in ("xyxy", "classes", "crowd"))
        return cls(*map(np.concatenate, columns))

    def chosen(self, which: Bools | Ints | slice) -> Boxes:
        """Some of them, by a mask (M,), by indices or a slice."""
        return Boxes(self.xyxy[which], self.classes[which], self.crowd[which])

    def moved(self, xyxy: Floats) -> Boxes:
        """The same objects at other places (M, 4)."""
        return Boxes(xyxy, self.classes, self.crowd)

    def renumbered(self, lookup: Ints) -> Boxes:
        """The same boxes, class k being lookup[k]."""
        return Boxes(self.xyxy, lookup[self.classes], self.crowd)


def is_xyxy(boxes: Floats) -> bool:
    """Whether all of (M, 4) are finite, with x1 <= x2 and y1 <= y2."""
    return bool(np.isfinite(boxes).all() and (boxes[:, 2:] >= boxes[:, :2]).all())


def areas(boxes: npt.NDArray[F]) -> npt.NDArray[F]:
    """Areas (..., 4) -> (...) in square pixels; of corners in the wrong order 0."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    found: npt.NDArray[F] = sides[..., 0] * sides[..., 1]
    return found


def iou(boxes: npt.NDArray[F], others: npt.NDArray[F]) -> npt.NDArray[F]:
    """Intersection over union of each with each: (M, 4), (N, 4) -> (M, N); 0 with a box without an area."""
    return iou_of_pairs(boxes[:, None], others[None])


def iou_of_pairs(boxes: npt.NDArray[F], others: npt.NDArray[F]) -> npt.NDArray[F]:
    """Intersection over union of boxes (..., 4) that broadcast, such as each with its partner: (...)."""
    sides = np.maximum(np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2]), 0)
    shared = sides[..., 0] * sides[..., 1]
    union = areas(boxes) + areas(others) - shared
    found: npt.NDArray[F] = np.divide(shared, union, out=np.zeros_like(shared), where=(shared > 0) & (union > 0))
    return found


def clip(boxes: npt.NDArray[F], size: tuple[int, int]) -> npt.NDArray[F]:
    """Boxes (..., 4), cut at the edges of an image of (H, W)."""
    height, width = size
    return np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))


def scale(boxes: npt.NDArray[F], factors: tuple[float, float]) -> npt.NDArray[F]:
    """Boxes (..., 4) of an image that was made (vertical, horizontal) times as large."""
    down, across = factors
    return boxes * np.array([across, down, across, down], boxes.dtype)


def shift(boxes: npt.NDArray[F], offset: tuple[float, float]) -> npt.NDArray[F]:
    """Boxes (..., 4), moved by (down, across) pixels."""
    down, across = offset
    return boxes + np.array([across, down, across, down], boxes.dtype)


def from_xywh(boxes: npt.NDArray[F]) -> npt.NDArray[F]:
    """(..., 4) x y w h, from the upper left corner -> xyxy."""
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1)


def to_xywh(boxes: npt.NDArray[F]) -> npt.NDArray[F]:
    """(..., 4) xyxy -> x y w h, from the upper left corner."""
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], -1)


def nms(boxes: Floats, scores: Floats, classes: Ints, threshold: float, most: int | None = None) -> Ints:
    """Which boxes (M, 4) stay when each class's boxes remove those of lower scores (M,) that they cover.

    A box is removed by one that stays when their intersection over union is above the threshold. Of equal scores, the
    earlier box wins. Boxes without an area neither remove nor are removed. Memory grows with M, not with its square.

    Returns the indices (S,) by falling score, at most `most`.
    """
    order = np.argsort(-scores, kind="stable")
    stays = np.zeros(len(order), np.bool_)
    for index in np.unique(classes):
        here = np.flatnonzero(classes[order] == index)
        stays[here] = _survivors(boxes[order[here]], threshold)
    return np.asarray(order[stays][:most], np.int64)


def _survivors(boxes: Floats, threshold: float) -> Bools:
    """Which of the boxes of one class (M, 4), by falling score, stay (M,)."""
    left, top, right, bottom = np.ascontiguousarray(boxes.T)
    area, stays = areas(boxes), np.ones(len(boxes), np.bool_)
    for index in range(len(boxes)):
        if not stays[index]:
            continue
        later = slice(index + 1, None)
        width = np.minimum(right[later], right[index]) - np.maximum(left[later], left[index])
        height = np.minimum(bottom[later], bottom[index]) - np.maximum(top[later], top[index])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        near = np.flatnonzero(shared)
        ratio = shared[near] / (area[index] + area[later][near] - shared[near])
        stays[later][near[ratio > np.float32(threshold)]] = False
    return stays

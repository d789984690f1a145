"""Average precision while a network trains, from what little is kept of each image.

The rules are COCO's: of each class, the surest box takes the free object that it overlaps most; a crowd may be found
any number of times, and what finds it counts neither way. The full figures of an evaluation are in detection.py.
D boxes that were answered, G objects, T thresholds of intersection over union, K classes, N images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from msresnet.boxes import Boxes, areas, iou
from msresnet.metrics.detection import THRESHOLDS
from msresnet.metrics.detection_errors import IGNORED, RIGHT, judged
from msresnet.metrics.detection_errors import average_precision as of_class
from msresnet.results import Detections

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def matched(boxes: npt.NDArray[np.float32], classes: Ints, truth: Boxes) -> tuple[Bools, Bools]:
    """Which boxes (D, 4) of one image, by falling score, find an object, and which find only a crowd: (D, T) each."""
    hits = np.zeros((len(boxes), len(THRESHOLDS)), np.bool_)
    ignored = hits.copy()
    for index in np.unique(classes):
        own, there = np.flatnonzero(classes == index), truth.chosen(truth.classes == index)
        if len(there):
            hits[own], ignored[own] = _matched(boxes[own], there)
    return hits, ignored


def _matched(boxes: npt.NDArray[np.float32], truth: Boxes) -> tuple[Bools, Bools]:
    """`matched` for one class."""
    objects, crowd = truth.xyxy[~truth.crowd], truth.xyxy[truth.crowd]
    overlaps, levels = iou(boxes, objects), THRESHOLDS
    free = np.ones((len(THRESHOLDS), len(objects)), np.bool_)
    hits = np.zeros((len(boxes), len(THRESHOLDS)), np.bool_)
    for place, row in enumerate(overlaps if len(objects) else ()):
        open_to = np.where(free & (row >= levels[:, None]), row, -1)
        best = open_to.argmax(1)
        hits[place] = open_to[np.arange(len(levels)), best] >= 0
        free[hits[place], best[hits[place]]] = False
    covered = _covered(boxes, crowd)
    return hits, ~hits & (covered[:, None] >= levels)


def _covered(boxes: npt.NDArray[np.float32], crowd: npt.NDArray[np.float32]) -> Floats:
    """The largest share of each box (D, 4) that lies in one crowd: (D,)."""
    if not len(crowd):
        return np.zeros(len(boxes))
    low, high = np.maximum(boxes[:, None, :2], crowd[None, :, :2]), np.minimum(boxes[:, None, 2:], crowd[None, :, 2:])
    shared = areas(np.concatenate([low, high], -1))
    return np.asarray((shared / np.maximum(areas(boxes), 1e-12)[:, None]).max(1), np.float64)


def average_precision(scores: Floats, classes: Ints, hits: Bools, ignored: Bools, objects: Ints) -> Floats:
    """Average precision of each class at each threshold (K, T); NaN for a class without objects.

    Args:
        scores: of all boxes of a set (D,).
        classes: of them (D,).
        hits, ignored: as `matched` gives them (D, T).
        objects: how many of each class there are, without crowds (K,).
    """
    found = np.full((len(objects), len(THRESHOLDS)), np.nan)
    order = np.argsort(-scores, kind="stable")
    classes, hits, ignored = classes[order], hits[order], ignored[order]
    for index in np.flatnonzero(objects):
        own = classes == index
        for level in range(len(THRESHOLDS)):
            counted = hits[own, level][~ignored[own, level]]
            found[index, level] = of_class(counted, int(objects[index]))
    return found


def best_score(found: Detections, truths: Sequence[Boxes]) -> float:
    """The score from which on answers serve people best: where F1 at an overlap of a half is highest; else 0.5."""
    scores, right = [np.zeros(0, np.float32)], [np.zeros(0, np.bool_)]
    for boxes, classes, sure, truth in zip(found.boxes, found.classes, found.scores, truths, strict=True):
        kinds, _ = judged(boxes, sure, classes, truth)
        scores.append(sure[kinds != IGNORED])
        right.append(kinds[kinds != IGNORED] == RIGHT)
    objects = sum(int((~truth.crowd).sum()) for truth in truths)
    every = np.concatenate(scores)
    order = np.argsort(-every, kind="stable")
    if not len(order) or not objects:
        return 0.5
    rising = np.concatenate(right)[order].cumsum()
    f1 = 2 * rising / (np.arange(1, len(order) + 1) + objects)
    return math.floor(1e4 * float(every[order][f1.argmax()])) / 1e4  # never above the box that it came from

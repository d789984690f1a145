"""What is wrong with found boxes, and what each kind of mistake costs (TIDE, arXiv 2008.08115), at an IoU of 0.5.

A found box that is not right is of one kind:
    duplicate       it lies on a box of its class that a surer one has taken
    classification  it lies on a box of another class
    localisation    it lies near a box of its class: an IoU of 0.1 to 0.5
    both            it lies near a box of another class
    background      it lies near nothing
and a box of the truth is *missed* when no found box is right, of the wrong class or too far off for it. What a kind
costs is the AP at 0.5 that would be gained if there were no such mistakes: classes and places put right, the others
removed. N images, M boxes, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msresnet.boxes import Boxes, areas, iou
from msresnet.metrics.detection import MOST, RECALLS
from msresnet.results import Detections

KINDS = ("duplicate", "classification", "localisation", "both", "background")
MISSED = "missed"
RIGHT, IGNORED = -1, -2
"""Beside the indices of KINDS: a found box that is right, and one that does not count."""
ON, NEAR = 0.5, 0.1
"""IoU from which a box lies on another, and near it."""
NOBODY = -1
BLOCK = 256
"""Found boxes that are compared with the truth at once, so that memory stays bounded."""
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Errors:
    """The mistakes in some answers.

    Args:
        kinds: for each image, of each found box (M,) the index in KINDS, or RIGHT or IGNORED.
        missed: for each image, whether each box of the truth is missed.
        counts: how many there are of each kind, and of missed boxes.
        gains: AP at 0.5 that each kind costs; NaN where nothing is to be found.
        ap50: AP at 0.5 as it is.
    """

    kinds: list[Ints]
    missed: list[Bools]
    counts: dict[str, int]
    gains: dict[str, float]
    ap50: float


@dataclass(frozen=True)
class _Table:
    """All found boxes that count: class, score, kind, and which box of all images is meant."""

    classes: Ints
    scores: Floats
    kinds: Ints
    meant: Ints


def errors(found: Detections, truths: Sequence[Boxes]) -> Errors:
    """The mistakes in some answers, by the boxes of each image's truth."""
    parts, kinds, first = list[_Table](), list[Ints](), 0
    for boxes, scores, classes, truth in zip(found.boxes, found.scores, found.classes, truths, strict=True):
        of_image, meant = judged(boxes, scores, classes, truth)
        kinds.append(of_image)
        counted = of_image != IGNORED
        place = np.where(meant == NOBODY, NOBODY, meant + first)
        parts.append(_Table(*(column[counted] for column in (classes, scores.astype(np.float64), of_image, place))))
        first += len(truth)
    columns = ("classes", "scores", "kinds", "meant")
    table = _Table(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns)) if parts else _EMPTY
    return _summed(table, kinds, truths, len(found.class_names))


_EMPTY = _Table(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))


def _summed(table: _Table, kinds: list[Ints], truths: Sequence[Boxes], classes: int) -> Errors:
    whole = Boxes.joined(truths)
    explained = np.isin(table.kinds, [RIGHT, KINDS.index("classification"), KINDS.index("localisation")])
    missed = ~whole.crowd
    missed[table.meant[explained]] = False
    totals = np.bincount(whole.classes[~whole.crowd], minlength=classes)
    base = _ap(table.classes, table.scores, table.kinds == RIGHT, totals)
    gains = {name: _mended(table, index, whole, totals) - base for index, name in enumerate(KINDS)}
    fewer = totals - np.bincount(whole.classes[missed], minlength=classes)
    gains[MISSED] = _ap(table.classes, table.scores, table.kinds == RIGHT, fewer, totals > 0) - base
    counts = {name: int((table.kinds == index).sum()) for index, name in enumerate(KINDS)}
    ends = np.cumsum([len(truth) for truth in truths])[:-1]
    return Errors(
        kinds, list(np.split(missed, ends)) if truths else [], counts | {MISSED: int(missed.sum())}, gains, base
    )


def _mended(table: _Table, kind: int, whole: Boxes, totals: Ints) -> float:
    """AP at 0.5 without the mistakes of one kind."""
    wrong, right, classes = table.kinds == kind, table.kinds == RIGHT, table.classes.copy()
    kept = ~wrong
    if KINDS[kind] in ("classification", "localisation"):
        taken = np.zeros(len(whole), np.bool_)
        taken[table.meant[right]] = True
        right = right.copy()
        for row in np.flatnonzero(wrong)[np.argsort(-table.scores[wrong], kind="stable")]:
            if not taken[table.meant[row]]:  # what is taken would become a duplicate, and goes
                taken[table.meant[row]] = right[row] = kept[row] = True
                classes[row] = whole.classes[table.meant[row]]
    return _ap(classes[kept], table.scores[kept], right[kept], totals)


def judged(
    boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], classes: Ints, truth: Boxes
) -> tuple[Ints, Ints]:
    """Of each found box of one image (M,) its kind, and which box of the truth is meant, or NOBODY.

    Right is what COCO's matching takes: the surest box chooses first, the box with the greatest IoU that is left; what
    lies on a crowd of its class instead is ignored, and so are all but the MOST surest boxes of a class.
    """
    kinds, meant = np.full(len(boxes), IGNORED), np.full(len(boxes), NOBODY)
    taken, rows = np.zeros(len(truth), np.bool_), _surest(scores, classes)
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        for row, near in zip(part, _overlaps(boxes[part], truth), strict=True):
            same = truth.classes == classes[row]
            best = _best(near, np.flatnonzero(same & ~truth.crowd & ~taken), ON)
            if best != NOBODY:
                taken[best] = True
                kinds[row], meant[row] = RIGHT, best
            elif _best(near, np.flatnonzero(same & truth.crowd), ON) == NOBODY:
                kinds[row], meant[row] = _mistake(near, same, truth.crowd)
    return kinds, meant


def _surest(scores: npt.NDArray[np.float32], classes: Ints) -> Ints:
    """The boxes that count (S,), by falling score: of each class the MOST surest."""
    order = np.argsort(-scores, kind="stable")
    counts = np.zeros(int(classes.max(initial=0)) + 1, np.int64)
    kept = []
    for row in order.tolist():
        counts[classes[row]] += 1
        if counts[classes[row]] <= MOST:
            kept.append(row)
    return np.array(kept, np.int64)


def _mistake(near: Floats, same: Bools, crowd: Bools) -> tuple[int, int]:
    """The kind of a box that is not right, and which box of the truth is meant, by its IoU with each of them (M,)."""
    own, others = np.flatnonzero(same & ~crowd), np.flatnonzero(~same & ~crowd)
    looks = (
        ("duplicate", own, ON),
        ("classification", others, ON),
        ("localisation", own, NEAR),
        ("both", others, NEAR),
    )
    for name, places, least in looks:
        if (best := _best(near, places, least)) != NOBODY:
            return KINDS.index(name), best
    return KINDS.index("background"), NOBODY


def _best(near: Floats, places: Ints, least: float) -> int:
    """The place with the greatest IoU, the last of equal ones as COCO has it; NOBODY where none is great enough."""
    if not len(places) or near[places].max() < least:
        return NOBODY
    return int(places[len(places) - 1 - int(near[places][::-1].argmax())])


def _overlaps(boxes: npt.NDArray[np.float32], truth: Boxes) -> Floats:
    """IoU of found boxes with those of the truth (M, T); with a crowd the share of the found box in it."""
    mine, theirs = boxes.astype(np.float64), truth.xyxy.astype(np.float64)
    near = iou(mine, theirs)
    for place in np.flatnonzero(truth.crowd):
        left, top, right, bottom = theirs[place]
        low, high = np.maximum(mine[:, :2], [left, top]), np.minimum(mine[:, 2:], [right, bottom])
        inside = areas(np.concatenate([low, high], 1))
        whole = areas(mine)
        near[:, place] = np.divide(inside, whole, out=np.zeros_like(whole), where=whole > 0)
    return near


def _ap(classes: Ints, scores: Floats, right: Bools, totals: Ints, there: Bools | None = None) -> float:
    """AP at 0.5 over classes from found boxes that are right or wrong, and the number of boxes to find (K,).

    Classes that are `there` (all with a box where it is None) count; one whose boxes are all found has an AP of 1.
    """
    order = np.argsort(-scores, kind="stable")
    found = []
    for index in np.flatnonzero(totals > 0 if there is None else there):
        hits = right[order[classes[order] == index]]
        found.append(average_precision(hits, int(totals[index])) if totals[index] else 1.0)
    return float(np.mean(found)) if found else float("nan")


def average_precision(right: Bools, total: int) -> float:
    """Mean precision over RECALLS of boxes by falling score (M,), right or wrong, where `total` are to be found."""
    hits = right.cumsum()
    precision = hits / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / total, RECALLS, side="left")
    return float(np.append(best, 0.0)[np.minimum(places, len(best))].mean())

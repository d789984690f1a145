"""How well masks agree: intersection over union, pixel accuracy, boundaries. N images, K classes, H and W pixels.

A pixel whose truth is not a class (K or more) does not count. A class that neither truth nor answer holds has no figure
(NaN), and is left out of means.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from msresnet.metrics.classification import Counts

Mask = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
TOLERANCE = 0.0075
"""How far a boundary may be off, as a share of the image's diagonal (Csurka et al., 2013), and one pixel at least."""
RESAMPLES, SEED, TAILS = 1000, 0, (0.025, 0.975)


def confusion(answer: Mask, truth: Mask, classes: int) -> Ints:
    """Pixels by true class and by answered class (K, K)."""
    known = truth < classes
    places = truth[known].astype(np.int64) * classes + answer[known]
    return np.bincount(places, minlength=classes * classes).reshape(classes, classes)


def counted(confusions: Ints) -> Counts:
    """Pixels right, asked for and answered of each class (..., K), from confusions (..., K, K)."""
    right = np.diagonal(confusions, axis1=-2, axis2=-1)
    return Counts(right, confusions.sum(-1), confusions.sum(-2))


def iou(counts: Counts) -> Floats:
    """Intersection over union of each class (..., K)."""
    return _ratio(counts.right, counts.asked + counts.answered - counts.right)


def mean_iou(counts: Counts) -> Floats:
    """The mean over the classes that are in truth or answer (...); NaN where there are none."""
    figures = iou(counts)
    there = ~np.isnan(figures)
    return _ratio(np.where(there, figures, 0.0).sum(-1), there.sum(-1))


def pixel_accuracy(counts: Counts) -> Floats:
    """The share of known pixels that are right (...)."""
    return _ratio(counts.right.sum(-1), counts.asked.sum(-1))


def _ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Floats:
    bottom = np.asarray(whole, np.float64)
    shape = np.broadcast_shapes(np.shape(part), bottom.shape)
    found: Floats = np.divide(np.asarray(part, np.float64), bottom, out=np.full(shape, np.nan), where=bottom > 0)
    return found


def interval(figure: Callable[[Counts], Floats], counts: Counts) -> tuple[float, float] | None:
    """The 95 % interval of a figure of all images, from the counts of each (N, K): images are drawn again.

    Neighbouring pixels agree, so a share of pixels has no formula for it. None for fewer than two images.
    """
    number = len(counts.right)
    if number < 2:
        return None
    times = np.random.default_rng(SEED).multinomial(number, np.full(number, 1 / number), RESAMPLES)
    drawn = figure(Counts(*(times @ part for part in counts)))
    low, high = np.quantile(drawn[~np.isnan(drawn)], TAILS) if not np.isnan(drawn).all() else (0.0, 1.0)
    return float(low), float(high)


def tolerance(shape: tuple[int, ...]) -> float:
    """How far, in pixels, a boundary may be off in an image (H, W)."""
    return max(1.0, TOLERANCE * math.hypot(*shape))


def boundary_f(answer: Mask, truth: Mask, classes: int) -> Floats:
    """Boundary F of each class in one image (K,), NaN where neither has a boundary (Csurka et al., BMVC 2013).

    Precision is the share of the answer's boundary pixels within `tolerance` of the truth's boundary, recall the other
    way round, both by Euclidean distance. A boundary pixel is one of the class with a direct neighbour that is not;
    the image's edge is not a boundary.
    """
    known, near = truth < classes, tolerance(truth.shape)
    found = np.full(classes, np.nan)
    for index in range(classes):
        mine, theirs = (_boundary(mask == index) & known for mask in (answer, truth))
        if mine.any() and theirs.any():
            precision, recall = _within(mine, theirs, near), _within(theirs, mine, near)
            found[index] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        elif mine.any() or theirs.any():
            found[index] = 0.0
    return found


def _boundary(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels of an area with a direct neighbour outside it."""
    eroded: npt.NDArray[np.bool_] = ndimage.binary_erosion(inside, border_value=1)
    return inside & ~eroded


def _within(these: npt.NDArray[np.bool_], those: npt.NDArray[np.bool_], near: float) -> float:
    """The share of these pixels that are near to one of those."""
    distance = ndimage.distance_transform_edt(~those)
    return float((distance[these] <= near).mean())

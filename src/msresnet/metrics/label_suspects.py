"""Which labels look wrong, by the answers of a model that never saw them: confident learning (arXiv 1911.00068).

Classes differ in how sure a model is of them, so each has its own bar: the mean probability that images with its label
get for it (eq. 2 of the paper). An image that passes the bar of another class, and of no class better, is counted
there. The counts, scaled to what is there of each label, estimate how many labels are wrong (eq. 3); the images that
fall furthest short of the other class are named. N images, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ROUNDING = 1e-12
"""By so much a probability may miss its class's bar: a mean of equal numbers is not always that number."""


class Suspects(NamedTuple):
    """Images whose label a model contradicts with confidence.

    Args:
        indices: of the images, the most suspect first (M,).
        suggested: the class that each looks like (M,).
        margins: probability of the label minus that of the suggested class (M,), rising.
        share: estimated share of wrong labels in the set.
    """

    indices: Ints
    suggested: Ints
    margins: Floats
    share: float


def label_suspects(probabilities: Floats, labels: Ints) -> Suspects:
    """Suspects among N labelled images: probabilities (N, K) of a model that was not trained on them, labels (N,)."""
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    passed = np.where(probabilities >= bars(probabilities, labels) - ROUNDING, probabilities, -1.0)
    looks = passed.argmax(1)
    counted = passed.max(1) >= 0
    off = np.flatnonzero(counted & (looks != labels))
    margins = own[off] - probabilities[off, looks[off]]
    order = np.argsort(margins, kind="stable")
    share = _share(labels[counted], looks[counted], labels, probabilities.shape[1])
    return Suspects(off[order], looks[off][order], margins[order], share)


def bars(probabilities: Floats, labels: Ints) -> Floats:
    """The mean probability that each class gets from its own images (K,); infinite for a class without any."""
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    own = probabilities[np.arange(len(labels)), labels]
    sums = np.bincount(labels, weights=own, minlength=probabilities.shape[1])
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)


def _share(given: Ints, looks: Ints, labels: Ints, classes: int) -> float:
    """The part of the counts that lies off the diagonal, each label weighed by how often it is there."""
    if not len(labels):
        return 0.0
    total, right = np.bincount(given, minlength=classes), np.bincount(given[given == looks], minlength=classes)
    wrong = np.where(total > 0, 1 - right / np.maximum(total, 1), 0.0)
    return float(wrong @ np.bincount(labels, minlength=classes)) / len(labels)

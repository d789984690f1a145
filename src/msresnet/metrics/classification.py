"""Accuracy and its interval, per-class figures, confusion. N images, K classes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Z95 = 1.959963984540054
LEAST_PROBABILITY = float(np.finfo(np.float64).eps)
"""Probabilities are kept above this in the log loss, as in scikit-learn's: a certain mistake is not infinite."""


class Counts(NamedTuple):
    """How often each class was right, asked for, and answered: three arrays (..., K) of counts."""

    right: npt.NDArray[Any]
    asked: npt.NDArray[Any]
    answered: npt.NDArray[Any]


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927). (0, 1) when nothing was counted."""
    if total == 0:
        return 0.0, 1.0
    z, share = Z95, correct / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def in_top_k(probabilities: Floats, targets: Ints, k: int) -> npt.NDArray[np.bool_]:
    """Whether the class of each image is among the k most probable (N,); ties go to the lower class index."""
    own = probabilities[np.arange(len(targets)), targets][:, None]
    before = ~(probabilities <= own)  # what is not a number has no place among the first
    before |= (probabilities == own) & (np.arange(probabilities.shape[1]) < targets[:, None])
    return np.asarray(before.sum(1) < k)


def top_k_accuracy(probabilities: Floats, targets: Ints, k: int) -> float:
    """Share of images whose class is among the k most probable; ties go to the lower class index."""
    return float(in_top_k(probabilities, targets, k).mean()) if len(targets) else 0.0


def log_losses(probabilities: Floats, targets: Ints) -> Floats:
    """Negative logarithm of the true class's probability of each image (N,), in nats."""
    chosen = probabilities[np.arange(len(targets)), targets]
    return -np.log(np.clip(chosen, LEAST_PROBABILITY, 1))


def log_loss(probabilities: Floats, targets: Ints) -> float:
    """Mean negative logarithm of the true class's probability, in nats."""
    return float(log_losses(probabilities, targets).mean()) if len(targets) else 0.0


def confusion(predicted: Ints, targets: Ints, classes: int) -> Ints:
    """(K, K) counts: rows are the true classes, columns the answers."""
    return np.bincount(targets * classes + predicted, minlength=classes**2).reshape(classes, classes)


def counts(predicted: Ints, targets: Ints, classes: int) -> Counts:
    """The counts of each class (K,)."""
    right = np.bincount(targets[predicted == targets], minlength=classes)
    return Counts(right, np.bincount(targets, minlength=classes), np.bincount(predicted, minlength=classes))


def per_class(predicted: Ints, targets: Ints, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and number of images of each class; 0 where a figure is undefined."""
    found = counts(predicted, targets, len(names))
    figures = _ratio(found.right, found.answered), _ratio(found.right, found.asked), f1(found), found.asked
    return [
        {"class": name, "precision": float(p), "recall": float(r), "f1": float(f), "n": int(n)}
        for name, p, r, f, n in zip(names, *figures, strict=True)
    ]


def f1(found: Counts) -> Floats:
    """Harmonic mean of precision and recall of each class (..., K); 0 where both are undefined."""
    return _ratio(2 * found.right, found.asked + found.answered)


def balanced_accuracy(found: Counts) -> Floats:
    """Mean recall of the classes that have images (..., K) -> (...); 0 where none has."""
    return _mean(_ratio(found.right, found.asked), found.asked > 0)


def macro_f1(found: Counts) -> Floats:
    """Mean F1 of the classes that have images or were answered (..., K) -> (...); 0 where there is none."""
    return _mean(f1(found), found.asked + found.answered > 0)


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    return part / np.maximum(whole, 1)  # type: ignore[no-any-return]


def _mean(values: Floats, counted: npt.NDArray[np.bool_]) -> Floats:
    return np.where(counted, values, 0.0).sum(-1) / np.maximum(counted.sum(-1), 1)  # type: ignore[no-any-return]

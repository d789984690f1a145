"""Accuracy and its interval, per-class figures, confusion. N images, K classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Z95 = 1.959963984540054
LEAST_PROBABILITY = 1e-15
"""Probabilities are kept above this in the log loss, so that one certain mistake does not make it infinite."""


def wilson_interval(correct: int, total: int, z: float = Z95) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927). (0, 1) when nothing was counted."""
    if total == 0:
        return 0.0, 1.0
    share = correct / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def top_k_accuracy(probabilities: Floats, targets: Ints, k: int) -> float:
    """Share of images whose class is among the k most probable; ties go to the lower class index."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((order == targets[:, None]).any(1).mean()) if len(targets) else 0.0


def log_loss(probabilities: Floats, targets: Ints) -> float:
    """Mean negative logarithm of the true class's probability, in nats."""
    chosen = probabilities[np.arange(len(targets)), targets]
    return float(-np.log(np.clip(chosen, LEAST_PROBABILITY, 1)).mean()) if len(targets) else 0.0


def confusion(predicted: Ints, targets: Ints, classes: int) -> Ints:
    """(K, K) counts: rows are the true classes, columns the answers."""
    return confusion_matrix(targets, predicted, labels=np.arange(classes)).astype(np.int64)  # type: ignore[no-any-return]


def per_class(predicted: Ints, targets: Ints, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and number of images of each class; 0 where a figure is undefined."""
    figures = precision_recall_fscore_support(targets, predicted, labels=np.arange(len(names)), zero_division=0)
    return [
        {"class": name, "precision": float(p), "recall": float(r), "f1": float(f), "n": int(n)}
        for name, p, r, f, n in zip(names, *figures, strict=True)
    ]

"""How right the answers are that a model is sure of: accuracy against the share of images that it answers.

The risk-coverage curve of selective classification (El-Yaniv and Wiener, 2010; Geifman and El-Yaniv, arXiv 1705.08500).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.metrics.classification import wilson_interval

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
MOST_ROWS = 50


def coverage_curve(confidences: Floats, correct: Flags) -> list[dict[str, float]]:
    """Rows of `confidence`, `coverage` and `accuracy`, from the surest image to all of them.

    A row answers every image that is at least this sure, so that images of the same confidence are answered together.
    Of many confidences, up to MOST_ROWS are kept, evenly spaced by coverage, the last among them.
    """
    levels, answered, right = _levels(confidences, correct)
    total = len(confidences)
    steps = np.unique(np.ceil(answered / max(1, total) * MOST_ROWS), return_index=True)[1]
    kept = np.append(steps[1:] - 1, len(levels) - 1) if len(levels) else steps  # the last of each step
    return [
        {"confidence": float(level), "coverage": float(n / total), "accuracy": float(r / n)}
        for level, n, r in zip(levels[kept], answered[kept], right[kept], strict=True)
    ]


def area_under_risk(confidences: Floats, correct: Flags) -> float:
    """Mean share of errors among the k surest images, over k from 1 to N; smaller is better. 0 without images.

    Images of the same confidence come in any order: of those that are answered, the expected number is wrong.
    """
    _, answered, right = _levels(confidences, correct)
    return area_of_levels(np.diff(answered, prepend=0), np.diff(right, prepend=0))


def area_of_levels(answered: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> float:
    """The same, from the images of each confidence and how many of them are right, the surest first."""
    wrong = (answered - right) / np.maximum(1, answered)  # of each image of a level
    errors = np.cumsum(np.repeat(wrong, answered))
    return float((errors / np.arange(1, len(errors) + 1)).mean()) if len(errors) else 0.0


def abstain(confidences: Floats, correct: Flags, below: float) -> dict[str, Any]:
    """What is left when answers less sure than `below` are withheld: their share, and their accuracy with interval."""
    kept = confidences >= below
    n, right = int(kept.sum()), int(correct[kept].sum())
    return {
        "below": below,
        "answered": n / len(kept) if len(kept) else 0.0,
        "answered_ci95": list(wilson_interval(n, len(kept))),
        "n": n,
        "accuracy": right / n if n else None,
        "accuracy_ci95": list(wilson_interval(right, n)),
    }


def _levels(confidences: Floats, correct: Flags) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each confidence that occurs, from sure to doubtful; how many images are at least as sure, and how many right."""
    levels, which = np.unique(confidences, return_inverse=True)
    answered = np.cumsum(np.bincount(which, minlength=len(levels))[::-1])
    right = np.cumsum(np.bincount(which[correct], minlength=len(levels))[::-1])
    return levels[::-1], answered, right

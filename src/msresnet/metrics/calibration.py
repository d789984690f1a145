"""Whether probabilities mean what they say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BINS = 15


def reliability(
    confidences: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_], bins: int = BINS
) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, count) of each non-empty bin of equal width, from doubtful to sure."""
    which = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    rows = []
    for b in range(bins):
        inside = which == b
        if inside.any():
            rows.append((float(confidences[inside].mean()), float(correct[inside].mean()), int(inside.sum())))
    return rows


def expected_calibration_error(confidences: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]) -> float:
    """Mean distance of confidence and accuracy over the bins, weighted by their size (Guo et al., arXiv 1706.04599)."""
    rows = reliability(confidences, correct)
    total = sum(n for _, _, n in rows)
    return sum(n * abs(c - a) for c, a, n in rows) / total if total else 0.0

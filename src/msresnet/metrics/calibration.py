"""Whether probabilities mean what they say, and the temperature that makes them do so. N images, K classes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
BINS = 15
COLDEST, HOTTEST = 0.01, 100.0
"""Temperatures beyond these make all answers certain, or none; where the best one lies there, none fits."""
LEAST_LOGARITHM = -745.0
"""Of the smallest float64 above zero: probabilities below it have been rounded away."""


def bins_of(confidences: Floats, bins: int = BINS) -> npt.NDArray[np.int64]:
    """Which of the bins of equal width each confidence lies in (N,), from 0; a bin holds its upper bound."""
    return np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)


def reliability(confidences: Floats, correct: Flags, bins: int = BINS) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, count) of each non-empty bin of equal width, from doubtful to sure."""
    which = bins_of(confidences, bins)
    total = np.bincount(which, minlength=bins)
    sums = np.bincount(which, confidences, minlength=bins), np.bincount(which, correct, minlength=bins)
    return [(float(c / n), float(a / n), int(n)) for c, a, n in zip(*sums, total, strict=True) if n]


def expected_calibration_error(confidences: Floats, correct: Flags) -> float:
    """Mean distance of confidence and accuracy over the bins, weighted by their size (Guo et al., arXiv 1706.04599)."""
    if not len(confidences):
        return 0.0
    gaps = np.bincount(bins_of(confidences), confidences - correct, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidences))


def error_by_chance(confidences: Floats, draws: int, seed: int) -> float:
    """The calibration error that perfect probabilities show on these images in all but 2.5 % of draws.

    Truths are drawn from the confidences themselves (consistency resampling: Broecker and Smith, 2007); of each bin
    their sum is taken as normal.
    """
    spread = np.sqrt(np.bincount(bins_of(confidences), confidences * (1 - confidences), minlength=BINS))
    gaps = np.random.default_rng(seed).standard_normal((draws, BINS)) * spread
    return float(np.quantile(np.abs(gaps).sum(1), 0.975) / max(1, len(confidences)))


def fit_temperature(logarithms: Floats, targets: npt.NDArray[np.int64]) -> float | None:
    """The temperature that logits are divided by for the smallest log loss (Guo et al., arXiv 1706.04599, section 4.2).

    The loss is convex in the inverse of the temperature, so its slope has one zero, which is bracketed in float64.

    Args:
        logarithms: of the probabilities (N, K), or logits: they differ by a constant of each image.
        targets: true class indices (N,).

    Returns None where no temperature between COLDEST and HOTTEST is best: every image is answered rightly, so that the
    colder the better, or the answers are no better than chance, so that the hotter the better.
    """
    values = np.maximum(logarithms, LEAST_LOGARITHM)
    values = values - values.max(1, keepdims=True)
    true = values[np.arange(len(targets)), targets].mean() if len(targets) else 0.0

    def slope(inverse: float) -> float:
        """Derivative of the loss by the inverse temperature: the expected logit less the true one."""
        weights = np.exp(values * inverse)
        return float(((weights * values).sum(1) / weights.sum(1)).mean() - true)

    if not len(targets) or slope(1 / HOTTEST) >= 0 or slope(1 / COLDEST) <= 0:
        return None
    bounds = math.log(COLDEST), math.log(HOTTEST)
    return math.exp(brentq(lambda logarithm: slope(math.exp(-logarithm)), *bounds, xtol=1e-10))

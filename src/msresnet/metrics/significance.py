"""Whether one method beats another by more than chance. S seeds, N test images, the same for both: a paired design.

A figure depends on two draws: which seed a training got (weights, order, augmentation) and which images the test set
happens to hold. A claim about two methods has to hold over both. Right or wrong answers form a table (S, N), crossed:
each seed answers each image. The mean of such a table has the variance

    (between seeds + between images - both together) / (S N)

in mean squares of the two-way layout (Cornfield and Tukey, 1956). Its ratio to a difference is the quasi-F statistic,
which Clark (1973) asks for wherever two kinds of draws are generalised over; degrees of freedom by Satterthwaite
(1946), no fewer than S - 1. The variance is kept at least as large as that of either draw alone, so that a lucky small
estimate makes nothing certain.

Why not less: a t-test over seeds alone, on one fixed test set, calls equal methods different in up to a quarter of all
comparisons when the images decide more than the seeds; McNemar's test on the images alone does the same when the seeds
decide (tests/metrics/test_significance.py simulates both, and this one, which stays at 5 %). With one seed, the draw of
seeds cannot be measured at all: then McNemar's exact test (1947) compares two trained networks, not two methods, and
says so in `covers`; its interval is Tango's score interval of a difference of paired shares (1998). Nor is a difference
ever surer over seeds and images than over the images of these trainings alone, of which a handful proves nothing.
Several comparisons are corrected by Holm (1979). Bouthillier et al. (arXiv 2103.03098) measure how
large these draws are in practice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
LEVEL = 0.05
"""Share of equal methods that may be called different."""
Draws = Literal["seeds and images", "images"]


@dataclass(frozen=True)
class Spread:
    """A mean with its standard error and degrees of freedom (infinite for one seed)."""

    mean: float
    error: float
    freedom: float


@dataclass(frozen=True)
class Difference:
    """How much more one method gets right than another.

    Args:
        mean: difference of the shares of right answers, positive where the first is better.
        low, high: its 95 % interval.
        p: how often equal methods differ at least as much; no less than `p_images`.
        covers: the draws that p and the interval speak of.
        p_seeds: of the paired t-test over seeds on these images; None for one seed.
        p_images: of the exact sign-flip test over images for these trainings; McNemar's for one seed.
        seeds, images: how many.
    """

    mean: float
    low: float
    high: float
    p: float
    covers: Draws
    p_seeds: float | None
    p_images: float
    seeds: int
    images: int


def spread(table: Floats) -> Spread:
    """Mean of a table (S, N) and its standard error over both draws; over images alone for one seed."""
    seeds, images = table.shape
    mean = float(table.mean())
    if images < 2:
        return Spread(mean, math.inf, 1.0)
    between_images = seeds * float(table.mean(0).var(ddof=1))
    if seeds == 1:
        return Spread(mean, math.sqrt(between_images / images), math.inf)
    between_seeds = images * float(table.mean(1).var(ddof=1))
    rest = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + mean
    both = float((rest**2).sum()) / ((seeds - 1) * (images - 1))
    square = max(between_seeds + between_images - both, between_seeds, between_images)
    parts = between_seeds**2 / (seeds - 1) + between_images**2 / (images - 1) + both**2 / ((seeds - 1) * (images - 1))
    freedom = max(square**2 / parts, seeds - 1.0) if parts else math.inf  # nothing was estimated
    return Spread(mean, math.sqrt(square / (seeds * images)), freedom)


def accuracy_interval(correct: Flags) -> tuple[float, float, float]:
    """(mean, low, high): share of right answers (S, N) and its 95 % interval over seeds and images.

    Wilson's interval with as many images as would give this standard error if all were independent (the effective
    sample size of cluster samples; Dean and Pagano, 2015), so that it stays within 0 and 1 and never has no width.
    """
    if not correct.size:
        return 0.0, 0.0, 1.0
    found = spread(correct.astype(float))
    share, images = found.mean, float(correct.shape[1])
    effective = share * (1 - share) / found.error**2 if 0 < found.error < math.inf else images
    z = _quantile(found.freedom)
    scale = 1 + z * z / effective
    centre = (share + z * z / (2 * effective)) / scale
    half = z * math.sqrt(share * (1 - share) / effective + z * z / (4 * effective * effective)) / scale
    return share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def compare_answers(left: Flags, right: Flags) -> Difference:
    """Right answers of two methods (S, N), row by row of the same seed, column by column of the same image.

    Raises ValueError when the shapes differ or hold nothing.
    """
    if left.shape != right.shape or not left.size:
        raise ValueError(f"answers of shape {left.shape} and {right.shape}")
    table = left.astype(float) - right.astype(float)
    found, (seeds, images) = spread(table), table.shape
    over_images = sign_flip_images(left, right)
    p = max(t_test(found), over_images) if seeds > 1 else over_images
    low, high = _interval(found, images) if seeds > 1 else tango_interval(left[0], right[0])
    if p >= LEVEL:  # the exact test may be less sure than the interval, which then holds zero too
        low, high = min(low, 0.0), max(high, 0.0)
    return Difference(
        mean=found.mean,
        low=max(-1.0, low),
        high=min(1.0, high),
        p=p,
        covers="seeds and images" if seeds > 1 else "images",
        p_seeds=paired_t(table.mean(1)) if seeds > 1 else None,
        p_images=over_images,
        seeds=seeds,
        images=images,
    )


def _interval(found: Spread, images: int) -> tuple[float, float]:
    """The 95 % interval of a mean difference over seeds and images; of a table without spread as wide as Tango's is."""
    if not math.isfinite(found.error):
        return -1.0, 1.0
    half = _quantile(found.freedom) * found.error
    if not found.error:
        z = _quantile(math.inf)
        half = z * z / (images + z * z)
    return found.mean - half, found.mean + half


def tango_interval(left: Flags, right: Flags) -> tuple[float, float]:
    """The 95 % score interval of the difference of two shares of right answers on the same images (N,): Tango (1998).

    Its ends are the differences that the score test just does not reject. It has a width even where all answers agree.
    """
    images, first, second = len(left), int((left & ~right).sum()), int((right & ~left).sum())
    mean, z = (first - second) / images, _quantile(math.inf)

    def excess(difference: float) -> float:
        """The square of the score less that of its bound, both times the variance, which may be zero."""
        one = (2 * images - first + second) * difference - first - second
        root = math.sqrt(max(0.0, one * one + 8 * images * second * difference * (1 - difference)))
        variance = (root - one) / 2 + images * difference * (1 - difference)
        return (first - second - images * difference) ** 2 - z * z * variance

    beside = 1e-9  # of a mean without variance the excess is zero too
    low = -1.0 if excess(-1.0) <= 0 else float(optimize.brentq(excess, -1.0, mean - beside))
    high = 1.0 if excess(1.0) <= 0 else float(optimize.brentq(excess, mean + beside, 1.0))
    return low, high


def t_test(found: Spread) -> float:
    """Two-sided p of a mean that should be zero; 1 where nothing differs."""
    if not found.mean:
        return 1.0
    if not found.error:
        return 0.0
    return float(2 * special.stdtr(min(found.freedom, 1e12), -abs(found.mean) / found.error))


def paired_t(differences: Floats) -> float:
    """Two-sided p of Student's paired t-test on the differences of each seed (S,), S at least 2."""
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return t_test(Spread(float(differences.mean()), error, len(differences) - 1))


def sign_flip_images(left: Flags, right: Flags) -> float:
    """Exact two-sided p when each image may as well have favoured the other one; right answers (S, N).

    An image favours by the difference of how many seeds answer it rightly, from -S to S. Images of the same size are
    counted by a binomial distribution, sizes are added by convolution, so all 2^N changes of sign are weighed. With
    one seed this is McNemar's exact test (1947).
    """
    favours = left.sum(0, dtype=np.int64) - right.sum(0, dtype=np.int64)
    sums = np.ones(1)  # probabilities of the sums -reach, ..., reach
    for size in range(1, left.shape[0] + 1):
        count = int((np.abs(favours) == size).sum())
        steps = np.zeros(2 * size * count + 1)
        steps[:: 2 * size] = _binomial(count)  # 2k - count of them point up
        sums = np.convolve(sums, steps)
    reach = len(sums) // 2
    far = abs(int(favours.sum()))
    return float(min(1.0, sums[: reach - far + 1].sum() + sums[reach + far :].sum())) if far else 1.0


def holm(ps: Sequence[float]) -> list[float]:
    """The values of p corrected for how many they are, in the same order (Holm, 1979)."""
    order = sorted(range(len(ps)), key=ps.__getitem__)
    corrected, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = highest
    return corrected


def _binomial(count: int) -> Floats:
    """Probabilities of 0 to `count` heads of a fair coin."""
    k = np.arange(count + 1)
    logs = special.gammaln(count + 1) - special.gammaln(k + 1) - special.gammaln(count - k + 1)
    return np.exp(logs - count * math.log(2))  # type: ignore[no-any-return]


def _quantile(freedom: float) -> float:
    """Half the width of a 95 % interval in standard errors."""
    return float(special.stdtrit(min(freedom, 1e12), 1 - LEVEL / 2))

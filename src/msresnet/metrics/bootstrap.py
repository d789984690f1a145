"""95 % intervals of figures that have no formula for one: images are drawn again, with replacement (Efron, 1979).

Most figures here are functions of sums over images, so that all resamples are one product: how often each image was
drawn, times what it adds to each sum. N images, K classes, B resamples.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import sparse

from msresnet.metrics.calibration import BINS, bins_of, error_by_chance, expected_calibration_error
from msresnet.metrics.classification import Counts, balanced_accuracy, log_losses, macro_f1
from msresnet.metrics.coverage import area_of_levels

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Interval = tuple[float, float]
RESAMPLES, SEED = 1000, 0
MOST_SORTED, FEWEST = 20_000, 200
AT_ONCE = 1 << 20
"""Numbers held at a time; as many stay in a processor's cache."""
TAILS = (0.025, 0.975)


def intervals(probabilities: Floats, targets: Ints) -> dict[str, Interval | None]:
    """The 95 % intervals of balanced_accuracy, macro_f1, loss and ece; None for fewer than two images.

    Percentiles of seeded resamples. A class that a resample lacks is left out of its means, as it is elsewhere. Without
    mistakes there is none of balanced_accuracy and macro_f1: what no resample can hold, none can show.
    """
    names = ("balanced_accuracy", "macro_f1", "loss", "ece")
    if len(targets) < 2:
        return dict.fromkeys(names)
    drawn = np.concatenate([_figures(sums, probabilities.shape[1]) for sums in _sums(_parts(probabilities, targets))])
    found: dict[str, Interval | None] = {name: _percentiles(drawn[:, i]) for i, name in enumerate(names)}
    correct = probabilities.argmax(1) == targets
    found["ece"] = _calibration(drawn[:, 3], probabilities.max(1), correct)
    if correct.all():
        found |= dict.fromkeys(("balanced_accuracy", "macro_f1"))
    return found


def mean_interval(values: Floats) -> Interval | None:
    """The 95 % interval of the mean of values, one for each image (N,); None for fewer than two."""
    if len(values) < 2:
        return None
    sums = np.concatenate(list(_sums(sparse.csr_array(values[:, None]))))
    return _percentiles(sums[:, 0] / len(values))


def risk_interval(confidences: Floats, correct: npt.NDArray[np.bool_]) -> Interval | None:
    """The 95 % interval of `coverage.area_under_risk`; None for fewer than two images, and where all are right.

    Of more than MOST_SORTED images fewer resamples are drawn, at least FEWEST: an interval that narrow needs no more.
    """
    if len(confidences) < 2 or correct.all():
        return None
    levels, which = np.unique(-confidences, return_inverse=True)
    count = max(FEWEST, min(RESAMPLES, RESAMPLES * MOST_SORTED // len(which)))
    rng, areas = np.random.default_rng(SEED), np.empty(count)
    for resample in range(count):
        drawn = rng.integers(0, len(which), len(which))
        answered = np.bincount(which[drawn], minlength=len(levels))
        right = np.bincount(which[drawn[correct[drawn]]], minlength=len(levels))
        areas[resample] = area_of_levels(answered, right)
    return _percentiles(areas)


def _parts(probabilities: Floats, targets: Ints) -> sparse.csr_array:
    """What each image adds to the sums (N, 3 K + 1 + BINS): asked, answered, right, loss, confidence less truth."""
    count, classes = probabilities.shape
    predicted, confidences = probabilities.argmax(1), probabilities.max(1)
    rows, right = np.arange(count), np.flatnonzero(predicted == targets)
    entries = [
        (rows, targets, np.ones(count)),
        (rows, classes + predicted, np.ones(count)),
        (right, 2 * classes + targets[right], np.ones(len(right))),
        (rows, np.full(count, 3 * classes), log_losses(probabilities, targets)),
        (rows, 3 * classes + 1 + bins_of(confidences), confidences - (predicted == targets)),
    ]
    where, which, values = (np.concatenate(column) for column in zip(*entries, strict=True))
    return sparse.csr_array((values, (where, which)), shape=(count, 3 * classes + 1 + BINS))


def _sums(parts: sparse.csr_array) -> Iterator[Floats]:
    """The sums (b, M) of some resamples after the others, B in all, of what each image adds to them (N, M)."""
    rng, count = np.random.default_rng(SEED), parts.shape[0]
    most = max(1, AT_ONCE // max(parts.shape))
    for start in range(0, RESAMPLES, most):
        size = min(most, RESAMPLES - start)
        drawn = rng.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        yield times.astype(np.float64) @ parts


def _figures(sums: Floats, classes: int) -> Floats:
    """Sums (b, 3 K + 1 + BINS) -> balanced accuracy, macro F1, log loss, calibration error (b, 4)."""
    asked, answered, right = (sums[:, i * classes : (i + 1) * classes] for i in range(3))
    found, total = Counts(right, asked, answered), asked.sum(1)
    loss, gaps = sums[:, 3 * classes] / total, np.abs(sums[:, 3 * classes + 1 :]).sum(1) / total
    return np.stack([balanced_accuracy(found), macro_f1(found), loss, gaps], 1)


def _percentiles(values: Floats) -> Interval:
    low, high = np.quantile(values, TAILS)
    return float(low), float(high)


def _calibration(drawn: Floats, confidences: Floats, correct: npt.NDArray[np.bool_]) -> Interval:
    """The interval of the calibration error, which chance always makes larger, most of all near zero.

    A resample is as much further off than the sample as the sample is than the truth, so the lower end is moved by
    both, the upper one by the first, and the lower end is zero where perfect probabilities would have shown as much.
    """
    found = expected_calibration_error(confidences, correct)
    low, high = _percentiles(drawn)
    excess = float(drawn.mean()) - found
    if found <= error_by_chance(confidences, RESAMPLES, SEED):
        low = 0.0
    return min(found, max(0.0, low - 2 * excess)), max(found, high - excess)

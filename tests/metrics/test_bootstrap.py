"""Intervals against resampling written out, known spreads, and whether they hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as oracle

from msresnet.metrics.bootstrap import intervals, mean_interval, risk_interval
from msresnet.metrics.calibration import expected_calibration_error
from msresnet.metrics.classification import log_loss
from msresnet.metrics.coverage import area_under_risk

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def answers(seed: int, count: int, classes: int, distortion: float = 1.0) -> tuple[Floats, Ints]:
    """Probabilities from which the truths are drawn, then raised to a power: 1 leaves them calibrated."""
    rng = np.random.default_rng(seed)
    honest = rng.dirichlet(np.full(classes, 0.3), count)
    targets = (honest.cumsum(1) > rng.random(count)[:, None]).argmax(1)
    told = (honest + 1e-9) ** distortion
    return told / told.sum(1, keepdims=True), targets


def written_out(probabilities: Floats, targets: Ints, index: Ints) -> tuple[float, float, float]:
    p, t = probabilities[index], targets[index]
    f1 = oracle.f1_score(t, p.argmax(1), average="macro", zero_division=0)
    recalls = [np.mean(p.argmax(1)[t == c] == c) for c in np.unique(t)]
    return float(np.mean(recalls)), float(f1), log_loss(p, t)


@pytest.mark.parametrize(("count", "classes"), [(60, 4), (25, 12)])
def test_the_intervals_are_those_of_resampling_written_out(count: int, classes: int) -> None:
    probabilities, targets = answers(0, count, classes)
    rng = np.random.default_rng(5)
    drawn = [written_out(probabilities, targets, rng.integers(0, count, count)) for _ in range(400)]
    found = intervals(probabilities, targets)
    for column, name in enumerate(("balanced_accuracy", "macro_f1", "loss")):
        values = np.array(drawn)[:, column]
        low, high = np.quantile(values, [0.025, 0.975])
        assert found[name] == pytest.approx((low, high), abs=0.5 * float(values.std()))


@pytest.mark.parametrize("ties", [False, True])
def test_the_interval_of_the_area_under_risk_is_that_of_resampling_written_out(ties: bool) -> None:
    probabilities, targets = answers(3, 80, 4)
    confidences, correct = probabilities.max(1), probabilities.argmax(1) == targets
    confidences = confidences.round(1) if ties else confidences
    rng = np.random.default_rng(5)
    drawn = np.array([area_under_risk(confidences[i], correct[i]) for i in rng.integers(0, 80, (400, 80))])
    found = risk_interval(confidences, correct)
    assert found == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.5 * float(drawn.std()))
    assert risk_interval(confidences[:1], correct[:1]) is None


def test_they_come_again() -> None:
    data = answers(1, 100, 5)
    assert intervals(*data) == intervals(*data)


def test_the_interval_of_a_mean_is_the_one_of_large_samples() -> None:
    values = np.random.default_rng(0).exponential(2.0, 5_000)
    found = mean_interval(values)
    half = 1.96 * values.std() / 5_000**0.5
    assert found == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_have_no_interval(count: int) -> None:
    data = answers(0, 1, 3)
    found = intervals(data[0][:count], data[1][:count])
    assert found == dict.fromkeys(("balanced_accuracy", "macro_f1", "loss", "ece"))
    assert mean_interval(np.zeros(count)) is None


def test_equal_answers_and_absent_classes_have_intervals_too() -> None:
    probabilities = np.tile([0.7, 0.2, 0.1, 0.0], (50, 1))
    found = intervals(probabilities, np.arange(50) % 2)
    assert found["balanced_accuracy"] == (0.5, 0.5)
    assert all(pair is not None and 0 <= pair[0] <= pair[1] for pair in found.values())


def test_a_set_without_mistakes_has_no_interval_of_what_mistakes_make() -> None:
    probabilities = np.eye(3)[np.arange(30) % 3]
    found = intervals(probabilities, np.arange(30) % 3)
    assert (found["balanced_accuracy"], found["macro_f1"], found["ece"]) == (None, None, (0, 0))
    assert found["loss"] is not None
    assert risk_interval(probabilities.max(1), np.ones(30, bool)) is None


@pytest.mark.parametrize(("distortion", "count"), [(1.0, 300), (1.0, 2_000), (0.7, 300), (2.0, 300)])
def test_they_hold_the_truth_in_about_95_of_100_draws(distortion: float, count: int) -> None:
    probabilities, targets = answers(99, 400_000, 4, distortion)
    correct = probabilities.argmax(1) == targets
    truth = {
        "loss": log_loss(probabilities, targets),
        "ece": 0.0 if distortion == 1 else expected_calibration_error(probabilities.max(1), correct),
        "balanced_accuracy": oracle.balanced_accuracy_score(targets, probabilities.argmax(1)),
        "macro_f1": oracle.f1_score(targets, probabilities.argmax(1), average="macro"),
    }
    held, draws = dict.fromkeys(truth, 0), 60
    for seed in range(draws):
        found = intervals(*answers(seed, count, 4, distortion))
        for name, value in truth.items():
            low, high = found[name] or (0.0, 0.0)
            held[name] += low <= value <= high
    # Of 60 draws, fewer than 51 happen to an interval of 95 % once in 1,500 times.
    assert min(held.values()) >= 51, held

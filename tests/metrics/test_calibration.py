"""Temperatures against another optimiser, coverage curves against their definition, and what cannot be fitted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn import metrics as oracle

from msresnet.metrics.calibration import error_by_chance, expected_calibration_error, fit_temperature, reliability
from msresnet.metrics.coverage import MOST_ROWS, abstain, area_under_risk, coverage_curve

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def logits(seed: int, count: int, classes: int, heat: float) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Logits whose true classes were drawn from their own probabilities at another temperature."""
    rng = np.random.default_rng(seed)
    values = 3 * rng.standard_normal((count, classes))
    chances = np.exp(log_softmax(values / heat, axis=1))
    targets = np.array([rng.choice(classes, p=p) for p in chances])
    return values, targets


@settings(max_examples=25)
@given(st.integers(0, 1000), st.integers(20, 200), st.integers(2, 8), st.floats(0.5, 3))
def test_the_temperature_has_the_least_log_loss(seed: int, count: int, classes: int, heat: float) -> None:
    values, targets = logits(seed, count, classes, heat)

    def loss(logarithm: float) -> float:
        return float(
            oracle.log_loss(targets, np.exp(log_softmax(values / np.exp(logarithm), axis=1)), labels=range(classes))
        )

    found = fit_temperature(log_softmax(values, axis=1), targets)
    best = minimize_scalar(loss, bounds=(np.log(0.01), np.log(100)), method="bounded", options={"xatol": 1e-9})
    if found is None:
        assert min(loss(np.log(0.01)), loss(np.log(100))) <= best.fun + 1e-9
    else:
        assert found == pytest.approx(np.exp(best.x), rel=1e-3)
        assert loss(np.log(found)) <= best.fun + 1e-12


def test_a_temperature_that_was_used_is_found_again() -> None:
    values, targets = logits(0, 20_000, 5, 2.5)
    assert fit_temperature(values, targets) == pytest.approx(2.5, rel=0.03)
    assert fit_temperature(values / 2.5, targets) == pytest.approx(1.0, rel=0.03)
    assert fit_temperature(values + 100, targets) == pytest.approx(fit_temperature(values, targets), rel=1e-6)


def test_no_temperature_fits_answers_that_are_all_right_or_all_chance() -> None:
    certain = np.log(np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert fit_temperature(certain, np.array([0, 1])) is None
    assert fit_temperature(certain, np.array([1, 0])) is None
    assert fit_temperature(np.log(np.full((3, 4), 0.25)), np.array([0, 1, 2])) is None
    assert fit_temperature(certain[:0], np.zeros(0, np.int64)) is None


def test_probabilities_of_zero_do_no_harm() -> None:
    with np.errstate(divide="ignore"):
        values = np.log(np.array([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.6, 0.4, 0.0]]))
    found = fit_temperature(values, np.array([0, 1, 0]))
    assert found is not None
    assert 0.5 < found < 100


@st.composite
def sureness(draw: st.DrawFn) -> tuple[Floats, Flags]:
    """Confidences with many ties, and whether each answer is right."""
    count, seed, levels = draw(st.integers(1, 60)), draw(st.integers(0, 10_000)), draw(st.integers(1, 8))
    rng = np.random.default_rng(seed)
    return rng.integers(1, levels + 1, count) / levels, rng.random(count) < 0.6


@given(sureness())
def test_a_row_of_the_curve_is_what_its_bound_leaves(data: tuple[Floats, Flags]) -> None:
    confidences, correct = data
    rows = coverage_curve(confidences, correct)
    assert [row["confidence"] for row in rows] == sorted(set(confidences), reverse=True)
    for row in rows:
        kept = confidences >= row["confidence"]
        assert row["coverage"] == pytest.approx(kept.mean())
        assert row["accuracy"] == pytest.approx(correct[kept].mean())
        left = abstain(confidences, correct, row["confidence"])
        assert (left["answered"], left["accuracy"]) == pytest.approx((row["coverage"], row["accuracy"]))
    assert (rows[-1]["coverage"], rows[-1]["accuracy"]) == pytest.approx((1.0, correct.mean()))


@settings(max_examples=30)
@given(sureness())
def test_the_area_is_the_mean_risk_over_random_orders_of_ties(data: tuple[Floats, Flags]) -> None:
    confidences, correct = data
    rng, areas = np.random.default_rng(0), []
    for _ in range(400):
        order = np.lexsort((rng.random(len(correct)), -confidences))
        wrong = np.cumsum(~correct[order])
        areas.append((wrong / np.arange(1, len(wrong) + 1)).mean())
    spread = np.std(areas) / 20 + 1e-9
    assert area_under_risk(confidences, correct) == pytest.approx(np.mean(areas), abs=5 * spread)


def test_a_long_curve_is_thinned_evenly_and_keeps_its_end() -> None:
    rng = np.random.default_rng(0)
    confidences = rng.random(12_345)
    rows = coverage_curve(confidences, rng.random(12_345) < confidences)
    coverages = np.array([row["coverage"] for row in rows])
    assert len(rows) == MOST_ROWS
    assert coverages == pytest.approx(np.arange(1, MOST_ROWS + 1) / MOST_ROWS, abs=1e-3)


def test_curves_of_nothing_and_of_one_image() -> None:
    none, one = (np.zeros(0), np.zeros(0, bool)), (np.array([0.7]), np.array([True]))
    assert (coverage_curve(*none), area_under_risk(*none), reliability(*none)) == ([], 0.0, [])
    assert coverage_curve(*one) == [{"confidence": 0.7, "coverage": 1.0, "accuracy": 1.0}]
    assert area_under_risk(*one) == 0.0
    left = abstain(*one, below=0.9)
    assert (left["answered"], left["n"], left["accuracy"], left["accuracy_ci95"]) == (0.0, 0, None, [0.0, 1.0])


def test_chance_alone_makes_an_error_in_all_but_a_fortieth_of_draws() -> None:
    rng = np.random.default_rng(1)
    confidences = 1 - 0.6 * rng.random(500) ** 2
    bound = error_by_chance(confidences, draws=4_000, seed=0)
    errors = [expected_calibration_error(confidences, rng.random(500) < confidences) for _ in range(2_000)]
    assert np.mean(np.array(errors) > bound) == pytest.approx(0.025, abs=0.015)

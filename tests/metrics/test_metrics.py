"""Every figure against scikit-learn, scipy, or a formula written out, on random inputs with ties and empty classes."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as oracle

from msresnet.metrics.calibration import expected_calibration_error
from msresnet.metrics.classification import (
    balanced_accuracy,
    confusion,
    counts,
    log_loss,
    macro_f1,
    per_class,
    top_k_accuracy,
    wilson_interval,
)
from msresnet.results import Classification
from msresnet.tasks.classification import ClassificationTask

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@st.composite
def answers(draw: st.DrawFn) -> tuple[Floats, Ints]:
    """Probabilities (N, K), coarse enough for ties, and truths (N,) that need not hold every class."""
    n, k, seed = draw(st.integers(1, 40)), draw(st.integers(2, 8)), draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    raw = rng.integers(1, 5, (n, k)).astype(float)
    return raw / raw.sum(1, keepdims=True), rng.integers(0, k, n)


@given(st.integers(0, 200), st.integers(1, 200))
def test_wilson_interval_is_scipys(correct: int, total: int) -> None:
    correct = min(correct, total)
    expected = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


@settings(deadline=None)
@given(answers())
def test_top_k_counts_places_with_ties_to_the_lower_index(data: tuple[Floats, Ints]) -> None:
    probabilities, targets = data
    for k in (1, 3):
        hits = 0
        for row, target in zip(probabilities, targets, strict=True):
            before = sum(p > row[target] or (p == row[target] and i < target) for i, p in enumerate(row))
            hits += before < k
        assert top_k_accuracy(probabilities, targets, k) == pytest.approx(hits / len(targets))


@settings(deadline=None)
@given(answers())
def test_log_loss_is_scikit_learns(data: tuple[Floats, Ints]) -> None:
    probabilities, targets = data
    expected = oracle.log_loss(targets, probabilities, labels=np.arange(probabilities.shape[1]))
    assert log_loss(probabilities, targets) == pytest.approx(expected, rel=1e-9)


def test_log_loss_of_certain_answers_is_scikit_learns() -> None:
    """Right and wrong, and one that is nearly impossible."""
    probabilities = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1 - 1e-17, 1e-17, 0.0], [0.2, 0.3, 0.5]])
    for targets in np.array([[0, 0, 1, 2], [0, 1, 0, 0], [2, 2, 1, 1]]):
        assert log_loss(probabilities, targets) == pytest.approx(
            oracle.log_loss(targets, probabilities, labels=[0, 1, 2])
        )


@settings(deadline=None)
@given(answers())
def test_calibration_error_is_the_formula(data: tuple[Floats, Ints]) -> None:
    probabilities, targets = data
    confidences, correct = probabilities.max(1), probabilities.argmax(1) == targets
    total = 0.0
    for b in range(15):
        inside = [i for i, c in enumerate(confidences) if b / 15 < c <= (b + 1) / 15]
        if inside:
            total += len(inside) * abs(np.mean(confidences[inside]) - np.mean(correct[inside]))
    assert expected_calibration_error(confidences, correct) == pytest.approx(total / len(targets), abs=1e-9)


@settings(deadline=None)
@given(answers())
def test_the_task_reports_the_same_figures(data: tuple[Floats, Ints]) -> None:
    probabilities, targets = data
    names = tuple(f"c{i}" for i in range(probabilities.shape[1]))
    results = Classification(tuple(map(str, range(len(targets)))), names, probabilities)
    measured = ClassificationTask(names).evaluate(results, targets).metrics
    assert measured["top1"] == pytest.approx(oracle.accuracy_score(targets, probabilities.argmax(1)))
    assert measured["n"] == len(targets)
    every = np.arange(len(names))
    assert measured["top5"] == pytest.approx(top_k_accuracy(probabilities, targets, 5))
    assert measured["macro_f1"] == pytest.approx(
        oracle.f1_score(targets, results.indices, average="macro", zero_division=0)
    )
    assert measured["loss"] == pytest.approx(oracle.log_loss(targets, probabilities, labels=every), rel=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are answered and have no image: they are left out
        balanced = oracle.balanced_accuracy_score(targets, results.indices)
    assert measured["balanced_accuracy"] == pytest.approx(balanced)
    right, sure = results.indices == targets, probabilities.max(1)
    told = ClassificationTask(names).details(ClassificationTask(names).evaluate(results, targets))
    bins = [(sure > b / 15) & (sure <= (b + 1) / 15) for b in range(15)]
    by_bin = [(sure[inside].mean(), right[inside].mean(), inside.sum()) for inside in bins if inside.any()]
    assert [(row["confidence"], row["accuracy"], row["n"]) for row in told["reliability"]] == [
        pytest.approx(expected) for expected in by_bin
    ]
    assert measured["ece"] == pytest.approx(sum(n * abs(c - a) for c, a, n in by_bin) / len(sure))
    wrong = 1 - right[np.argsort(-sure, kind="stable")]
    if len(set(sure)) == len(sure):  # without ties it is the mean risk of the surest 1, 2, 3, ... images
        assert told["aurc"] == pytest.approx(np.mean(np.cumsum(wrong) / np.arange(1, len(wrong) + 1)))
    by_hand = per_class(results.indices, targets, names)
    assert measured["per_class"] == by_hand
    assert sum(row["n"] for row in by_hand) == len(targets)


@given(answers())
def test_counts_give_what_scikit_learn_gives(data: tuple[Floats, Ints]) -> None:
    probabilities, targets = data
    predicted, classes = probabilities.argmax(1), probabilities.shape[1]
    found, every = counts(predicted, targets, classes), np.arange(classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are answered and have no image: they are left out
        assert balanced_accuracy(found) == pytest.approx(oracle.balanced_accuracy_score(targets, predicted))
    assert macro_f1(found) == pytest.approx(oracle.f1_score(targets, predicted, average="macro", zero_division=0))
    assert (
        confusion(predicted, targets, classes).tolist()
        == oracle.confusion_matrix(targets, predicted, labels=every).tolist()
    )
    figures = oracle.precision_recall_fscore_support(targets, predicted, labels=every, zero_division=0)
    rows = per_class(predicted, targets, tuple(map(str, every)))
    for name, expected in zip(("precision", "recall", "f1", "n"), figures, strict=True):
        assert [row[name] for row in rows] == pytest.approx(expected.tolist())


def test_figures_of_nothing() -> None:
    none = np.zeros(0, np.int64)
    found = counts(none, none, 3)
    assert float(balanced_accuracy(found)) == float(macro_f1(found)) == 0.0
    assert confusion(none, none, 3).sum() == 0
    assert (top_k_accuracy(np.zeros((0, 3)), none, 1), log_loss(np.zeros((0, 3)), none)) == (0, 0)


def test_scores_that_are_not_numbers_are_never_among_the_first() -> None:
    scores = np.array([[np.nan, np.nan, np.nan], [0.5, 0.2, 0.3]])
    assert top_k_accuracy(scores, np.array([0, 0]), 2) == 0.5


def test_confusion_has_truths_in_rows() -> None:
    counts = confusion(np.array([1, 1, 2]), np.array([0, 1, 2]), 4)
    assert counts.tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_precision_and_recall_of_a_worked_example() -> None:
    rows = per_class(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), ("a", "b", "never"))
    assert rows[0] == {"class": "a", "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "n": 1}
    assert rows[1] == {"class": "b", "precision": 1.0, "recall": pytest.approx(2 / 3), "f1": 0.8, "n": 3}
    assert rows[2] == {"class": "never", "precision": 0.0, "recall": 0.0, "f1": 0.0, "n": 0}


def test_results_slice_and_print() -> None:
    results = Classification(("a.png", "<b>"), ("cat", "dog"), np.array([[0.25, 0.75], [0.9, 0.1]]))
    assert results.labels == ["dog", "cat"]
    assert results[-1].ids == ("<b>",)
    assert [len(r) for r in results] == [1, 1]
    assert results[1:].to_dict() == [
        {
            "id": "<b>",
            "label": "cat",
            "probability": 0.9,
            "top": [{"label": "cat", "probability": 0.9}, {"label": "dog", "probability": 0.1}],
        }
    ]
    assert "&lt;b&gt;" in results._repr_html_()
    with pytest.raises(IndexError):
        results[2]
    with pytest.raises(ValueError, match="2 images"):
        Classification(("a", "b"), ("cat",), np.ones((1, 1)))


def test_results_print_as_people_read_them() -> None:
    results = Classification(("a.png", "b.png"), ("cat", "dog"), np.array([[0.25, 0.75], [0.9, 0.1]]))
    assert str(results) == "a.png: dog 0.7500\nb.png: cat 0.9000"
    measured = ClassificationTask(("cat", "dog")).evaluate(results, np.array([1, 1]))
    assert str(measured) == "top-1 50.00 % (95 % interval 9.45 to 90.55) on 2 images"

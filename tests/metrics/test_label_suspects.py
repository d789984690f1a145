"""Confident learning against the paper's formulas in plain loops, and against labels that were changed on purpose."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from msresnet.metrics.label_suspects import bars, label_suspects

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def joint(probabilities: Floats, labels: Ints) -> tuple[list[tuple[int, int]], float]:
    """(image, class it looks like) off the diagonal, and the estimated share of wrong labels: equations 1 to 3."""
    classes = probabilities.shape[1]
    members = [[i for i, y in enumerate(labels) if y == c] for c in range(classes)]
    thresholds = [sum(probabilities[i, c] for i in m) / len(m) if m else np.inf for c, m in enumerate(members)]
    counts = np.zeros((classes, classes))
    found = []
    for i, label in enumerate(labels):
        candidates = [c for c in range(classes) if probabilities[i, c] >= thresholds[c] - 1e-12]
        if candidates:
            best = max(candidates, key=lambda c: (probabilities[i, c], -c))
            counts[label, best] += 1
            if best != label:
                found.append((i, best))
    wrong = 0.0
    for c in range(classes):
        if counts[c].sum():
            wrong += (1 - counts[c, c] / counts[c].sum()) * len(members[c])
    return found, wrong / len(labels)


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 6))
def test_the_suspects_are_the_papers(seed: int, count: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.integers(1, 6, (count, classes)).astype(float)
    probabilities, labels = raw / raw.sum(1, keepdims=True), rng.integers(0, classes, count)
    suspects = label_suspects(probabilities, labels)
    pairs, share = joint(probabilities, labels)
    assert sorted(zip(suspects.indices.tolist(), suspects.suggested.tolist(), strict=True)) == pairs
    assert suspects.share == pytest.approx(share)
    rows = suspects.indices
    margins = probabilities[rows, labels[rows]] - probabilities[rows, suspects.suggested]
    assert suspects.margins == pytest.approx(margins)
    assert (np.diff(suspects.margins) >= 0).all()


def test_labels_made_wrong_are_found() -> None:
    images, truth = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    changed = rng.choice(len(truth), len(truth) // 20, replace=False)
    labels = truth.copy()
    labels[changed] = (truth[changed] + rng.integers(1, 10, len(changed))) % 10
    held_out = cross_val_predict(
        LogisticRegression(C=0.1, max_iter=500), images / 16, labels, cv=4, method="predict_proba"
    )
    suspects = label_suspects(held_out, labels)
    first = suspects.indices[: len(changed)]
    assert np.isin(first[: len(first) // 2], changed).all()
    assert np.isin(first, changed).mean() > 0.8  # a linear model makes mistakes of its own
    assert (suspects.suggested[: len(changed)] == truth[first])[np.isin(first, changed)].mean() > 0.9
    assert suspects.share == pytest.approx(0.05, abs=0.02)


def test_nothing_is_suspect_where_all_answers_agree_or_are_equal() -> None:
    agreed = label_suspects(np.eye(3)[[0, 1, 2, 0]] * 0.9 + 0.1 / 3, np.array([0, 1, 2, 0]))
    assert len(agreed.indices) == 0
    assert agreed.share == 0
    alone = label_suspects(np.array([[0.2, 0.8]]), np.array([0]))
    assert len(alone.indices) == 0  # no image of the other class says how sure the model is of it
    nothing = label_suspects(np.zeros((0, 3)), np.zeros(0, np.int64))
    assert len(nothing.indices) == 0


def test_a_class_without_images_has_no_bar() -> None:
    found = bars(np.array([[0.5, 0.5], [0.7, 0.3]]), np.array([0, 0]))
    assert found.tolist() == [0.6, np.inf]

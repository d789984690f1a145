"""Figures of masks against scikit-learn and formulas written out, absent classes and unknown pixels included."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from msresnet.metrics import segmentation as figures
from msresnet.metrics.classification import Counts
from msresnet.results import Segmentation
from msresnet.tasks.segmentation import SegmentationTask

Mask = npt.NDArray[np.uint8]
UNKNOWN = 255


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Mask, Mask, int]:
    """An answer and a truth of up to five classes, of which some may be absent, with unknown pixels."""
    classes, seed = draw(st.integers(2, 5)), draw(st.integers(0, 10_000))
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    rng = np.random.default_rng(seed)
    some = rng.choice(classes, draw(st.integers(1, classes)), replace=False)
    answer, truth = rng.choice(some, shape).astype(np.uint8), rng.integers(0, classes, shape, dtype=np.uint8)
    truth[rng.random(shape) < draw(st.sampled_from([0.0, 0.3]))] = UNKNOWN
    return answer, truth, classes


@given(pairs())
def test_iou_and_accuracy_are_scikit_learns(case: tuple[Mask, Mask, int]) -> None:
    answer, truth, classes = case
    known = truth != UNKNOWN
    counts = figures.counted(figures.confusion(answer, truth, classes))
    if not known.any():
        assert np.isnan(figures.pixel_accuracy(counts))
        assert np.isnan(figures.mean_iou(counts))
        return
    mine, theirs = answer[known], truth[known]
    there = sorted(set(mine.tolist()) | set(theirs.tolist()))
    expected = oracle.jaccard_score(theirs, mine, labels=there, average=None)
    assert figures.iou(counts)[there] == pytest.approx(expected)
    assert np.isnan(np.delete(figures.iou(counts), there)).all()
    assert figures.mean_iou(counts) == pytest.approx(expected.mean())
    assert figures.pixel_accuracy(counts) == pytest.approx(oracle.accuracy_score(theirs, mine))
    expected_counts = oracle.confusion_matrix(theirs, mine, labels=range(classes))
    assert figures.confusion(answer, truth, classes).tolist() == expected_counts.tolist()


def boundary_by_hand(answer: Mask, truth: Mask, index: int, near: float) -> float:
    """The F of one class's boundary, by comparing every pair of boundary pixels."""

    def edge(mask: Mask) -> npt.NDArray[np.int64]:
        found = []
        height, width = mask.shape
        for y, x in np.argwhere(mask == index):
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            outside = [mask[a, b] != index for a, b in around if 0 <= a < height and 0 <= b < width]
            if any(outside) and truth[y, x] != UNKNOWN:
                found.append((y, x))
        return np.array(found, np.int64).reshape(-1, 2)

    mine, theirs = edge(answer), edge(truth)
    if not len(mine) and not len(theirs):
        return float("nan")
    if not len(mine) or not len(theirs):
        return 0.0
    far = np.hypot(*(mine[:, None] - theirs[None]).transpose(2, 0, 1)) > near
    precision, recall = (~far.all(1)).mean(), (~far.all(0)).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


@given(pairs())
def test_boundary_f_is_the_formula(case: tuple[Mask, Mask, int]) -> None:
    answer, truth, classes = case
    near = max(1.0, 0.0075 * float(np.hypot(*truth.shape)))
    expected = [boundary_by_hand(answer, truth, index, near) for index in range(classes)]
    assert figures.boundary_f(answer, truth, classes) == pytest.approx(expected, nan_ok=True)


def test_a_boundary_may_be_off_by_the_tolerance_and_no_further() -> None:
    truth, moved, far = (np.zeros((400, 300), np.uint8) for _ in range(3))
    truth[100:300, 100:200] = 1
    moved[103:303, 100:200] = 1  # 0.75 % of the diagonal of 500 is 3.75 pixels
    far[105:305, 100:200] = 1
    assert figures.tolerance(truth.shape) == 3.75
    assert figures.boundary_f(moved, truth, 2)[1] == 1.0
    assert figures.boundary_f(far, truth, 2)[1] < 0.8


def results(masks: list[Mask], classes: int) -> Segmentation:
    """Answers as a model gives them."""
    names = tuple(f"c{i}" for i in range(classes))
    return Segmentation(tuple(map(str, range(len(masks)))), names, tuple(masks), np.ones(len(masks)))


def test_the_task_pools_pixels_over_all_images() -> None:
    rng = np.random.default_rng(3)
    truths = [rng.integers(0, 3, (7, 5 + i), dtype=np.uint8) for i in range(6)]
    answers = [np.where(rng.random(t.shape) < 0.7, t, 1).astype(np.uint8) for t in truths]
    task = SegmentationTask(("c0", "c1", "c2", "never"))
    measured = task.evaluate(results(answers, 4), truths)
    mine, theirs = (np.concatenate([m.ravel() for m in masks]) for masks in (answers, truths))
    assert measured.metrics["miou"] == pytest.approx(oracle.jaccard_score(theirs, mine, average="macro"))
    assert measured.metrics["pixel_accuracy"] == pytest.approx(oracle.accuracy_score(theirs, mine))
    low, high = measured.metrics["pixel_accuracy_ci95"]
    assert low < measured.metrics["pixel_accuracy"] < high
    absent = measured.metrics["per_class"][3]
    assert (absent["iou"], absent["pixels"], absent["n"]) == (None, 0, 0)
    metrics = measured.metrics | task.details(measured) | {"split": "test"}
    assert "-" in next(row for row in task.tables(metrics)[1].rows if row[0] == "never")
    assert np.sum(metrics["confusion"]) == measured.metrics["pixels"]
    worst = metrics["worst"][0]
    shares = [float((a == t).mean()) for a, t in zip(answers, truths, strict=True)]
    assert (worst["id"], worst["pixel_accuracy"]) == (str(int(np.argmin(shares))), pytest.approx(min(shares), abs=1e-6))


def test_one_image_and_no_known_pixel_give_no_interval_and_no_failure() -> None:
    task = SegmentationTask(("a", "b"))
    blank = np.full((4, 4), UNKNOWN, np.uint8)
    measured = task.evaluate(results([np.zeros((4, 4), np.uint8)], 2), [blank])
    assert (measured.metrics["miou_ci95"], measured.metrics["pixels"]) == (None, 0)
    found = measured.metrics | task.details(measured) | {"split": "test"}
    assert found["boundary_f"] is None
    assert task.rows(measured)[0]["pixel_accuracy"] is None
    assert all(isinstance(cell, str) for table in task.tables(found) for row in table.rows for cell in row)
    assert "interval" not in measured.headline


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng, hits = np.random.default_rng(1), 0
    for _ in range(200):
        right = rng.binomial(50, rng.beta(8, 2, 40))  # images differ: 0.8 of their pixels are right on average
        counts = Counts(*(np.stack([c, 0 * c], 1) for c in (right, 0 * right + 50, right)))
        ends = figures.interval(figures.pixel_accuracy, counts)
        assert ends is not None
        hits += ends[0] <= 0.8 <= ends[1]
    assert 175 <= hits <= 198


def test_results_are_checked_slice_and_print() -> None:
    masks = [np.array([[0, 1], [1, 1]], np.uint8), np.zeros((1, 3), np.uint8)]
    answers = Segmentation(("<a>.png", "b.png"), ("sky", "<b>"), tuple(masks), np.array([0.9, 0.5]))
    assert answers[1:].ids == ("b.png",)
    assert [len(one) for one in answers] == [1, 1]
    assert answers[0].to_dict() == [
        {
            "id": "<a>.png",
            "height": 2,
            "width": 2,
            "confidence": 0.9,
            "shares": [{"label": "<b>", "share": 0.75}, {"label": "sky", "share": 0.25}],
        }
    ]
    assert "<a>" not in answers._repr_html_()
    assert "&lt;b&gt;" in answers._repr_html_()
    assert str(answers).splitlines()[1] == "b.png: 1x3, sky 100.0 %"
    joined = Segmentation.joined([answers[:1], answers[1:]])
    assert (joined.ids, str(joined)) == (answers.ids, str(answers))
    with pytest.raises(ValueError, match="there are 2 classes"):
        Segmentation(("a",), ("sky", "tree"), (np.full((2, 2), 2, np.uint8),), np.ones(1))
    with pytest.raises(ValueError, match="for 2 images"):
        Segmentation(("a", "b"), ("sky", "tree"), (masks[0],), np.ones(2))
    with pytest.raises(ValueError, match="not uint8"):
        Segmentation(("a",), ("sky", "tree"), (np.zeros((2, 2)),), np.ones(1))  # type: ignore[arg-type]

"""Figures of boxes are pycocotools' own; mistakes are told apart as they were made, and cost what they cost."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from msresnet.boxes import Boxes
from msresnet.errors import ResourceError
from msresnet.metrics.detection import AREAS, RECALLS, Figures, figures
from msresnet.metrics.detection_errors import IGNORED, KINDS, MISSED, RIGHT, Errors, average_precision, errors
from msresnet.results import Detections

NAMES = ("a", "b", "c", "d")
ORACLE = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar", "ar_small", "ar_medium", "ar_large")
"""In the order of COCOeval.stats, the recalls of fewer boxes left out."""


def answers(*images: list[tuple[list[float], float, int]], names: tuple[str, ...] = NAMES) -> Detections:
    """Found boxes (xyxy, score, class) of some images."""
    return Detections(
        tuple(f"{i}.png" for i in range(len(images))),
        names,
        tuple(np.array([box for box, _, _ in image], np.float32).reshape(-1, 4) for image in images),
        tuple(np.array([score for _, score, _ in image], np.float32) for image in images),
        tuple(np.array([kind for _, _, kind in image], np.int64) for image in images),
    )


def random_set(seed: int, images: int = 20) -> tuple[Detections, list[Boxes]]:
    """Truths with crowds, empty images and a class without a box; answers near them, with ties and strangers."""
    random = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(images):
        count = int(random.choice([0, 1, 3, 8]))
        corner, sides = random.integers(0, 200, (count, 2)), random.integers(1, 160, (count, 2))
        xyxy = np.concatenate([corner, corner + sides], 1).astype(np.float32)
        kinds = random.integers(0, 3, count)
        truths.append(Boxes.of(xyxy, kinds, random.random(count) < 0.15))
        near = xyxy + random.normal(0, random.choice([1, 8]), xyxy.shape)
        near = np.concatenate([near[random.random(count) < 0.8], random.integers(0, 300, (2, 4)), xyxy[:1]])
        near = np.concatenate([np.minimum(near[:, :2], near[:, 2:]), np.maximum(near[:, :2], near[:, 2:])], 1)
        labels = np.resize(np.append(kinds, random.integers(0, 4)), len(near))
        scores = random.integers(0, 8, len(near)) / 8
        found.append([(box.tolist(), float(s), int(k)) for box, s, k in zip(near, scores, labels, strict=True)])
    return answers(*found), truths


def oracle(found: Detections, truths: list[Boxes]) -> Any:
    """pycocotools' evaluation of the same."""

    def dataset(parts: list[tuple[npt.NDArray[np.float32], Any, dict[str, Any]]]) -> COCO:
        rows: list[dict[str, Any]] = []
        for image, (boxes, kinds, more) in enumerate(parts, 1):
            for row, (x1, y1, x2, y2) in enumerate(boxes.astype(float).tolist()):
                box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "id": len(rows) + 1}
                key = {"image_id": image, "category_id": int(kinds[row]) + 1}
                rows.append({"iscrowd": 0} | box | key | {name: values[row].item() for name, values in more.items()})
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(1, len(parts) + 1)],
            "categories": [{"id": i} for i in range(1, len(NAMES) + 1)],
            "annotations": rows,
        }
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        truth = dataset([(t.xyxy, t.classes, {"iscrowd": t.crowd.astype(int)}) for t in truths])
        columns = zip(found.boxes, found.classes, found.scores, strict=True)
        judge = COCOeval(truth, dataset([(b, k, {"score": s}) for b, k, s in columns]), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


def agree(mine: Figures, judge: Any) -> None:
    """Every figure is pycocotools' within 1e-6."""
    theirs = np.where(judge.stats < 0, np.nan, judge.stats)
    expected = dict(zip(ORACLE, theirs[[0, 1, 2, 3, 4, 5, 8, 9, 10, 11]], strict=True))
    for name, value in mine.summary().items():
        assert np.isclose(np.nan if value is None else value, expected[name], rtol=0, atol=1e-6, equal_nan=True), name
    precision = judge.eval["precision"][..., -1]
    assert np.allclose(mine.precision, np.where(precision < 0, np.nan, precision), rtol=0, atol=1e-6, equal_nan=True)
    there = precision >= 0
    assert np.allclose(mine.scores[there], judge.eval["scores"][..., -1][there], rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_figures_equal_those_of_pycocotools(seed: int) -> None:
    found, truths = random_set(seed)
    agree(figures(found, truths), oracle(found, truths))


@pytest.mark.slow
def test_figures_equal_those_of_pycocotools_on_many_sets() -> None:
    for seed in range(100, 400):
        found, truths = random_set(seed, images=1 + seed % 30)
        agree(figures(found, truths), oracle(found, truths))


def test_more_than_a_hundred_boxes_of_a_class() -> None:
    random = np.random.default_rng(0)
    boxes = [[float(10 * i), 0.0, float(10 * i + 9), 9.0] for i in range(130)]
    found = answers([(box, float(random.random()), 0) for box in boxes])
    truths = [Boxes.of(boxes, [0] * 130)]
    agree(figures(found, truths), oracle(found, truths))
    assert errors(found, truths).ap50 == pytest.approx(figures(found, truths).ap(0.5), abs=1e-9)


def test_ten_thousand_boxes_in_one_image() -> None:
    random = np.random.default_rng(0)
    corner = random.integers(0, 1000, (10_000, 2))
    boxes, kinds = np.concatenate([corner, corner + 9], 1).astype(np.float32), random.integers(0, 4, 10_000)
    found = Detections(("a",), NAMES, (boxes,), (random.random(10_000).astype(np.float32),), (kinds,))
    seen, whole = errors(found, [Boxes.of(boxes, kinds)]), figures(found, [Boxes.of(boxes, kinds)])
    assert seen.ap50 == pytest.approx(whole.ap(0.5), abs=1e-9)
    assert int((seen.kinds[0] != IGNORED).sum()) == 4 * 100


def test_nothing_found_and_nothing_to_find() -> None:
    truth = Boxes.of([[0, 0, 9, 9]], [1])
    none = figures(answers([], []), [truth, Boxes.none()])
    assert none.summary()["ap"] == 0
    assert np.isnan(none.per_class()).tolist() == [True, False, True, True]
    for truths in ([Boxes.none()], [Boxes.of([[0, 0, 9, 9]], [1], [True])]):
        empty = figures(answers([([0, 0, 9, 9], 0.5, 1)]), truths)
        assert set(empty.summary().values()) == {None}
    assert set(figures(answers(), []).summary().values()) == {None}
    assert errors(answers(), []).counts == dict.fromkeys((*KINDS, MISSED), 0)


def test_curves_and_rows() -> None:
    # Of two boxes the surest answer finds one; a wrong answer follows, then the other: precision 1, then 2/3.
    first, second, nowhere = [0.0, 0, 10, 10], [50.0, 50, 90, 90], [200.0, 0, 220, 20]
    found = answers([(first, 0.9, 2), (nowhere, 0.8, 2), (second, 0.7, 2)])
    seen = figures(found, [Boxes.of([first, second], [2, 2])])
    precision, scores = seen.curve(2)
    assert np.allclose(precision, np.where(RECALLS <= 0.5, 1, 2 / 3))
    assert np.allclose(scores, np.where(RECALLS <= 0.5, 0.9, 0.7))
    row = seen.rows(NAMES)[2]
    assert (row["class"], row["boxes"], row["n"], row["recall"]) == ("c", 2, 1, 1.0)
    assert row["ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert seen.rows(NAMES)[0] == {
        "class": "a", "ap": None, "ap50": None, "ap75": None, "recall": None, "boxes": 0, "n": 0
    }  # fmt: skip
    assert seen.ap(area="small") == 1
    assert len(AREAS) == seen.precision.shape[-1]


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ResourceError, match="faster-coco-eval") as caught:
        figures(answers([]), [Boxes.of([[0, 0, 9, 9]], [1])])
    assert caught.value.hint == 'pip install "msresnet[detect]"'


@pytest.mark.parametrize("seed", range(30))
def test_ap_by_own_matching_equals_that_of_the_library(seed: int) -> None:
    found, truths = random_set(seed)
    seen = errors(found, truths)
    assert seen.ap50 == pytest.approx(figures(found, truths).ap(0.5), abs=1e-9)
    total = sum(int((kinds != IGNORED).sum()) for kinds in seen.kinds)
    right = sum(int((kinds == RIGHT).sum()) for kinds in seen.kinds)
    assert total == right + sum(seen.counts[name] for name in KINDS)
    assert all(gain >= -1e-9 for gain in seen.gains.values())


TRUTH = Boxes.of([[0, 0, 100, 100], [200, 0, 300, 100], [400, 0, 500, 100]], [0, 1, 0], [False, False, True])
WRONG = {
    "duplicate": ([2.0, 2, 100, 100], 0.5, 0), "classification": ([200.0, 0, 300, 96], 0.5, 0),
    "localisation": ([60.0, 0, 160, 100], 0.5, 0), "both": ([260.0, 0, 360, 100], 0.5, 0),
    "background": ([0.0, 300, 50, 350], 0.5, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_one_mistake_of_each_kind(name: str) -> None:
    right = ([0.0, 0, 98, 100], 0.9, 0)
    seen = errors(answers([right, WRONG[name]]), [TRUTH])
    assert seen.counts == dict.fromkeys(KINDS, 0) | {name: 1, MISSED: int(name != "classification")}
    assert seen.kinds[0].tolist() == [RIGHT, KINDS.index(name)]
    assert seen.missed[0].tolist() == [False, name != "classification", False]
    assert seen.ap50 == pytest.approx(0.5)  # of two classes, one is found
    gains = dict.fromkeys(KINDS, 0.0) | {"classification": 0.5 * (name == "classification")}
    gains[MISSED] = 0.0 if name == "classification" else 0.5
    assert seen.gains == pytest.approx(gains)


def test_a_box_on_a_crowd_is_ignored_and_one_beside_it_is_not() -> None:
    inside = ([410.0, 10, 450, 50], 0.9, 0)  # its IoU is small, but the crowd holds all of it
    other = ([410.0, 10, 450, 50], 0.9, 1)
    assert errors(answers([inside, other]), [TRUTH]).kinds[0].tolist() == [IGNORED, KINDS.index("background")]


def mend(name: str) -> tuple[Errors, Errors]:
    """The mistakes of a set, and those of the same set with one kind of them removed by hand."""
    found, truths = random_set(5)
    before = errors(found, truths)
    kept = [kinds != KINDS.index(name) for kinds in before.kinds]
    rows = zip(found.boxes, found.scores, found.classes, kept, strict=True)
    left = answers(*([*zip(b[k].tolist(), s[k].tolist(), c[k].tolist(), strict=True)] for b, s, c, k in rows))
    return before, errors(left, truths)


@pytest.mark.parametrize("name", ["duplicate", "both", "background"])
def test_what_is_gained_is_what_a_set_without_them_has(name: str) -> None:
    before, after = mend(name)
    assert before.counts[name] > 0
    assert after.ap50 - before.ap50 == pytest.approx(before.gains[name])


def test_average_precision_by_hand() -> None:
    assert average_precision(np.array([True, False, True]), 2) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert average_precision(np.array([False, True]), 4) == pytest.approx(26 * 0.5 / 101)
    assert average_precision(np.zeros(0, np.bool_), 3) == 0

"""What a detector minimises, answers and is judged by: formulas, pycocotools' figures, and hostile outputs."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from msresnet.boxes import Boxes
from msresnet.data.augment import Augment
from msresnet.data.boxed import BoxedArrays
from msresnet.data.loaders import decode
from msresnet.data.preprocess import Preprocess
from msresnet.data.resize import frame
from msresnet.data.targets import box_rows, padded
from msresnet.errors import DataError, UsageError
from msresnet.metrics.detection import figures
from msresnet.metrics.matching import best_score
from msresnet.report.detection import precision
from msresnet.report.page import Chart, Words, short
from msresnet.report.story import Story
from msresnet.results import Detections
from msresnet.tasks.assignment import BACKGROUND, IGNORED
from msresnet.tasks.base import Learning
from msresnet.tasks.classification import ClassificationTask
from msresnet.tasks.detection import DetectionTask
from msresnet.tasks.detection_loss import detection_loss, quality_focal_loss
from msresnet.tasks.postprocess.detection import DetectionPostprocess
from msresnet.tasks.postprocess.known import read_postprocess
from msresnet.tasks.postprocess.rules import Rules
from msresnet.tasks.segmentation import SegmentationTask

NAMES = ("cup", "plate", "spoon")
SIZE, STRIDES = (48, 64), (8, 16, 32)


def answers(images: int, seed: int = 0) -> Tensor:
    """Boxes and logits (B, P, 4 + K) at the places of images of SIZE."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(-(-SIZE[0] // s) * -(-SIZE[1] // s) for s in STRIDES)
    corners = torch.rand(images, count, 2, generator=generator) * 40
    sides = torch.rand(images, count, 2, generator=generator) * 25 + 1
    logits = torch.randn(images, count, len(NAMES), generator=generator) * 2 - 2
    return torch.cat([corners, corners + sides, logits], 2)


def truths(images: int, seed: int = 0, crowds: bool = True) -> list[Boxes]:
    """Boxes in images of SIZE, some of them crowds; every third image has none."""
    rng, found = np.random.default_rng(seed), []
    for index in range(images):
        count = 0 if index % 3 == 2 else int(rng.integers(1, 7))
        corners = rng.random((count, 2)) * 40
        xyxy = np.concatenate([corners, corners + 2 + rng.random((count, 2)) * 22], 1)
        crowd = (rng.random(count) < 0.2) & crowds
        found.append(Boxes.of(xyxy, rng.integers(0, len(NAMES), count), crowd))
    return found


def rows(boxes: list[Boxes]) -> Tensor:
    """Boxes as a batch has them."""
    return padded([box_rows(b, frame(SIZE, SIZE, "squash")) for b in boxes])


def task() -> DetectionTask:
    """A task that learns from images of SIZE."""
    return DetectionTask(NAMES, size=SIZE, strides=STRIDES)


def test_quality_focal_loss_is_the_papers_formula() -> None:
    logits = torch.linspace(-6, 6, 25, dtype=torch.float64)
    for quality in (0.0, 0.3, 1.0):
        p = 1 / (1 + np.exp(-logits.numpy()))
        expected = -(np.abs(quality - p) ** 2) * ((1 - quality) * np.log(1 - p) + quality * np.log(p))
        found = quality_focal_loss(logits, torch.full_like(logits, quality))
        assert found.numpy() == pytest.approx(expected, rel=1e-9)


def giou_of(a: list[float], b: list[float]) -> tuple[float, float]:
    """(IoU, GIoU) of two boxes, by arXiv 1902.09630, algorithm 1."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    union = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - shared
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared / union, shared / union - (hull - union) / hull


def test_the_loss_is_the_sum_over_places_that_learn_an_object() -> None:
    outputs, encoded = answers(2), task().encode(rows(truths(2)))
    encoded[0, :3, 0] = IGNORED
    of_classes, of_boxes, weights, count = 0.0, 0.0, 0.0, 0
    for answer, learn in zip(outputs.reshape(-1, 7).tolist(), encoded.reshape(-1, 5).tolist(), strict=True):
        if learn[0] == IGNORED:
            continue
        wanted = [0.0] * len(NAMES)
        if learn[0] >= 0:
            near, generalised = giou_of(answer[:4], learn[1:])
            wanted[int(learn[0])] = near
            sure = max(torch.tensor(answer[4:]).sigmoid().tolist())
            of_boxes, weights, count = of_boxes + sure * (1 - generalised), weights + sure, count + 1
        of_classes += float(quality_focal_loss(torch.tensor(answer[4:]), torch.tensor(wanted)).sum())
    assert count > 3
    assert detection_loss(outputs, encoded).item() == pytest.approx(
        of_classes / count + 2 * of_boxes / weights, rel=1e-4
    )


def test_gradients_are_finite_where_nothing_is_to_be_learnt_and_where_boxes_have_no_area() -> None:
    outputs = answers(3).requires_grad_()
    empty = torch.full((3, outputs.shape[1], 5), float(BACKGROUND))
    task().loss(outputs, empty).backward()
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()
    assert not outputs.grad[..., :4].any()
    assert outputs.grad[..., 4:].any()
    flat = answers(1)
    flat[..., 2:4] = flat[..., :2]
    flat.requires_grad_()
    task().loss(flat, task().encode(rows(truths(1)))).backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_the_loss_of_each_image_is_its_own() -> None:
    outputs, encoded = answers(4), task().encode(rows(truths(4)))
    each = task().loss_of_each(outputs, encoded)
    assert each.tolist() == pytest.approx(
        [task().loss(outputs[i : i + 1], encoded[i : i + 1]).item() for i in range(4)]
    )


@pytest.mark.parametrize("seed", range(6))
def test_validation_while_training_gives_cocos_figure(seed: int) -> None:
    outputs, known = answers(12, seed), truths(12, seed)
    parts = [task().validation_rows(outputs[i : i + 5], rows(known[i : i + 5])) for i in (0, 5, 10)]
    kept = torch.cat(parts)
    assert kept.shape == (12, task().row_width)
    metric, loss = task().validation_figures(kept, torch.zeros(12, dtype=torch.long)).values()
    results = task().decode(outputs, [str(i) for i in range(12)], [frame(SIZE, SIZE, "squash")] * 12)
    assert isinstance(results, Detections)
    assert metric == pytest.approx(figures(results, known).summary()["ap"], abs=1e-6)
    assert metric == pytest.approx(task().evaluate(results, known).metrics["ap"], abs=1e-6)
    assert loss == pytest.approx(task().loss_of_each(outputs, task().encode(rows(known))).mean().item(), rel=1e-5)


@pytest.mark.parametrize("pixels", [False, True])
def test_a_box_that_goes_on_beyond_the_edge_counts_while_training_too(pixels: bool) -> None:
    """Cut at the edge as answers are, but not at whole pixels, which are those of images and not of the input."""
    outputs = answers(1)
    outputs[..., 4:] = -9
    outputs[0, 0] = torch.tensor([30.4, 20.4, 99, 77, 5, -9, -9])
    outputs[0, 1] = torch.tensor([2.4, 2.4, 4.4, 4.4, 5, -9, -9])
    known = rows([Boxes.of([[30.4, 20.4, 64, 48], [2.4, 2.4, 4.4, 4.4]], [0, 0])])
    learning = DetectionTask(NAMES, Rules(pixels=pixels), size=SIZE, strides=STRIDES)
    found = learning.validation_figures(learning.validation_rows(outputs, known), torch.zeros(1))
    assert found["ap"] == pytest.approx(1)


def test_a_set_without_objects_has_no_figure_but_a_number() -> None:
    outputs, none = answers(3), [Boxes.none()] * 3
    assert task().validation_figures(task().validation_rows(outputs, rows(none)), torch.zeros(3))["ap"] == 0.0
    evaluation = task().evaluate(task().decode(outputs, list("abc")), none)  # type: ignore[arg-type]
    assert evaluation.metrics["ap"] is None
    assert "AP -" in evaluation.headline
    assert task().details(evaluation)["mistakes"]["background"] == sum(r["wrong"] for r in task().rows(evaluation))


def test_boxes_return_to_the_images_own_pixels() -> None:
    post = DetectionPostprocess(NAMES)
    for mode in ("squash", "pad"):
        for size in ((48, 64), (30, 200), (500, 111)):
            place = frame(size, SIZE, mode)
            truth = Boxes.of([[1, 2, size[1] - 3, size[0] - 1], [0, 0, 9, 12]], [2, 0])
            moved = box_rows(truth, place)
            logits = torch.full((2, 3), -9.0)
            logits[[0, 1], [2, 0]] = torch.tensor([4.0, 3.0])
            found = post(torch.cat([moved[:, 1:5], logits], 1)[None].numpy(), ["a"], [place])
            assert found.boxes[0] == pytest.approx(truth.xyxy, abs=1e-3)
            assert found.classes[0].tolist() == [2, 0]
            assert found.scores[0].tolist() == pytest.approx(torch.tensor([4.0, 3.0]).sigmoid().tolist(), rel=1e-6)


def test_answers_are_what_onnx_runtimes_suppression_leaves() -> None:
    session = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("NonMaxSuppression", ["b", "s", "m", "i", "t"], ["o"])
    kinds = [("b", 1, [1, None, 4]), ("s", 1, [1, 3, None]), ("m", 7, [1]), ("i", 1, [1]), ("t", 1, [1])]
    given = [onnx.helper.make_tensor_value_info(*kind) for kind in kinds]
    graph = onnx.helper.make_graph([node], "g", given, [onnx.helper.make_tensor_value_info("o", 7, [None, 3])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    run = session.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run
    for seed in range(10):
        outputs = answers(1, seed)
        boxes, scores = outputs[:, :, :4].numpy(), outputs[0, :, 4:].sigmoid().T[None].numpy()
        numbers = np.array([10**6]), np.array([0.6], np.float32), np.array([0.05], np.float32)
        kept = run(None, dict(zip("bsmit", (boxes, scores, *numbers), strict=True)))[0]
        expected = sorted(((scores[0, k, p], k, *boxes[0, p]) for _, k, p in kept), reverse=True)
        found = DetectionPostprocess(NAMES, Rules(most=10**6))(outputs.numpy(), ["a"])
        mine = zip(found.scores[0], found.classes[0], *found.boxes[0].T, strict=True)
        assert np.array(list(mine)) == pytest.approx(np.array(expected), rel=1e-5)


def test_boxes_beyond_the_image_are_cut_and_those_outside_are_none() -> None:
    outputs = np.array([[[-50, -50, 20, 30, 3, -9, -9], [60, 10, 90, 90, -9, 2, -9], [70, 50, 80, 60, 9, 9, 9]]])
    found = DetectionPostprocess(NAMES)(outputs.astype(np.float32), ["a"], [frame(SIZE, SIZE, "squash")])
    assert found.boxes[0].tolist() == [[0, 0, 20, 30], [60, 10, 64, 48]]
    nothing = DetectionPostprocess(NAMES)(np.full((2, 5, 7), -20, np.float32), ["a", "b"])
    assert [len(boxes) for boxes in nothing.boxes] == [0, 0]
    assert len(DetectionPostprocess(NAMES)(np.zeros((0, 5, 7), np.float32), [])) == 0


def test_answers_everywhere_are_bounded() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(1, 100_000, 2, generator=generator) * 2000
    boxes = torch.cat([corners, corners + 10, torch.full((1, 100_000, 3), 5.0)], 2)
    found = DetectionPostprocess(NAMES)(boxes.numpy(), ["a"])
    assert len(found.boxes[0]) == Rules().most


def test_rules_are_kept_and_hostile_ones_refused() -> None:
    told = DetectionTask(NAMES, Rules(0.1, 0.5, 7, 0.4, True)).to_dict()
    assert DetectionTask.from_dict(told).to_dict() == told
    again = read_postprocess(told)
    assert isinstance(again, DetectionPostprocess)
    assert again.rules == Rules(0.1, 0.5, 7, 0.4, True)
    bad = [("least", 0), ("least", "x"), ("overlap", 2), ("most", 0), ("most", 1.5), ("sure", True), ("pixels", 1)]
    for name, value in bad:
        with pytest.raises((TypeError, ValueError)):
            read_postprocess(told | {name: value})


def test_whole_pixels_are_those_of_the_image() -> None:
    """Rounded in the image, not in the network's input, which is half as large; what would be nothing stays."""
    outputs = np.array([[[1.1, 2.2, 8.3, 9.7, 3, -9, -9], [20.1, 20, 20.2, 30, -9, 2, -9], [3, 3, 9, 9.9, -9, -9, 1]]])
    outputs, half = outputs.astype(np.float32), frame((2 * SIZE[0], 2 * SIZE[1]), SIZE, "squash")
    rounding = DetectionPostprocess(NAMES, Rules(pixels=True))
    found = rounding(outputs, ["a"], [half])
    assert found.boxes[0] == pytest.approx(np.array([[2, 4, 17, 19], [40.2, 40, 40.4, 60], [6, 6, 18, 20]]))
    near = np.array([[[0.6, 0.6, 1.6, 1.6, 3, -9, -9], [1.4, 1.4, 2.4, 2.4, 2, -9, -9]]], np.float32)
    assert rounding(near, ["a"], [frame(SIZE, SIZE, "squash")]).boxes[0].tolist() == [[1, 1, 2, 2]]
    for same in (rounding(outputs, ["a"]), DetectionPostprocess(NAMES)(outputs, ["a"])):
        assert same.boxes[0].tolist() == outputs[0, [0, 1, 2], :4].tolist()


@pytest.mark.parametrize(
    ("boxes", "whole"),
    [
        ([[[1, 2, 8, 9]], []], True),
        ([[[1, 2, 8, 9]], [[3, 3, 9.004, 10]]], True),
        ([[[1, 2, 8, 9]], [[3, 3, 9.5, 10]]], False),
        ([[], []], False),
    ],
)
def test_answers_are_whole_pixels_where_all_that_is_learnt_is(boxes: list[list[Any]], whole: bool) -> None:
    given = [Boxes.of(b, [0] * len(b)) if b else Boxes.none() for b in boxes]
    source = BoxedArrays(np.zeros((2, 1, 32, 32), np.uint8), given, NAMES, "x")
    data = decode(source, Preprocess((16, 16), 1, whole=True), 0)
    learnt = DetectionTask.learning(NAMES, data, Learning(strides=STRIDES))
    assert learnt.rules == Rules(pixels=whole)


def test_people_see_what_is_sure_and_a_set_says_from_which_score_on() -> None:
    truth = [Boxes.of([[0, 0, 10, 10], [20, 20, 30, 30]], [0, 1])]
    scores = np.array([0.9, 0.6, 0.4, 0.2], np.float32)
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [40, 0, 50, 10], [40, 30, 50, 40]], np.float32)
    found = Detections(("a",), NAMES, (boxes,), (scores,), (np.array([0, 1, 2, 2]),))
    assert best_score(found, truth) == pytest.approx(0.6)
    chosen = DetectionTask(NAMES, Rules(sure=0.5), size=SIZE, strides=STRIDES)
    evaluation = chosen.evaluate(found, truth)
    for sure, count in ((0.0, 4), (0.3, 3), (0.6, 2), (1.0, 0)):
        shown = DetectionPostprocess(NAMES, Rules(sure=sure)).shown(found)
        assert isinstance(shown, Detections)
        assert [len(boxes) for boxes in shown.boxes] == [count]
    assert chosen.rows(evaluation) == [{"id": "a", "objects": 2, "found": 2, "missed": 0, "wrong": 0}]
    # What counts is what the model shows, whatever would have been best for the images that are measured.
    lower = task()
    assert lower.rows(lower.evaluate(found, truth)) == [{"id": "a", "objects": 2, "found": 2, "missed": 0, "wrong": 1}]
    pictures = chosen.pictures(np.zeros((1, 48, 64), np.uint8), evaluation, 0)
    assert [caption for caption, _ in pictures] == ["truth", "answer"]
    assert (pictures[0][1] == pictures[1][1]).all()
    assert pictures[0][1][:, 0, 0].any()
    assert not pictures[0][1][:, 5, 5].any()


@pytest.mark.parametrize("sure", [0.0, 0.05, 0.3, 0.7, 0.999, 1.0])
def test_looking_only_for_what_people_are_shown_finds_the_same(sure: float) -> None:
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 40, (3, 300, 2))
    sides, logits = generator.uniform(4, 16, (3, 300, 2)), generator.normal(-1, 3, (3, 300, 3))
    at = math.log(sure / (1 - sure)) if 0 < sure < 1 else 0.0
    logits[:, :20] = at + generator.normal(0, 1e-6, (3, 20, 3))  # where rounding decides
    outputs = np.concatenate([corners, corners + sides, logits], -1).astype(np.float32)
    whole = DetectionPostprocess(NAMES, Rules(sure=sure, most=1000))
    fast = whole.for_people()
    expected, found = (one.shown(one(outputs, ["a", "b", "c"])) for one in (whole, fast))
    assert found.to_dict() == expected.to_dict()
    few, many = (sum(row["count"] for row in one(outputs, ["a", "b", "c"]).to_dict()) for one in (fast, whole))
    assert few < many or sure <= whole.rules.least


@pytest.mark.parametrize(
    ("preprocess", "augment", "how", "message"),
    [
        (Preprocess((8, 8), 1, resize="crop"), Augment(), Learning(), "whole image"),
        (Preprocess((8, 8), 1), Augment(mixup=0.2), Learning(), "--mosaic"),
        (Preprocess((8, 8), 1), Augment(cutmix=0.2), Learning(), "--mosaic"),
        (Preprocess((8, 8), 1), Augment(erase=0.2), Learning(), "--mosaic"),
        (Preprocess((8, 8), 1), Augment(elastic=0.1), Learning(), "--mosaic"),
        (Preprocess((8, 8), 1), Augment(), Learning(draw=True), "several classes"),
        (Preprocess((8, 8), 1), Augment(), Learning(weigh=True), "several classes"),
        (Preprocess((8, 8), 1), Augment(), Learning(dice=0.5), "dice"),
        (Preprocess((8, 8), 1), Augment(), Learning(label_smoothing=0.1), "label-smoothing"),
    ],
)
def test_what_boxes_cannot_be_learnt_with(
    preprocess: Preprocess, augment: Augment, how: Learning, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        DetectionTask.check(preprocess, augment, how)
    assert message in f"{caught.value.what} {caught.value.why} {caught.value.hint}"
    for other in (ClassificationTask, SegmentationTask):
        with pytest.raises(UsageError, match="no boxes"):
            other.check(Preprocess((8, 8), 1), Augment(mosaic=0.5), Learning())


def test_boxes_follow_images_to_the_networks_input_and_to_other_sizes() -> None:
    image = np.zeros((1, 40, 20), np.uint8)
    image[:, 10:20, 4:8] = 255
    source = BoxedArrays([image], [Boxes.of([[4, 10, 8, 20]], [1])], NAMES)
    for mode in ("squash", "pad"):
        data = decode(source, Preprocess((20, 30), 1, resize=mode, whole=True))
        batch = data.batch(torch.tensor([0]), torch.device("cpu"))
        inked = batch.images[0, 0] > 128
        rows_, columns = inked.any(1).nonzero()[:, 0], inked.any(0).nonzero()[:, 0]
        seen = [int(columns[0]), int(rows_[0]), int(columns[-1]) + 1, int(rows_[-1]) + 1]
        assert batch.targets[0, 0, 1:5].tolist() == pytest.approx(seen, abs=0.51)
    learning = DetectionTask.learning(NAMES, data, Learning(strides=(4,)))
    assert learning.size == (20, 30)
    larger = learning.resized(batch.targets, (40, 90))
    assert larger[0, 0, [0, 5]].tolist() == batch.targets[0, 0, [0, 5]].tolist()
    factors = torch.tensor([3.0, 2.0, 3.0, 2.0])
    assert torch.allclose(larger[0, 0, 1:5], batch.targets[0, 0, 1:5] * factors)


def test_a_learning_step_lowers_scores_where_nothing_is() -> None:
    outputs, encoded = answers(1).requires_grad_(), task().encode(rows(truths(1, 4, crowds=False)))
    (gradient,) = torch.autograd.grad(task().loss(outputs, encoded), outputs)
    learns = encoded[0, :, 0] >= 0
    assert learns.any()
    assert (gradient[0, ~learns][:, 4:] > 0).all()
    assert not gradient[0, ~learns][:, :4].any()


@pytest.mark.parametrize("found", [0.0, 0.5, 1.0])
def test_the_report_tells_of_models_of_any_strength(found: float) -> None:
    known = truths(9, 3, crowds=False)
    boxes = [truth.xyxy if index < 9 * found else np.zeros((0, 4), np.float32) for index, truth in enumerate(known)]
    classes = [truth.classes[: len(part)] for truth, part in zip(known, boxes, strict=True)]
    scores = tuple(np.full(len(part), 0.9, np.float32) for part in boxes)
    results = Detections(tuple("abcdefghi"), NAMES, tuple(boxes), scores, tuple(classes))
    evaluation = task().evaluate(results, known)
    bundle: Any = SimpleNamespace(task=task())
    section = precision(Story(bundle, evaluation, None, [], [], {}, ""))  # type: ignore[arg-type]
    assert section is not None
    assert isinstance(section.parts[1], Chart)
    words = section.parts[1].words
    assert ("under a half" in words) == (found == 0)
    assert ("100.00" in words) == (found == 1)


@pytest.mark.parametrize("count", [1, 5, 6, 30])
def test_the_curves_say_whose_they_are_whatever_classes_are_called(count: int) -> None:
    nasty = ("$\\frac{$", "_hidden", "5$ to 10$", "a" * 300, "<b>&\n\x07")
    names = tuple(f"{nasty[index % 5]}{index // 5}" for index in range(count))
    boxes = np.array([[0, 0, 9, 9], [20, 20, 30, 30]] * count, np.float32)
    scores, classes = np.full(2 * count, 0.9, np.float32), np.arange(count).repeat(2)
    moved = boxes.copy()
    moved[-1] += 15  # the last class is the worst
    task = DetectionTask(names)
    found = Detections(("x",), names, (moved,), (scores,), (classes,))
    evaluation = task.evaluate(found, [Boxes.of(boxes, classes)])
    bundle: Any = SimpleNamespace(task=task)
    section = precision(Story(bundle, evaluation, None, [], [], {}, ""))  # type: ignore[arg-type]
    assert section is not None
    told, drawn = section.parts
    assert isinstance(told, Words)
    assert isinstance(drawn, Chart)
    named = [name in drawn.drawing for name in ("frac{$0", "_hidden0", "5$ to 10$0", "a" * 23 + "…", "x07")]
    assert named == ([True] * count + [False] * 5)[:5] if count <= 5 else not any(named[:-1])
    assert ("orange" in told.text) == (count > 5)
    assert (f"lowest AP50 is {short(names[-1])}." in drawn.words) == (count > 1)


def test_calibrating_shows_boxes_from_where_precision_and_recall_are_best() -> None:
    """By hand: the two sure boxes are right, the third is not; F1 is highest with two."""
    boxes = np.array([[0, 0, 9, 9], [20, 20, 30, 30], [40, 0, 50, 9]], np.float32)
    scores, classes = np.array([0.9, 0.60006, 0.4], np.float32), np.zeros(3, np.int64)
    found = Detections(("x",), NAMES, (boxes,), (scores,), (classes,))
    truth = [Boxes.of(boxes[:2], [0, 0])]
    task = DetectionTask(NAMES, Rules(sure=0.3))
    fitted, figures = task.calibrated(task.evaluate(found, truth))
    assert figures == {"n": 1, "score": [0.3, pytest.approx(0.6)]}
    assert fitted.rules.sure == pytest.approx(0.6)
    shown = fitted.postprocess.shown(found)
    assert isinstance(shown, Detections)
    assert len(shown.boxes[0]) == 2
    with pytest.raises(DataError, match="no score fits"):
        task.calibrated(task.evaluate(found, [Boxes.of([[60, 60, 70, 70]], [0])]))

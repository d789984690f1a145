"""Boxes: arithmetic holds its properties, arrays and tensors agree, and NMS answers as ONNX Runtime's does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper

from msresnet import box_tensors, boxes
from msresnet.boxes import Boxes

Floats = npt.NDArray[np.float32]


def corners(count: int, seed: int, grid: int = 1, side: int = 40) -> Floats:
    """Boxes (M, 4) whose corners lie on a grid, so that many are equal, touch, or have no area."""
    points = np.random.default_rng(seed).integers(0, side * grid + 1, (count, 2, 2)) / grid
    return np.concatenate([points.min(1), points.max(1)], 1).astype(np.float32)


numbers = st.floats(-1e4, 1e4, width=32)
box_arrays = arrays(np.float32, st.tuples(st.integers(0, 8), st.just(4)), elements=numbers).map(
    lambda b: np.concatenate([np.minimum(b[:, :2], b[:, 2:]), np.maximum(b[:, :2], b[:, 2:])], 1)
)


@given(box_arrays, box_arrays)
def test_iou_is_a_symmetric_share(some: Floats, others: Floats) -> None:
    found = boxes.iou(some, others)
    assert found.shape == (len(some), len(others))
    assert ((found >= 0) & (found <= 1 + 1e-6)).all()
    assert np.array_equal(found, boxes.iou(others, some).T)
    own = np.diagonal(boxes.iou(some, some))
    assert np.allclose(own[boxes.areas(some) > 1e-3], 1)


@pytest.mark.parametrize("seed", range(20))
def test_iou_counts_pixels(seed: int) -> None:
    some = corners(12, seed, side=12)
    painted = np.zeros((12, 12, 12), bool)
    for picture, (left, top, right, bottom) in zip(painted, some.astype(int), strict=True):
        picture[top:bottom, left:right] = True
    flat = painted.reshape(12, -1).astype(float)
    shared = flat @ flat.T
    union = flat.sum(1)[:, None] + flat.sum(1) - shared
    assert np.allclose(boxes.iou(some, some), shared / np.maximum(union, 1))
    assert np.array_equal(boxes.areas(some), flat.sum(1))


@given(box_arrays, st.tuples(numbers, numbers), st.sampled_from([0.5, 1.0, 2.0, 4.0]))
def test_moving_and_scaling_both_leave_the_overlap(some: Floats, offset: tuple[float, float], factor: float) -> None:
    whole = np.round(some / 16)  # exact in float32
    far = (float(round(offset[0])), float(round(offset[1])))
    moved = boxes.scale(boxes.shift(whole, far), (factor, factor))
    assert np.allclose(boxes.iou(moved, moved), boxes.iou(whole, whole), atol=1e-6)
    assert np.array_equal(boxes.shift(boxes.shift(whole, far), (-far[0], -far[1])), whole)


@given(box_arrays)
def test_forms_lead_back(some: Floats) -> None:
    assert np.allclose(boxes.from_xywh(boxes.to_xywh(some)), some, rtol=1e-6, atol=2e-3)
    assert boxes.to_xywh(np.array([[1, 2, 4, 8]], np.float32)).tolist() == [[1, 2, 3, 6]]


@given(box_arrays, st.integers(1, 500), st.integers(1, 500))
def test_clipping_is_the_intersection_with_the_image(some: Floats, height: int, width: int) -> None:
    inside = boxes.clip(some, (height, width))
    assert boxes.is_xyxy(inside)
    assert (inside[:, [0, 2]] <= width).all()
    assert (inside[:, [1, 3]] <= height).all()
    assert np.array_equal(boxes.clip(inside, (height, width)), inside)
    image = np.array([[0, 0, width, height]], np.float32)
    union = boxes.areas(some) + boxes.areas(image) - boxes.areas(inside)
    expected = boxes.areas(inside) / union
    assert np.allclose(boxes.iou(some, image)[:, 0], expected, rtol=1e-5)


SPECK = np.array([[7.09696e-29, 0, 1, 7.09696e-29]], np.float32)
"""A box that is almost a line."""
THINNEST = np.array([[0, 0, 1, 7e-45]], np.float32)
"""A box whose area is less than the least normal number."""


@given(box_arrays, box_arrays)
@example(SPECK, SPECK)
@example(THINNEST, THINNEST)
def test_tensors_agree_with_arrays(some: Floats, others: Floats) -> None:
    tensor, other = torch.from_numpy(some), torch.from_numpy(others)
    assert np.allclose(box_tensors.pairwise_iou(tensor, other), boxes.iou(some, others), atol=1e-6)
    assert np.array_equal(box_tensors.areas(tensor), boxes.areas(some))
    assert np.array_equal(box_tensors.scale(tensor, (0.5, 3.0)), boxes.scale(some, (0.5, 3.0)))


def test_giou_by_hand() -> None:
    one = torch.tensor([[0.0, 0, 2, 2]])
    others = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [4, 0, 6, 2], [0, 0, 0, 0]])
    # The hull of the second pair is 3x3 of which 7 are covered; of the third 6x2 of which 8 are.
    expected = torch.tensor([1.0, 1 / 7 - 2 / 9, -4 / 12, 0.0])
    assert torch.allclose(box_tensors.giou(one.expand(4, 4), others), expected)


@given(box_arrays)
def test_giou_lies_below_iou_and_pulls_boxes_together(some: Floats) -> None:
    first, second = torch.from_numpy(some), torch.from_numpy(some[::-1].copy())
    found = box_tensors.giou(first, second)
    assert (found <= box_tensors.iou(first, second) + 1e-5).all()
    assert (found >= -1 - 1e-5).all()
    apart = torch.tensor([[0.0, 0, 2, 2]], requires_grad=True)
    box_tensors.giou(apart, torch.tensor([[5.0, 0, 7, 2]])).sum().backward()  # no overlap, yet a way
    assert apart.grad is not None
    assert apart.grad[0, 2] > 0


def runtime(most: int = 10_000) -> Any:
    """ONNX Runtime's NonMaxSuppression: boxes (1, M, 4), scores (1, K, M), a threshold -> (S, 3)."""
    inputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, None, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, None, None]),
        helper.make_tensor_value_info("iou", TensorProto.FLOAT, [1]),
    ]
    output = helper.make_tensor_value_info("kept", TensorProto.INT64, [None, 3])
    limit = helper.make_tensor("most", TensorProto.INT64, [1], [most])
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou"], ["kept"])
    graph = helper.make_graph([node], "nms", inputs, [output], [limit])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def compare_with(session: Any, seed: int) -> None:
    """One random set of boxes, with ties, equal boxes and some without an area, through both."""
    random = np.random.default_rng(seed)
    count, kinds = int(random.integers(0, 60)), int(random.integers(1, 4))
    some = corners(count, seed, grid=int(random.choice([1, 3, 1000])), side=int(random.choice([4, 12, 40])))
    levels = int(random.choice([2, 10, 10**6]))
    scores = (random.integers(0, levels, count) / levels).astype(np.float32)
    classes = random.integers(0, kinds, count)
    threshold = float(random.choice([0, 0.25, 0.5, 0.6, 1.0, random.random()]))
    by_class = np.where(classes == np.arange(kinds)[:, None], scores, -1).astype(np.float32)
    feed = {"boxes": some[None, :, [1, 0, 3, 2]], "scores": by_class[None], "iou": np.array([threshold], np.float32)}
    kept = session.run(None, feed)[0]
    own = kept[classes[kept[:, 2]] == kept[:, 1], 2]  # where a box has no score it is not of the class
    expected = sorted(own.tolist(), key=lambda i: (-scores[i], i))
    assert boxes.nms(some, scores, classes, threshold).tolist() == expected
    assert boxes.nms(some, scores, classes, threshold, 3).tolist() == expected[:3]


def test_nms_equals_onnx_runtime() -> None:
    session = runtime()
    for seed in range(500):
        compare_with(session, seed)


@pytest.mark.slow
def test_nms_equals_onnx_runtime_on_10_000_sets() -> None:
    session = runtime()
    for seed in range(500, 10_500):
        compare_with(session, seed)


def test_nms_of_ten_thousand_boxes() -> None:
    scores = np.random.default_rng(1).random(10_000).astype(np.float32)
    same = np.tile(np.array([0, 0, 9, 9], np.float32), (10_000, 1))
    assert boxes.nms(same, scores, np.zeros(10_000, np.int64), 0.5).tolist() == [int(scores.argmax())]
    some, classes = corners(10_000, 0, grid=8, side=400), np.arange(10_000) % 2
    assert 3_000 < len(boxes.nms(some, scores, classes, 0.6)) < 6_000


def test_objects_of_an_image() -> None:
    some = Boxes.of([[1, 2, 3, 4], [0, 0, 9, 9]], [3, 0], [False, True])
    assert len(some) == 2
    assert some.chosen(np.array([False, True])).classes.tolist() == [0]
    assert Boxes.joined([some, Boxes.none(), some]).crowd.tolist() == [False, True, False, True]
    assert len(Boxes.joined([])) == 0
    assert some.renumbered(np.array([5, 6, 7, 8])).classes.tolist() == [8, 5]
    assert some.moved(boxes.shift(some.xyxy, (1, 2))).xyxy.tolist() == [[3, 3, 5, 5], [2, 1, 11, 10]]


@pytest.mark.parametrize(
    ("xyxy", "classes", "crowd", "words"),
    [
        (np.zeros((2, 4), np.float32), np.zeros(1, np.int64), np.zeros(1, bool), "shapes"),
        (np.zeros((1, 5), np.float32), np.zeros(1, np.int64), np.zeros(1, bool), "shapes"),
        (np.zeros((1, 4)), np.zeros(1, np.int64), np.zeros(1, bool), "float64"),
        (np.array([[3, 0, 2, 1]], np.float32), np.zeros(1, np.int64), np.zeros(1, bool), "x1 <= x2"),
        (np.array([[np.nan, 0, 2, 1]], np.float32), np.zeros(1, np.int64), np.zeros(1, bool), "finite"),
        (np.zeros((1, 4), np.float32), np.array([-1]), np.zeros(1, bool), "class -1"),
    ],
)
def test_what_is_no_box(xyxy: Any, classes: Any, crowd: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Boxes(xyxy, classes, crowd)

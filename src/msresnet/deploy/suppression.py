"""A detector's ONNX file with non-maximum suppression inside, for programs that have none of their own.

B images, P places, K classes, M boxes of all images together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from msresnet.boxes import iou
from msresnet.data.resize import Frame
from msresnet.deploy.agreement import Ready
from msresnet.errors import ModelError, UsageError
from msresnet.infer.backend import INPUT, OUTPUT
from msresnet.infer.predictor import Predictor
from msresnet.results import Detections
from msresnet.tasks.postprocess.base import Postprocess
from msresnet.tasks.postprocess.rules import Rules

if TYPE_CHECKING:
    from onnx import ModelProto

FILE = "detections.onnx"
ANSWERS = ("boxes", "scores", "classes", "image")
SAME, SHARE = 0.99, 0.99
"""Overlap from which boxes are the same, and the share of them that has to be: ties may fall otherwise."""


def rules_of(post: Postprocess, form: str) -> Rules:
    """What is to be suppressed. Raises UsageError where there is nothing, or no form to write it in."""
    if post.rules is None:
        why = f"it is for boxes, and the model's task is {post.task}"
        raise UsageError("--nms has no effect here", why=why, hint="leave it out")
    if form != "onnx":
        raise UsageError(f"--nms with --format {form}", why="it is written in ONNX", hint="--format onnx")
    return post.rules


def suppressed(proto: ModelProto, names: Sequence[str], rules: Rules) -> ModelProto:
    """The network with its boxes sorted out: `images` (B, C, H, W) uint8 -> what `ANSWERS` names, of M boxes.

    `boxes` (M, 4) float32 xyxy in pixels of the input, within it; `scores` (M,) float32; `classes` (M,) int64 and
    `image` (M,) int64, which of the B a box is of. Of each image and class the surest come first, at most `rules.most`,
    from the score `rules.least` on. The classes' `names` are the file's metadata of that name.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    found, kinds = onnx.ModelProto(), len(names)
    found.CopyFrom(proto)
    graph = found.graph
    constants: dict[str, Any] = {
        "zero": np.array(0, np.float32),
        "from_0": np.array([0]),
        "to_4": np.array([4]),
        "to_end": np.array([4 + kinds]),
        "last": np.array([-1]),
        "sides": np.array([3, 2, 3, 2]),
        "of_image": np.array([0, 2]),
        "of_class": np.array([1]),
        "first": np.array([0]),
        "flat": np.array([-1]),
        "most": np.array([rules.most]),
        "overlap": np.array([rules.overlap], np.float32),
        "least": np.array([rules.least], np.float32),
    }
    own = {name: f"nms_{name}" for name in constants}
    graph.initializer.extend(numpy_helper.from_array(value, own[name]) for name, value in constants.items())

    def add(kind: str, given: Sequence[str], answer: str, **more: Any) -> None:
        graph.node.append(helper.make_node(kind, [own.get(name, name) for name in given], [answer], **more))

    # What lies beyond the input's edges is cut off before boxes are compared, as `predict` does.
    add("Shape", [INPUT], "nms_shape")
    add("Gather", ["nms_shape", "sides"], "nms_most_sides")
    add("Cast", ["nms_most_sides"], "nms_edges", to=TensorProto.FLOAT)
    add("Slice", [OUTPUT, "from_0", "to_4", "last"], "nms_raw")
    add("Max", ["nms_raw", "zero"], "nms_begun")
    add("Min", ["nms_begun", "nms_edges"], "nms_boxes")
    add("Slice", [OUTPUT, "to_4", "to_end", "last"], "nms_logits")
    add("Sigmoid", ["nms_logits"], "nms_by_place")
    add("Transpose", ["nms_by_place"], "nms_scores", perm=[0, 2, 1])
    add("NonMaxSuppression", ["nms_boxes", "nms_scores", "most", "overlap", "least"], "nms_kept")
    add("Gather", ["nms_kept", "of_image"], "nms_places", axis=1)
    add("GatherND", ["nms_boxes", "nms_places"], ANSWERS[0])
    add("GatherND", ["nms_scores", "nms_kept"], ANSWERS[1])
    for column, answer in (("of_class", ANSWERS[2]), ("first", ANSWERS[3])):
        add("Gather", ["nms_kept", column], f"nms_{answer}", axis=1)
        add("Reshape", [f"nms_{answer}", "flat"], answer)
    del graph.output[:]
    shapes: list[tuple[int, list[Any]]] = [(TensorProto.FLOAT, ["M", 4]), (TensorProto.FLOAT, ["M"])]
    shapes += 2 * [(TensorProto.INT64, ["M"])]
    graph.output.extend(helper.make_tensor_value_info(n, *shape) for n, shape in zip(ANSWERS, shapes, strict=True))
    del found.metadata_props[:]  # it is not a model for `predict`, whose suppression would come on top
    helper.set_model_props(found, {"names": json.dumps(list(names))})
    onnx.checker.check_model(found)
    return found


def check_answers(file: Path, original: Predictor, images: Ready) -> None:
    """Ask the file by ONNX Runtime about images (N, C, H, W) uint8.

    Raises ModelError where it has less than `SHARE` of the original's boxes.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    post, size = original.trained.postprocess.unrounded(), (images.shape[2], images.shape[3])
    hits = theirs = ours = 0
    for start in range(0, len(images), original.batch_size):
        part = images[start : start + original.batch_size]
        boxes, scores, classes, image = session.run(list(ANSWERS), {INPUT: part})
        places = [Frame(size, 0, 0, size)] * len(part)
        expected = cast(Detections, post(original.backend(part)[0], [""] * len(part), places))
        for index in range(len(part)):
            mine = image == index
            chosen = np.flatnonzero(mine)[np.argsort(-scores[mine], kind="stable")][: len(expected.scores[index])]
            shared = iou(expected.boxes[index].astype(np.float64), boxes[chosen].astype(np.float64))
            alike = (shared >= SAME) & (expected.classes[index][:, None] == classes[chosen][None])
            hits += int(alike.any(1).sum())
            theirs, ours = theirs + len(chosen), ours + len(expected.scores[index])
    share = hits / ours if ours else 1.0
    if share < SHARE or theirs < SHARE * ours:
        why = f"{hits:,} of {ours:,} boxes are in both"
        raise ModelError("the file with suppression inside answers otherwise", why=why, hint="leave --nms out")

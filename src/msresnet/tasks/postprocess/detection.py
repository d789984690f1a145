"""The objects in an image: boxes that speak loudest for a class, and none that another covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from msresnet.boxes import areas, clip, nms
from msresnet.data.resize import Frame
from msresnet.errors import UsageError
from msresnet.results import Detections, Results
from msresnet.tasks.postprocess.base import Outputs, Postprocess, names_of
from msresnet.tasks.postprocess.rules import Rules
from msresnet.tasks.tiling.boxes import BoxMerge
from msresnet.tasks.tiling.grid import Grid

MOST_LOOKED_AT = 1000
"""Boxes of an image, the surest, that take part: FCOS's."""
LOWEST = 1e-3
"""Every place of an image answers with some score; below this they are all the same."""
ROUNDING = 1e-6
"""Between a score and the logit that it comes from."""
Floats = npt.NDArray[np.float32]


class DetectionPostprocess(Postprocess):
    """Sigmoid over K classes at each place, then non-maximum suppression for each class.

    Args:
        class_names: in the order of the class indices.
        rules: which boxes are answers.
        looked_at: boxes of an image, the surest, that take part.
    """

    task: ClassVar[str] = "detection"
    columns: ClassVar[tuple[str, ...]] = ("count", "detections")
    whole: ClassVar[bool] = True
    rules: Rules

    def __init__(self, class_names: Sequence[str], rules: Rules | None = None, looked_at: int = MOST_LOOKED_AT) -> None:
        super().__init__(class_names)
        self.rules, self.looked_at = rules or Rules(), looked_at

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From what the task wrote."""
        return cls(names_of(values), Rules.from_dict(values))

    @property
    def meaning(self) -> str:
        """Boxes and logits of each place, and which of them are answers."""
        columns, rules = f"(N, P, {4 + len(self.class_names)} or more)", self.rules
        return (
            f"Outputs {columns} hold, for each of P places, a box (left, top, right, bottom) in pixels of the input, "
            f"then {len(self.class_names)} logits, whose sigmoids are the scores. Answers are the boxes from a score "
            f"of {rules.sure:g} on, without those that a surer one of their class overlaps by more than "
            f"{rules.overlap:g} (intersection over union), {rules.most} at most."
        )

    def shown(self, results: Results) -> Results:
        """The answers that are sure enough."""
        assert isinstance(results, Detections)
        return results.above(self.rules.sure)

    def for_people(self) -> Self:
        """The same, without looking at boxes that are too unsure: those never remove surer ones."""
        least = min(max(self.rules.least, self.rules.sure - ROUNDING), 1 - ROUNDING)
        return type(self)(self.class_names, replace(self.rules, least=least), self.looked_at)

    def from_score(self, score: float) -> Self:
        """The same, its answers for people beginning at a score. Raises UsageError for one that is not 0 to 1."""
        if not 0 <= score <= 1:
            raise UsageError(f"--score {score:g}", why="scores are 0 to 1", hint="--score 0.3")
        rules = replace(self.rules, sure=score, least=min(self.rules.least, max(score, LOWEST)))
        return type(self)(self.class_names, rules, self.looked_at)

    def unrounded(self) -> Self:
        """The same, without whole pixels."""
        return type(self)(self.class_names, replace(self.rules, pixels=False), self.looked_at)

    def merge(self, grid: Grid, whole: str) -> BoxMerge:
        """Boxes are collected, each object once."""
        return BoxMerge(grid, self.class_names, self.rules.overlap, self.rules.sure)

    def __call__(self, outputs: Outputs, ids: Sequence[str], frames: Sequence[Frame] | None = None) -> Detections:
        """Boxes, logits and perhaps vectors (N, P, 4 + K + E) -> boxes in the images' own pixels.

        None lies beyond the images' edges; vectors become appearances.
        """
        found = [
            self._of_image(answer, None if frames is None else frames[index]) for index, answer in enumerate(outputs)
        ]
        boxes, scores, classes, looks = (tuple(c) for c in zip(*found, strict=True)) if found else ((), (), (), ())
        known = outputs.shape[-1] > 4 + len(self.class_names)
        return Detections(tuple(ids), self.class_names, boxes, scores, classes, looks if known else None)

    def _of_image(self, answer: Outputs, frame: Frame | None) -> tuple[Floats, Floats, npt.NDArray[np.int64], Floats]:
        """(P, 4 + K + E) -> boxes (M, 4), scores (M,), classes (M,) and vectors (M, E), by falling score."""
        end = 4 + len(self.class_names)
        logits = np.asarray(answer[:, 4:end], np.float32)
        places, classes = np.nonzero(logits >= math.log(self.rules.least / (1 - self.rules.least)))
        there = logits[places, classes]
        surest = np.argsort(-there, kind="stable")[: self.looked_at]
        places, classes = places[surest], classes[surest].astype(np.int64)
        scores = (1 / (1 + np.exp(-there[surest]))).astype(np.float32)
        boxes = in_image(np.asarray(answer[places, :4], np.float32), frame)
        if self.rules.pixels and frame is not None:
            boxes = at_whole_pixels(boxes)
        seen = areas(boxes) > 0
        places, boxes, scores, classes = places[seen], boxes[seen], scores[seen], classes[seen]
        stays = nms(boxes, scores, classes, self.rules.overlap, self.rules.most)
        looks = np.asarray(answer[places[stays], end:], np.float32)
        return boxes[stays], scores[stays], classes[stays], looks


def at_whole_pixels(boxes: Floats) -> Floats:
    """Boxes (M, 4) at the nearest whole pixels; those that would be nothing there stay as they are."""
    near = np.rint(boxes)
    return np.where((areas(near) > 0)[:, None], near, boxes)


def in_image(boxes: Floats, frame: Frame | None) -> Floats:
    """Boxes (M, 4) in the network's input -> in the image's own pixels, cut at its edges; as they are without one."""
    if frame is None:
        return boxes
    offset = np.array([frame.left, frame.top] * 2, np.float32)
    down, across = (whole / inner for whole, inner in zip(frame.size, frame.inner, strict=True))
    moved = (boxes - offset) * np.array([across, down] * 2, np.float32)
    return clip(moved, frame.size)

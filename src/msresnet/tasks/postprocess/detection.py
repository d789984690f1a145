"""The objects in an image: boxes that speak loudest for a class, and none that another covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from msresnet.boxes import areas, clip, nms
from msresnet.data.resize import Frame
from msresnet.results import Detections
from msresnet.tasks.postprocess.base import Outputs, Postprocess, names_of

LEAST, OVERLAP = 0.05, 0.6
"""The lowest score that is looked at, and the intersection over union above which a box covers another: FCOS's."""
MOST_LOOKED_AT, MOST = 1000, 100
"""Boxes of an image that come before the others are covered, and that are left: COCO's and FCOS's."""
Floats = npt.NDArray[np.float32]


class DetectionPostprocess(Postprocess):
    """Sigmoid over K classes at each place, then non-maximum suppression for each class.

    Args:
        class_names: in the order of the class indices.
        least: the lowest score of an answer, above 0.
        overlap: intersection over union with a surer box of its class above which a box is left out.
        most: boxes of an image.
        looked_at: boxes of an image, the surest, that take part.

    Raises ValueError for numbers out of range.
    """

    task: ClassVar[str] = "detection"
    columns: ClassVar[tuple[str, ...]] = ("count", "detections")
    whole: ClassVar[bool] = True

    def __init__(
        self,
        class_names: Sequence[str],
        least: float = LEAST,
        overlap: float = OVERLAP,
        most: int = MOST,
        looked_at: int = MOST_LOOKED_AT,
    ) -> None:
        super().__init__(class_names)
        if not 0 < least < 1 or not 0 <= overlap <= 1 or most < 1 or looked_at < 1:
            raise ValueError(f"scores from {least}, overlaps up to {overlap}, {most} of {looked_at} boxes")
        self.least, self.overlap, self.most, self.looked_at = least, overlap, most, looked_at

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From what the task wrote."""
        numbers = {key: values[key] for key in ("least", "overlap", "most") if key in values}
        for key, value in numbers.items():
            if isinstance(value, bool) or not isinstance(value, int if key == "most" else (int, float)):
                raise TypeError(f"{key} {value!r} is no number")
        return cls(names_of(values), **numbers)

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads, beside the class names."""
        return {"least": self.least, "overlap": self.overlap, "most": self.most}

    def __call__(self, outputs: Outputs, ids: Sequence[str], frames: Sequence[Frame] | None = None) -> Detections:
        """Boxes and logits (N, P, 4 + K) -> boxes in the images' own pixels, none beyond their edges."""
        found = [
            self._of_image(answer, None if frames is None else frames[index]) for index, answer in enumerate(outputs)
        ]
        boxes, scores, classes = (tuple(column) for column in zip(*found, strict=True)) if found else ((), (), ())
        return Detections(tuple(ids), self.class_names, boxes, scores, classes)

    def _of_image(self, answer: Outputs, frame: Frame | None) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
        """(P, 4 + K) -> boxes (M, 4), scores (M,) and classes (M,), by falling score."""
        logits = np.asarray(answer[:, 4:], np.float32)
        places, classes = np.nonzero(logits >= math.log(self.least / (1 - self.least)))
        there = logits[places, classes]
        surest = np.argsort(-there, kind="stable")[: self.looked_at]
        places, classes = places[surest], classes[surest].astype(np.int64)
        scores = (1 / (1 + np.exp(-there[surest]))).astype(np.float32)
        boxes = in_image(np.asarray(answer[places, :4], np.float32), frame)
        seen = areas(boxes) > 0
        boxes, scores, classes = boxes[seen], scores[seen], classes[seen]
        stays = nms(boxes, scores, classes, self.overlap, self.most)
        return boxes[stays], scores[stays], classes[stays]


def in_image(boxes: Floats, frame: Frame | None) -> Floats:
    """Boxes (M, 4) in the network's input -> in the image's own pixels, cut at its edges; as they are without one."""
    if frame is None:
        return boxes
    offset = np.array([frame.left, frame.top] * 2, np.float32)
    down, across = (whole / inner for whole, inner in zip(frame.size, frame.inner, strict=True))
    moved = (boxes - offset) * np.array([across, down] * 2, np.float32)
    return clip(moved, frame.size)

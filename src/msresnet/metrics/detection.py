"""How well boxes are found: average precision as COCO defines it, by faster-coco-eval.

A found box is right when its intersection over union (IoU) with a box of the truth, of its class and not yet taken, is
at least a threshold; the surest boxes choose first. Crowds count neither as found nor as missed. AP is the mean
precision over 101 recalls, over the thresholds 0.5, 0.55, ... 0.95, and over the classes that the truth holds; the 100
surest boxes of each image and class take part. Small boxes have less than 32x32 pixels, large ones more than 96x96.

N images, T thresholds, R recalls, K classes, A areas. A figure of what the truth does not hold is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.boxes import Boxes, areas, to_xywh
from msresnet.errors import ResourceError
from msresnet.results import Detections

AREAS = ("all", "small", "medium", "large")
BOUNDS = (32**2, 96**2)
"""Square pixels: below the first a box is small, above the second it is large."""
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 100
"""Boxes of a class that are looked at in an image."""
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Figures:
    """Precision and recall of some answers.

    Args:
        precision: (T, R, K, A), the highest at this recall or a greater one; NaN where the truth holds no such box.
        scores: (T, R, K, A), the score of the last box that is needed for this recall; NaN as above.
        recall: (T, K, A), the greatest that is reached; NaN as above.
        truths: how many boxes of each class are to be found (K,).
        images: how many images hold a box of each class (K,).
    """

    precision: Floats
    scores: Floats
    recall: Floats
    truths: Ints
    images: Ints

    def per_class(self, threshold: float | None = None, area: str = "all") -> Floats:
        """AP of each class (K,), at one threshold or over all."""
        found: Floats = self.precision[_places(threshold), :, :, AREAS.index(area)].mean((0, 1))
        return found

    def ap(self, threshold: float | None = None, area: str = "all") -> float:
        """AP over all classes, at one threshold or over all."""
        return _mean(self.per_class(threshold, area))

    def ar(self, area: str = "all") -> float:
        """AR: the greatest recall, over all thresholds and classes."""
        return _mean(self.recall[:, :, AREAS.index(area)].mean(0))

    def summary(self) -> dict[str, float | None]:
        """The figures of all classes together, as plain values; None for what has none."""
        found = {"ap": self.ap(), "ap50": self.ap(0.5), "ap75": self.ap(0.75)}
        found |= {f"ap_{area}": self.ap(area=area) for area in AREAS[1:]}
        found |= {"ar": self.ar()} | {f"ar_{area}": self.ar(area) for area in AREAS[1:]}
        return {name: _plain(value) for name, value in found.items()}

    def rows(self, class_names: Sequence[str]) -> list[dict[str, Any]]:
        """Plain values for each class: AP, AP at 0.5 and 0.75, recall, boxes and images of the truth."""
        columns = {"ap": self.per_class(), "ap50": self.per_class(0.5), "ap75": self.per_class(0.75)}
        columns["recall"] = self.recall[0, :, 0]
        return [
            {
                "class": name,
                **{key: _plain(values[index]) for key, values in columns.items()},
                "boxes": int(self.truths[index]),
                "n": int(self.images[index]),
            }
            for index, name in enumerate(class_names)
        ]

    def curve(self, index: int) -> tuple[Floats, Floats]:
        """Of a class at a threshold of 0.5, precision (R,) at each of RECALLS, and the last box's score (R,)."""
        return self.precision[0, :, index, 0], self.scores[0, :, index, 0]


def figures(found: Detections, truths: Sequence[Boxes]) -> Figures:
    """What some answers are worth, by the boxes of each image's truth. Raises ResourceError without the extra."""
    precision, scores, recall = _evaluated(found, truths)
    of_images = [np.unique(t.classes[~t.crowd]) for t in truths]
    whole, classes = Boxes.joined(truths), len(found.class_names)
    return Figures(
        precision,
        scores,
        recall,
        np.bincount(whole.classes[~whole.crowd], minlength=classes).astype(np.int64),
        np.bincount(np.concatenate([np.zeros(0, np.int64), *of_images]), minlength=classes).astype(np.int64),
    )


def _evaluated(found: Detections, truths: Sequence[Boxes]) -> tuple[Floats, Floats, Floats]:
    """Precision, scores (T, R, K, A) and recall (T, K, A) from the library."""
    coco, evaluator = _library()
    classes = len(found.class_names)
    shape = (len(THRESHOLDS), len(RECALLS), classes, len(AREAS))
    if not any((~truth.crowd).any() for truth in truths):
        return np.full(shape, np.nan), np.full(shape, np.nan), np.full((shape[0], *shape[2:]), np.nan)
    truth = coco(_dataset([(t.xyxy, t.classes, {"iscrowd": t.crowd}) for t in truths], classes))
    answers = zip(found.boxes, found.classes, found.scores, strict=True)
    answer = coco(_dataset([(boxes, kinds, {"score": scores}) for boxes, kinds, scores in answers], classes))
    judge = evaluator(truth, answer, iouType="bbox")
    judge.params.iouThrs, judge.params.recThrs, judge.params.maxDets = THRESHOLDS, RECALLS, [MOST]
    judge.params.areaRng = [[0, 1e10], [0, BOUNDS[0]], list(BOUNDS), [BOUNDS[1], 1e10]]
    judge.params.areaRngLbl = list(AREAS)
    judge.evaluate()
    judge.accumulate()
    parts = (np.asarray(judge.eval[name], np.float64)[..., 0] for name in ("precision", "scores", "recall"))
    precision, scores, recall = (np.where(part < 0, np.nan, part) for part in parts)
    return precision, np.where(np.isnan(precision), np.nan, scores), recall


def _dataset(images: Sequence[tuple[Any, Any, dict[str, Any]]], classes: int) -> dict[str, Any]:
    """Boxes (M, 4) xyxy, their classes, and one more column, of each image, in the library's form."""
    annotations: list[dict[str, Any]] = []
    for number, (boxes, kinds, more) in enumerate(images, 1):
        exact = boxes.astype(np.float64)
        ((name, column),) = more.items()
        columns = zip(to_xywh(exact).tolist(), areas(exact).tolist(), kinds.tolist(), column.tolist(), strict=True)
        for box, area, kind, value in columns:
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": number, "category_id": kind + 1, "bbox": box,
                    "area": area, "iscrowd": 0, name: value,
                }
            )  # fmt: skip
    return {
        "images": [{"id": number} for number in range(1, len(images) + 1)],
        "categories": [{"id": index + 1, "name": str(index)} for index in range(classes)],
        "annotations": annotations,
    }


def _library() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        hint = 'pip install "msresnet[detect]"'
        raise ResourceError("figures of boxes need faster-coco-eval", why=str(error), hint=hint) from error
    return COCO, COCOeval_faster


def _places(threshold: float | None) -> slice:
    """Which thresholds are meant."""
    if threshold is None:
        return slice(None)
    place = int(np.argmin(np.abs(THRESHOLDS - threshold)))
    return slice(place, place + 1)


def _mean(values: Floats) -> float:
    there = ~np.isnan(values)
    return float(values[there].mean()) if there.any() else float("nan")


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

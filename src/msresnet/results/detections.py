"""The objects in each image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.boxes import is_xyxy
from msresnet.errors import ResourceError
from msresnet.results.base import DIGITS, SHOWN, Results

BOX_DIGITS = 2
"""Decimal places of a box's corners, in pixels."""
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Detections(Results):
    """The objects that were found in some images: of each image M boxes.

    Args:
        ids: where each image comes from (N).
        class_names: names in the order of the class indices (K).
        boxes: for each image (M, 4) float32, xyxy in the image's own pixels.
        scores: for each image (M,) float32, 0 to 1: how sure each box is.
        classes: for each image (M,) int64, class indices.
        appearances: for each image (M, E) float32, vectors that are alike for one object in different images; None
            from networks that give none.

    Raises ValueError when the shapes disagree, or a box, score or class is none.
    """

    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    boxes: tuple[Floats, ...]
    scores: tuple[Floats, ...]
    classes: tuple[Ints, ...]
    appearances: tuple[Floats, ...] | None = None

    def __post_init__(self) -> None:
        lengths = [len(part) for part in (self.ids, self.boxes, self.scores, self.classes)]
        if len(set(lengths)) > 1:
            raise ValueError(f"boxes, scores and classes of {lengths[1:]} images for {lengths[0]} images")
        for name, boxes, scores, classes in zip(self.ids, self.boxes, self.scores, self.classes, strict=True):
            if boxes.shape != (len(boxes), 4) or {scores.shape, classes.shape} != {(len(boxes),)}:
                shapes = f"{boxes.shape}, {scores.shape} and {classes.shape}"
                raise ValueError(f"the boxes, scores and classes of {name} are of shapes {shapes}")
            kinds = boxes.dtype, scores.dtype, classes.dtype
            if kinds != (np.dtype(np.float32), np.dtype(np.float32), np.dtype(np.int64)):
                raise ValueError(f"the boxes, scores and classes of {name} are {kinds[0]}, {kinds[1]} and {kinds[2]}")
            if not is_xyxy(boxes):
                raise ValueError(f"a box of {name} is not x1 <= x2 and y1 <= y2 in finite numbers")
            if not ((scores >= 0) & (scores <= 1)).all():
                raise ValueError(f"a score of {name} does not lie between 0 and 1")
            if len(classes) and not 0 <= classes.min() <= classes.max() < len(self.class_names):
                raise ValueError(f"{name} holds class {classes.max()}, there are {len(self.class_names)} classes")

        self._check_appearances()

    def _check_appearances(self) -> None:
        looks = self.appearances
        if looks is None:
            return
        if len(looks) != len(self.ids):
            raise ValueError(f"appearances of {len(looks)} images for {len(self.ids)} images")
        for name, boxes, vectors in zip(self.ids, self.boxes, looks, strict=True):
            if vectors.ndim != 2 or len(vectors) != len(boxes) or not np.isfinite(vectors).all():
                raise ValueError(f"{name} holds {len(boxes)} boxes and appearances {vectors.shape}, or no numbers")

    def part(self, rows: slice) -> Detections:
        """The answers about some of the images."""
        looks = None if self.appearances is None else self.appearances[rows]
        boxes, scores, classes = self.boxes[rows], self.scores[rows], self.classes[rows]
        return Detections(self.ids[rows], self.class_names, boxes, scores, classes, looks)

    @classmethod
    def joined(cls, parts: Sequence[Detections]) -> Detections:
        """The answers of several objects behind each other."""
        return cls(
            tuple(chain.from_iterable(part.ids for part in parts)),
            parts[0].class_names,
            tuple(chain.from_iterable(part.boxes for part in parts)),
            tuple(chain.from_iterable(part.scores for part in parts)),
            tuple(chain.from_iterable(part.classes for part in parts)),
            None if any(part.appearances is None for part in parts) else _chained(parts),
        )

    @property
    def counts(self) -> Ints:
        """How many objects each image holds (N,)."""
        return np.array([len(boxes) for boxes in self.boxes], np.int64)

    def above(self, score: float) -> Detections:
        """The same images, with the boxes whose score is at least so high."""
        return self.chosen([scores >= score for scores in self.scores])

    def chosen(self, masks: Sequence[npt.NDArray[np.bool_] | Ints]) -> Detections:
        """The same images, of each the boxes of a mask (M,), or of indices in their order."""
        return Detections(
            self.ids,
            self.class_names,
            tuple(boxes[mask] for boxes, mask in zip(self.boxes, masks, strict=True)),
            tuple(scores[mask] for scores, mask in zip(self.scores, masks, strict=True)),
            tuple(classes[mask] for classes, mask in zip(self.classes, masks, strict=True)),
            None
            if self.appearances is None
            else tuple(looks[mask] for looks, mask in zip(self.appearances, masks, strict=True)),
        )

    def agreement(self, other: Detections) -> npt.NDArray[np.float64]:
        """The share of each image's boxes that the other has too: the same class, corners within a pixel (N,)."""
        return np.array([_shared(mine, theirs) for mine, theirs in zip(self, other, strict=True)], np.float64)

    def to_dict(self, k: int = 5) -> list[dict[str, Any]]:
        """One plain dictionary for each image: id, count, and its detections, the surest first.

        Each is {label, score, box}, the box xyxy in pixels. All are there: `k` is for answers that rank classes.
        """
        return [
            {"id": name, "count": len(boxes), "detections": list(self._rows(boxes, scores, classes))}
            for name, boxes, scores, classes in zip(self.ids, self.boxes, self.scores, self.classes, strict=True)
        ]

    def _rows(self, boxes: Floats, scores: Floats, classes: Ints) -> list[dict[str, Any]]:
        return [
            {
                "label": self.class_names[classes[i]],
                "score": round(float(scores[i]), DIGITS),
                "box": [round(float(value), BOX_DIGITS) for value in boxes[i]],
            }
            for i in np.argsort(-scores, kind="stable")
        ]

    def __str__(self) -> str:
        """One line for each image: id, and how many objects of each class."""
        return "\n".join(f"{row['id']}: {counted(row['detections'])}" for row in self.to_dict())

    def _repr_html_(self) -> str:
        """A table for notebooks: what is in the first images."""
        rows = []
        for item in self[:SHOWN].to_dict():
            found = "<br>".join(
                f"{escape(d['label'])} {d['score']:.{DIGITS}f} at {', '.join(f'{v:g}' for v in d['box'])}"
                for d in item["detections"][:SHOWN]
            )
            hidden = f"<br>… and {item['count'] - SHOWN} more" if item["count"] > SHOWN else ""
            cells = (escape(item["id"]), escape(counted(item["detections"])), found + hidden)
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        more = f"<p>… and {len(self) - SHOWN} more</p>" if len(self) > SHOWN else ""
        head = "<tr><th>image</th><th>objects</th><th>label, score, box in pixels</th></tr>"
        return f"<table>{head}{''.join(rows)}</table>{more}"

    def to_supervision(self) -> list[Any]:
        """For each image a `supervision.Detections`, the names of the classes as its data `class_name`.

        Raises ResourceError where supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            hint = "pip install supervision"
            raise ResourceError("to_supervision needs supervision", why=str(error), hint=hint) from error
        names = np.array(self.class_names)
        return [
            supervision.Detections(
                xyxy=boxes.copy(),
                confidence=scores.copy(),
                class_id=classes.copy(),
                data={"class_name": names[classes]},
            )
            for boxes, scores, classes in zip(self.boxes, self.scores, self.classes, strict=True)
        ]

    @classmethod
    def from_supervision(cls, parts: Sequence[Any], ids: Sequence[str], class_names: Sequence[str]) -> Detections:
        """From one `supervision.Detections` for each image. Raises ValueError where one lacks scores or classes."""
        for name, part in zip(ids, parts, strict=True):
            if part.confidence is None or part.class_id is None:
                raise ValueError(f"the detections of {name} have no confidence or no class_id")
        return cls(
            tuple(ids),
            tuple(class_names),
            tuple(np.asarray(part.xyxy, np.float32).reshape(-1, 4) for part in parts),
            tuple(np.asarray(part.confidence, np.float32) for part in parts),
            tuple(np.asarray(part.class_id, np.int64) for part in parts),
        )


def _chained(parts: Sequence[Detections]) -> tuple[Floats, ...]:
    return tuple(chain.from_iterable(part.appearances or () for part in parts))


def counted(detections: Sequence[dict[str, Any]]) -> str:
    """How many objects of each class, the most frequent first, in words."""
    counts = Counter(item["label"] for item in detections)
    return ", ".join(f"{count} {label}" for label, count in counts.most_common()) or "nothing"


def _shared(mine: Detections, theirs: Detections) -> float:
    """The share of the boxes of one image that both have, of the larger number."""
    near = np.abs(mine.boxes[0][:, None] - theirs.boxes[0]).max(2) <= 1 if len(mine.boxes[0]) else np.zeros((0, 0))
    same = near & (mine.classes[0][:, None] == theirs.classes[0]) if near.size else near.astype(bool)
    most = max(mine.counts[0], theirs.counts[0])
    return float(min(same.any(0).sum(), same.any(1).sum()) / most) if most else 1.0

"""The objects in each frame of a video, and which of them are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.results.base import DIGITS, SHOWN, Results
from msresnet.results.detections import BOX_DIGITS, Detections, counted

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tracks(Results):
    """Detections in the frames of one video, each with the number of its object.

    Args:
        detections: in each of N frames.
        track_ids: for each frame (M,) int64, the numbers of the objects, from 1; none stands twice in a frame.

    Raises ValueError when the lengths disagree, or an object is twice in a frame.
    """

    detections: Detections
    track_ids: tuple[Ints, ...]

    def __post_init__(self) -> None:
        if len(self.track_ids) != len(self.detections):
            raise ValueError(f"objects in {len(self.track_ids)} frames, detections in {len(self.detections)}")
        for name, boxes, numbers in zip(self.ids, self.detections.boxes, self.track_ids, strict=True):
            if numbers.shape != (len(boxes),) or numbers.dtype != np.int64:
                raise ValueError(f"{name} holds {len(boxes)} boxes and objects {numbers.dtype} {numbers.shape}")
            if len(np.unique(numbers)) < len(numbers) or (numbers < 1).any():
                raise ValueError(f"an object is twice in {name}, or has a number below 1")

    @property
    def ids(self) -> tuple[str, ...]:  # type: ignore[override]
        """Where each frame comes from (N)."""
        return self.detections.ids

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names in the order of the class indices (K)."""
        return self.detections.class_names

    def part(self, rows: slice) -> Tracks:
        """Some of the frames."""
        return Tracks(self.detections.part(rows), self.track_ids[rows])

    @classmethod
    def joined(cls, parts: Sequence[Tracks]) -> Tracks:
        """The frames of several parts of one video."""
        return cls(
            Detections.joined([part.detections for part in parts]),
            tuple(chain.from_iterable(part.track_ids for part in parts)),
        )

    @property
    def objects(self) -> Ints:
        """The numbers of all objects, ascending."""
        return np.unique(np.concatenate([np.zeros(0, np.int64), *self.track_ids]))

    def agreement(self, other: Tracks) -> npt.NDArray[np.float64]:
        """The share of each frame's boxes that the other has too, whatever their objects' numbers (N,)."""
        return self.detections.agreement(other.detections)

    def to_dict(self, k: int = 5) -> list[dict[str, Any]]:
        """One plain dictionary for each frame: id, count, and its tracks {track, label, score, box}, by number."""
        return [
            {"id": name, "count": len(numbers), "tracks": self._rows(frame, numbers)}
            for frame, (name, numbers) in enumerate(zip(self.ids, self.track_ids, strict=True))
        ]

    def _rows(self, frame: int, numbers: Ints) -> list[dict[str, Any]]:
        found = self.detections
        boxes, scores, classes = found.boxes[frame], found.scores[frame], found.classes[frame]
        return [
            {
                "track": int(numbers[i]),
                "label": self.class_names[classes[i]],
                "score": round(float(scores[i]), DIGITS),
                "box": [round(float(value), BOX_DIGITS) for value in boxes[i]],
            }
            for i in np.argsort(numbers)
        ]

    def to_mot(self, first: int = 1) -> str:
        """MOTChallenge's lines of answers: frame, object, x, y, w, h in pixels, score, and three times -1.

        Frames and pixels count from 1 there (arXiv 1603.00831). `first` is the number of the first frame.
        """
        lines = []
        for frame, row in enumerate(self.to_dict(), first):
            for item in row["tracks"]:
                left, top, right, bottom = item["box"]
                place = f"{left + 1:.2f},{top + 1:.2f},{right - left:.2f},{bottom - top:.2f}"
                lines.append(f"{frame},{item['track']},{place},{item['score']},-1,-1,-1\n")
        return "".join(lines)

    def __str__(self) -> str:
        """One line for each frame: id, and how many objects of each class."""
        return "\n".join(f"{row['id']}: {counted(row['tracks'])}" for row in self.to_dict())

    def _repr_html_(self) -> str:
        """A table for notebooks: what is in the first frames."""
        rows = []
        for item in self[:SHOWN].to_dict():
            found = "<br>".join(f"{t['track']}: {escape(t['label'])} {t['score']:.{DIGITS}f}" for t in item["tracks"])
            rows.append(f"<tr><td>{escape(item['id'])}</td><td>{item['count']}</td><td>{found}</td></tr>")
        more = f"<p>… and {len(self) - SHOWN} more</p>" if len(self) > SHOWN else ""
        head = "<tr><th>frame</th><th>objects</th><th>track, label, score</th></tr>"
        return f"<table>{head}{''.join(rows)}</table>{more}"

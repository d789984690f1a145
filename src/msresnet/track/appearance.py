"""What objects look like, beside where they are.

Trackers of the library ask for the similarity of the boxes that they expect with those that were found. Where boxes
alone leave one candidate, its answer stays their intersection over union; where they leave several, how alike objects
look decides with them. An object that was out of sight comes back elsewhere than expected, for it may have turned: it
is known again by its looks, not too far away. T tracks, M boxes of a frame, E numbers of a vector.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from msresnet.boxes import iou

Matrix = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]
KEPT = 0.9
"""Share of what a track looked like that stays when it is seen again: FairMOT's (arXiv 2004.01888, section 3.4)."""
ALIKE = 0.6
"""Cosine from which looks alone say that objects are the same; anything from 0.5 to 0.8 did as well."""
REACH, STRIDE = 1.0, 0.3
"""How far from where it was expected an object may come back, in sides of its box: at once, and more for each frame."""
KNOWN = 0.35
"""What being known again counts at least, whatever the weight: more than the overlap that any tracker asks for."""


class Appearance:
    """Similarities for one tracker of the library, in the form that it takes as `iou`.

    Args:
        weight: share of the looks beside the boxes, from 0 to 1.
        least: boxes that overlap less are not candidates.
    """

    def __init__(self, weight: float, least: float) -> None:
        self.weight, self.least = weight, least
        self.tracks: list[Any] = []
        self.looks: WeakKeyDictionary[Any, Vectors] = WeakKeyDictionary()
        self.boxes = np.zeros((0, 4))
        self.vectors, self.sure = np.zeros((0, 0), np.float32), np.zeros(0, np.bool_)

    def begin(
        self, tracks: list[Any], boxes: npt.NDArray[np.float32], vectors: Vectors, sure: npt.NDArray[np.bool_]
    ) -> None:
        """What a frame holds: boxes (M, 4) xyxy, their vectors (M, E), which are sure (M,); and the tracks so far."""
        self.tracks, self.boxes, self.vectors = tracks, boxes.astype(np.float64), normalised(vectors)
        self.sure = sure

    def seen(self, track: Any, index: int) -> None:
        """A track was found in the frame as one of its boxes."""
        new, old = self.vectors[index], self.looks.get(track)
        self.looks[track] = new if old is None else normalised(KEPT * old + (1 - KEPT) * new)

    def compute(self, boxes_1: npt.NDArray[Any], boxes_2: npt.NDArray[Any]) -> Matrix:
        """Similarity of expected (T, 4) with found (M, 4) boxes: (T, M), 0 to 1."""
        expected, found = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (boxes_1, boxes_2))
        near = iou(expected, found)
        tracks = self._tracks(expected)
        columns = self._columns(found)
        alike = self._alike(tracks, columns)
        candidates = near >= self.least
        sure = np.array([column >= 0 and self.sure[column] for column in columns], np.bool_)
        back = (alike >= ALIKE) & within_reach(tracks, expected, found) & sure[None] & ~candidates
        blended = np.where(np.isnan(alike), near, (1 - self.weight) * near + self.weight * np.maximum(alike, 0))
        similar = np.where(ambiguous(candidates | back), blended, near)
        return np.where(back, np.maximum(blended, KNOWN), similar)

    def normalize_for_fusion(self, similarity_matrix: Matrix) -> Matrix:
        """The same: similarities are 0 to 1 already."""
        return similarity_matrix

    def _tracks(self, expected: Matrix) -> list[Any]:
        """The tracks at some expected boxes, None where there is none."""
        by_box = {key(track.get_state_bbox()): track for track in self.tracks}
        return [by_box.get(key(box)) for box in expected]

    def _columns(self, found: Matrix) -> npt.NDArray[np.int64]:
        """Which boxes of the frame some found boxes are; -1 for what is none."""
        by_box = {key(box): index for index, box in enumerate(self.boxes)}
        return np.array([by_box.get(key(box), -1) for box in found], np.int64)

    def _alike(self, tracks: list[Any], columns: npt.NDArray[np.int64]) -> Matrix:
        """How alike tracks and boxes of the frame look: cosines (T, M), not a number where that is not known."""
        alike, there = np.full((len(tracks), len(columns)), np.nan), columns >= 0
        for row, track in zip(alike, tracks, strict=True):
            looks = None if track is None else self.looks.get(track)
            if looks is not None and there.any() and looks.shape == self.vectors.shape[1:]:
                row[there] = self.vectors[columns[there]] @ looks
        return alike


def within_reach(tracks: list[Any], expected: Matrix, found: Matrix) -> npt.NDArray[np.bool_]:
    """Whether objects that the frame before did not show could have come to some found boxes (T, M)."""
    away = np.array([0 if track is None else track.time_since_update - 1 for track in tracks])
    sides = np.sqrt((expected[:, 2:] - expected[:, :2]).clip(min=0).prod(1))
    middles, places = ((boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (expected, found))
    far = np.linalg.norm(middles[:, None] - places[None], axis=-1)
    near_enough: npt.NDArray[np.bool_] = far <= (sides * (REACH + STRIDE * away))[:, None]
    return near_enough & (away > 0)[:, None]


def ambiguous(candidates: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Of pairs (T, M) that may be the same, those whose track or box has another candidate."""
    several = (candidates.sum(1) > 1)[:, None] | (candidates.sum(0) > 1)[None]
    found: npt.NDArray[np.bool_] = candidates & several
    return found


def normalised(vectors: Vectors) -> Vectors:
    """Vectors (..., E) of length 1; 0 stays 0."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    found: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return found


def key(box: npt.NDArray[Any]) -> tuple[float, ...]:
    """A box (4,) as what can be looked up: the library hands boxes over without saying which they are."""
    return tuple(np.asarray(box, np.float64).tolist())

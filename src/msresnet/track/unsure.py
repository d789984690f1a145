"""Which tracks an unsure box may continue: ByteTrack's second association (arXiv 2110.06864, algorithm 1).

As its authors' implementation has it, an unsure box continues a track that has a number and was in the frame before,
and only where it lies well upon the expected box. The library lets any overlap of a tenth do, of tracks long lost too,
so that what detectors half see around objects and where some have been is taken for them. T tracks, M boxes of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.boxes import iou
from msresnet.track.appearance import Appearance, Matrix, key

LEAST = 0.5
"""Overlap from which an unsure box may continue a track."""


class Unsure:
    """Similarities for one tracker of the library, in the form that it takes as `iou`.

    Args:
        appearance: what similarities are else; None is the intersection over union.
        sure: boxes of lower scores are unsure.
    """

    def __init__(self, appearance: Appearance | None, sure: float) -> None:
        self.appearance, self.sure = appearance, sure
        self.unsure: set[tuple[float, ...]] = set()
        self.tracks: Sequence[Any] = ()

    def begin(self, tracks: Sequence[Any], boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32]) -> None:
        """What a frame holds: boxes (M, 4) xyxy and their scores (M,), beside the tracks so far."""
        self.tracks = tracks
        self.unsure = {key(box) for box in boxes[scores < self.sure]}

    def compute(self, boxes_1: npt.NDArray[Any], boxes_2: npt.NDArray[Any]) -> Matrix:
        """Similarity of expected (T, 4) with found (M, 4) boxes: (T, M), 0 to 1; 0 where one cannot be the other."""
        expected, found = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (boxes_1, boxes_2))
        near = iou(expected, found)
        alike = near if self.appearance is None else self.appearance.compute(expected, found)
        unsure = np.array([key(box) in self.unsure for box in found], np.bool_)
        # The tracks have been moved to this frame by now: one that the frame before showed was updated one ago.
        lost = {
            key(track.get_state_bbox()) for track in self.tracks if track.time_since_update > 1 or track.tracker_id < 0
        }
        shown = np.array([key(box) not in lost for box in expected], np.bool_)
        return np.where(~unsure[None] | (shown[:, None] & (near >= LEAST)), alike, 0.0)

    def normalize_for_fusion(self, similarity_matrix: Matrix) -> Matrix:
        """The same: similarities are 0 to 1 already."""
        return similarity_matrix

"""How well objects are followed: HOTA (arXiv 2009.07736), CLEAR MOT's MOTA and identity's IDF1, by the library.

Boxes are matched whatever their class, as MOTChallenge does. A found box that is best explained by one that is to be
ignored, a crowd or a person on a poster, neither helps nor harms. V videos, N frames, M boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from msresnet.boxes import Boxes, iou
from msresnet.errors import DataError
from msresnet.results import Tracks
from msresnet.track.library import load

Ints = npt.NDArray[np.int64]
SAME = 0.5
"""Overlap from which a found box is an object, for all but HOTA, which looks at 19 of them."""
MOST_BOXES = 2000
"""Boxes of a frame: all pairs are in memory at once, and the best matching takes time by their cube."""
NAMES = {
    "hota": "HOTA", "deta": "DetA", "assa": "AssA", "loca": "LocA", "mota": "MOTA", "motp": "MOTP", "idf1": "IDF1",
    "id_switches": "IDSW", "fragments": "Frag", "missed": "CLR_FN", "wrong": "CLR_FP", "mostly_followed": "MT",
    "mostly_lost": "ML",
}  # fmt: skip
"""Ours and the library's."""


@dataclass(frozen=True)
class Truth:
    """What a video shows.

    Args:
        boxes: in each of N frames.
        objects: for each frame the number of each box's object (M,), 0 for one to be ignored.
    """

    boxes: Sequence[Boxes]
    objects: Sequence[Ints]


@dataclass(frozen=True)
class Figures:
    """Figures by name: of all videos together, and of each."""

    total: dict[str, float]
    each: dict[str, dict[str, float]]


def figures(answers: Mapping[str, Tracks], truths: Mapping[str, Truth]) -> Figures:
    """Measure the tracks of some videos, by name.

    Raises ValueError where a video has no answer or another number of frames, DataError for a frame of too many boxes,
    ResourceError without the library.
    """
    library = load("trackers.eval")
    parts: dict[str, list[dict[str, Any]]] = {}
    for name, truth in truths.items():
        matched = _matched(name, answers[name], truth)
        hota, clear, identity = (
            library.compute_hota_metrics(*matched),
            library.compute_clear_metrics(*matched, threshold=SAME),
            library.compute_identity_metrics(*matched, threshold=SAME),
        )
        parts[name] = [hota, clear, identity]
    hotas, clears, identities = ([part[i] for part in parts.values()] for i in range(3))
    total = (
        library.aggregate_hota_metrics(hotas)
        | library.aggregate_clear_metrics(clears)
        | library.aggregate_identity_metrics(identities)
    )
    each = {name: _named(hota | clear | identity) for name, (hota, clear, identity) in parts.items()}
    return Figures(_named(total), each)


def _named(found: Mapping[str, Any]) -> dict[str, float]:
    return {ours: found[theirs] for ours, theirs in NAMES.items()}


def _matched(name: str, answer: Tracks, truth: Truth) -> tuple[list[Ints], list[Ints], list[npt.NDArray[np.float64]]]:
    """Objects and tracks of each frame, numbered from 0 without gaps, and how their boxes overlap."""
    if len(answer) != len(truth.boxes):
        raise ValueError(f"answers for {len(answer)} frames, a truth of {len(truth.boxes)}")
    most = max([*map(len, answer.detections.boxes), *map(len, truth.boxes)], default=0)
    if most > MOST_BOXES:
        why = f"{most:,} boxes in one frame; each is compared with each, and up to {MOST_BOXES:,} are"
        raise DataError("the tracks cannot be measured", where=name, why=why, hint="leave out the least sure boxes")
    objects, tracks, overlaps = [], [], []
    for found, numbers, boxes, who in zip(
        answer.detections.boxes, answer.track_ids, truth.boxes, truth.objects, strict=True
    ):
        shared = iou(boxes.xyxy.astype(np.float64), found.astype(np.float64))
        counts, stays = who > 0, ~_excused(shared, who)
        objects.append(who[counts])
        tracks.append(numbers[stays])
        overlaps.append(shared[counts][:, stays])
    return _renumbered(objects), _renumbered(tracks), overlaps


def _excused(shared: npt.NDArray[np.float64], who: Ints) -> npt.NDArray[np.bool_]:
    """Which found boxes (M,) belong to one that is to be ignored, by the best matching with all (O, M)."""
    excused = np.zeros(shared.shape[1], np.bool_)
    if (who == 0).any():
        rows, columns = linear_sum_assignment(np.where(shared >= SAME, shared, 0), maximize=True)
        ignored = (who[rows] == 0) & (shared[rows, columns] >= SAME)
        excused[columns[ignored]] = True
    return excused


def _renumbered(frames: list[Ints]) -> list[Ints]:
    known = np.unique(np.concatenate([np.zeros(0, np.int64), *frames]))
    return [np.searchsorted(known, frame) for frame in frames]

"""Boxes of one frame after the other -> which of them are the same object.

The library's trackers number an object when they have seen it in several frames. Here its boxes in the first of these
are numbered too, so a frame is answered when the next ones, as many as that takes, have been looked at. M boxes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.boxes import iou, nms
from msresnet.results import Detections, Tracks
from msresnet.track.appearance import Appearance
from msresnet.track.library import LOOKS, Tracker, create, load
from msresnet.track.unsure import Unsure

Picture = npt.NDArray[np.uint8]
ABOVE = 0.1
"""How much surer than an object that goes on a new one has to be: ByteTrack's (arXiv 2110.06864, section 4.1). Where 1
is nearer than twice that, half of the way to 1."""
LOWEST = 0.1
"""The lowest score of a box that may continue a track: ByteTrack's."""
FRAMES = {"bytetrack": 2, "botsort": 2, "ocsort": 4, "sort": 3, "cbiou": 2}
"""How often an object is seen before it has a number: the papers' values."""
COVERED = 0.7
"""Overlap from which boxes of different classes are one object."""
SAME = 0.5
"""Overlap of a track's box with a found one, from which they are the same."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How boxes are associated.

    Args:
        tracker: which of the library's.
        sure: scores from here on are objects, below they only continue a track; a new one asks for `begins`.
        keep: frames for which an object that is not seen keeps its number.
        appearance: share of the looks beside the boxes where boxes are ambiguous, from 0 to 1.
    """

    tracker: Tracker = "bytetrack"
    sure: float = 0.5
    keep: int = 30
    appearance: float = LOOKS

    @property
    def begins(self) -> float:
        """The lowest score of a box that begins a track."""
        return self.sure if self.tracker == "ocsort" else min(self.sure + ABOVE, (1 + self.sure) / 2)


@dataclass
class _Frame:
    """Boxes of a frame, and the track of each, if it has one."""

    found: Detections
    owners: list[Any]

    def tracks(self, before: int) -> Tracks:
        """The boxes that have a number by now."""
        numbers = np.array([-1 if o is None else o.tracker_id for o in self.owners], np.int64)
        known = np.flatnonzero(numbers >= 0)
        return Tracks(self.found.chosen([known]), (numbers[known] + 1 + before,))


class Association:
    """Numbers for the objects of one video, from 1 on. Frames go in one by one and come out in the same order.

    In a video that ends before an object can have been seen often enough, every track has a number.

    Raises ResourceError where the library is not installed.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.delay = FRAMES[rules.tracker] - 1
        self.given = 0
        self._detections = load("supervision").Detections
        self._begin()

    def add(self, found: Detections, picture: Picture | None = None) -> list[Tracks]:
        """Take the next frame; gives the frames, usually one, that are settled by it.

        Args:
            found: in one frame, with unsure boxes.
            picture: (C, H, W), for trackers that look at the camera's own movement.
        """
        found = once(found.above(min(LOWEST, self.rules.sure)))
        self._waiting.append(_Frame(found, self._owners(found, picture)))
        if len(self._waiting) <= self.delay:
            return []
        self._short = False
        return [self._next()]

    def finish(self) -> list[Tracks]:
        """The frames that are left when the video is over; then another may begin, whose objects get new numbers."""
        if self._short:
            self._number_all()
        left = [self._next() for _ in range(len(self._waiting))]
        self._begin()
        return left

    def _begin(self) -> None:
        self._waiting: deque[_Frame] = deque()
        self._short = True
        self._before = self.given
        self._appearance = self._unsure = None
        if self.rules.appearance and self.rules.tracker != "cbiou":  # it has boxes of its own to compare
            self._appearance = Appearance(self.rules.appearance, LOWEST)
        if self.rules.tracker == "bytetrack":  # the others have rules of their own, or no second look
            self._unsure = Unsure(self._appearance, self.rules.sure)
        self._tracker = create(self.rules.tracker, **settings(self.rules, self._unsure or self._appearance))

    def _next(self) -> Tracks:
        tracks = self._waiting.popleft().tracks(self._before)
        self.given = max(self.given, int(tracks.track_ids[0].max(initial=0)))
        return tracks

    def _owners(self, found: Detections, picture: Picture | None) -> list[Any]:
        """The library's tracks that some boxes belong to (M)."""
        boxes, looks = found.boxes[0], None if found.appearances is None else found.appearances[0]
        appearance = self._appearance
        if self._unsure is not None:
            self._unsure.begin(self._tracker.tracks, boxes, found.scores[0])
        if appearance is not None:
            vectors = np.zeros((len(boxes), 0), np.float32) if looks is None else looks
            appearance.begin(self._tracker.tracks, boxes, vectors, found.scores[0] >= self.rules.sure)
        numbers = self._update(found, picture)
        tracks = {track.tracker_id: track for track in self._tracker.tracks if track.tracker_id >= 0}
        owners = [tracks.get(number) for number in numbers.tolist()]
        # Not only of young tracks: OC-SORT has seen a box of an old one, too, without saying whose for some frames.
        told = {id(owner) for owner in owners}
        untold = [t for t in self._tracker.tracks if t.time_since_update == 0 and id(t) not in told]
        _give(untold, boxes, owners)
        if appearance is not None and looks is not None:
            for index, track in enumerate(owners):
                if track is not None:
                    appearance.seen(track, index)
        return owners

    def _number_all(self) -> None:
        """Give numbers to the tracks of the frames that wait, in the order of their boxes."""
        owners = [owner for frame in self._waiting for owner in frame.owners if owner is not None]
        given = max((owner.tracker_id for owner in owners), default=-1)
        for owner in owners:
            if owner.tracker_id < 0:
                given += 1
                owner.tracker_id = given

    def _update(self, found: Detections, picture: Picture | None) -> npt.NDArray[np.int64]:
        """What the library says of each box (M,): the track's number from 0 on, or -1."""
        boxes, scores, classes = found.boxes[0], found.scores[0], found.classes[0]
        places = {"index": np.arange(len(boxes))}
        given = self._detections(xyxy=boxes.astype(np.float64), confidence=scores, class_id=classes, data=places)
        looked_at = _blue_first(picture) if picture is not None and self.rules.tracker == "botsort" else None
        answer = self._tracker.update(given, looked_at)
        numbers = np.full(len(boxes), -1, np.int64)
        if len(answer):
            numbers[answer.data["index"]] = answer.tracker_id
        return numbers


def once(found: Detections) -> Detections:
    """One box for each object of a frame, the surest, where a detector sees several classes in it."""
    boxes, scores = found.boxes[0], found.scores[0]
    return found.chosen([nms(boxes, scores, np.zeros(len(boxes), np.int64), COVERED)])


def settings(rules: Rules, similarity: Appearance | Unsure | None) -> dict[str, Any]:
    """What a tracker of the library is told."""
    frames = FRAMES[rules.tracker] - (rules.tracker == "ocsort")  # which counts from the second time on
    given: dict[str, Any] = {"lost_track_buffer": rules.keep, "minimum_consecutive_frames": frames}
    if rules.tracker != "sort":
        given["high_conf_det_threshold"] = rules.sure
    if rules.tracker != "ocsort":
        given["track_activation_threshold"] = rules.begins
    if similarity is not None:
        given["iou"] = similarity
    return given


def _give(tracks: list[Any], boxes: npt.NDArray[np.float32], owners: list[Any]) -> None:
    """Find the boxes (M, 4) that tracks of no known box were updated with, and note them as the boxes' owners."""
    free = [index for index, owner in enumerate(owners) if owner is None]
    if not tracks or not free:
        return
    shared = iou(np.array([t.get_state_bbox() for t in tracks], np.float64), boxes[free].astype(np.float64))
    for row, track in zip(shared, tracks, strict=True):
        best = int(row.argmax())
        if row[best] >= SAME and owners[free[best]] is None:
            owners[free[best]] = track


def _blue_first(picture: Picture) -> Picture:
    """(C, H, W) red first -> (H, W, 3) blue first, as OpenCV has it."""
    return np.ascontiguousarray(np.broadcast_to(picture[::-1], (3, *picture.shape[1:])).transpose(1, 2, 0))

"""An unsure box continues a track that was just seen, where it lies well upon the expected one; nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from msresnet.boxes import iou
from msresnet.results import Detections
from msresnet.track.appearance import Appearance
from msresnet.track.association import Association, Rules
from msresnet.track.unsure import Unsure

HERE, NEAR, BESIDE = (0.0, 0.0, 20.0, 20.0), (3.0, 0.0, 23.0, 20.0), (11.0, 0.0, 31.0, 20.0)


class Track:
    """As the library has them when boxes are compared: moved to this frame."""

    def __init__(self, box: tuple[float, ...], time_since_update: int = 1, tracker_id: int = 0) -> None:
        self.box, self.time_since_update, self.tracker_id = np.array(box), time_since_update, tracker_id

    def get_state_bbox(self) -> Any:
        return self.box


def compared(track: Track, box: tuple[float, ...], score: float) -> tuple[float, float]:
    """The similarity of a track with a box, and their overlap."""
    unsure, found = Unsure(None, 0.5), np.array([box], np.float32)
    unsure.begin([track], found, np.array([score], np.float32))
    near: Any = iou(track.box[None], found.astype(np.float64))
    return float(unsure.compute(track.box[None], found)[0, 0]), float(near[0, 0])


def test_sure_boxes_are_compared_as_ever() -> None:
    for track in (Track(HERE), Track(HERE, 9)):
        for box in (NEAR, BESIDE):
            found, near = compared(track, box, 0.5)
            assert found == near > 0


def test_an_unsure_box_has_to_lie_well_upon_a_track_that_was_just_seen() -> None:
    found, near = compared(Track(HERE), NEAR, 0.49)
    assert found == near > 0.5
    assert compared(Track(HERE), BESIDE, 0.49)[0] == 0  # a third, and a half is asked
    assert compared(Track(HERE, 2), NEAR, 0.49)[0] == 0  # the frame before did not show it
    assert compared(Track(HERE, tracker_id=-1), NEAR, 0.49)[0] == 0  # it was seen once, and has no number yet


def test_looks_do_not_help_an_unsure_box() -> None:
    appearance, boxes = Appearance(0.5, 0.1), np.array([BESIDE, HERE], np.float32)
    tracks = [Track(HERE), Track(BESIDE)]
    looks = np.eye(2, dtype=np.float32)
    for track, vector in zip(tracks, looks, strict=True):
        appearance.looks[track] = vector
    appearance.begin(list(tracks), boxes, looks, np.full(2, True))
    unsure = Unsure(appearance, 0.5)
    unsure.begin(tracks, boxes, np.array([0.2, 0.9], np.float32))
    expected = np.array([track.box for track in tracks])
    blended, found = appearance.compute(expected, boxes), unsure.compute(expected, boxes)
    assert blended[0, 0] > 0.5
    assert found[0, 0] == 0
    assert np.array_equal(found[:, 1], blended[:, 1])


def seen(score: float, shift: float = 0.0) -> Detections:
    box = np.array([[10 + shift, 10, 40 + shift, 40]], np.float32)
    return Detections(("frame",), ("thing",), (box,), (np.array([score], np.float32),), (np.zeros(1, np.int64),))


@pytest.mark.parametrize(("shift", "continued"), [(2.0, True), (18.0, False)])
def test_bytetrack_goes_on_through_a_weak_frame_but_not_astray(shift: float, continued: bool) -> None:
    pytest.importorskip("trackers")
    association = Association(Rules(sure=0.5, appearance=0.0))
    answers = [tracks for score in (0.9, 0.9, 0.9) for tracks in association.add(seen(score))]
    answers += association.add(seen(0.2, shift))
    answers += association.finish()
    numbers = [tracks.track_ids[0].tolist() for tracks in answers]
    assert numbers == [[1], [1], [1], [1] if continued else []]


def test_what_was_lost_does_not_come_back_as_a_weak_box() -> None:
    pytest.importorskip("trackers")
    nothing = seen(0.9).above(1.0)
    association = Association(Rules(sure=0.5, appearance=0.0))
    answers = []
    for found in (seen(0.9), seen(0.9), seen(0.9), nothing, seen(0.3), seen(0.9)):
        answers += association.add(found)
    answers += association.finish()
    assert [tracks.track_ids[0].tolist() for tracks in answers] == [[1], [1], [1], [], [], [1]]

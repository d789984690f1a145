"""Looks decide where boxes alone do not, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from msresnet.boxes import iou
from msresnet.track.appearance import Appearance, ambiguous, normalised


class Track:
    """As the library has them: with a box that is expected, last updated some frames ago."""

    def __init__(self, box: tuple[float, float, float, float], ago: int = 1) -> None:
        self.box, self.time_since_update = np.array(box, np.float64), ago

    def get_state_bbox(self) -> Any:
        return self.box


LEFT, RIGHT = (0.0, 0.0, 20.0, 20.0), (8.0, 0.0, 28.0, 20.0)
FAR = (100.0, 100.0, 120.0, 120.0)
LOOKS = np.eye(3, dtype=np.float32)


def compared(
    tracks: list[Track], boxes: list[tuple[float, ...]], looks: Any, known: dict[int, Any], sure: bool = True
) -> tuple[Any, Any]:
    """Similarities of tracks with boxes, with and without looks; `known` are those of tracks, by index."""
    appearance, found = Appearance(0.5, 0.1), np.array(boxes, np.float32)
    for index, vector in known.items():
        appearance.looks[tracks[index]] = vector
    appearance.begin(list(tracks), found, looks, np.full(len(boxes), sure))
    expected = np.array([track.box for track in tracks])
    return appearance.compute(expected, found), iou(expected, found.astype(np.float64))


def test_of_two_candidates_the_one_that_looks_alike_wins() -> None:
    tracks = [Track(LEFT), Track(RIGHT)]
    found, boxes = compared(tracks, [LEFT, RIGHT], LOOKS[[1, 0]], {0: LOOKS[0], 1: LOOKS[1]})
    assert boxes[0, 0] + boxes[1, 1] > boxes[0, 1] + boxes[1, 0]
    assert found[0, 0] + found[1, 1] < found[0, 1] + found[1, 0]
    assert np.all((found >= 0) & (found <= 1))
    assert found[0, 1] == pytest.approx(0.5 * boxes[0, 1] + 0.5)  # half of what boxes say, and half for being alike


def test_where_nothing_is_ambiguous_boxes_alone_count() -> None:
    found, boxes = compared([Track(LEFT), Track(FAR)], [FAR, LEFT], LOOKS[:2], {0: LOOKS[2], 1: LOOKS[2]})
    assert np.array_equal(found, boxes)


def test_without_looks_boxes_alone_count() -> None:
    tracks = [Track(LEFT), Track(RIGHT)]
    found, boxes = compared(tracks, [LEFT, RIGHT], np.zeros((2, 3), np.float32), {})
    assert np.array_equal(found, boxes)
    found, boxes = compared(tracks, [LEFT, RIGHT], LOOKS[:2], {0: LOOKS[0]})
    assert np.array_equal(found[1], boxes[1])  # nobody knows what the second looked like
    assert not np.array_equal(found[0], boxes[0])


@pytest.mark.parametrize(
    ("ago", "shift", "look", "back"),
    [
        (1, 22.0, 0, False),  # the frame before showed it: it cannot jump
        (3, 22.0, 0, True),
        (3, 22.0, 1, False),  # another one
        (3, 40.0, 0, False),  # 1.6 sides of 20 pixels are 32
        (5, 40.0, 0, True),  # 2.2 are 44
    ],
)
def test_what_was_out_of_sight_is_known_again_by_its_looks(ago: int, shift: float, look: int, back: bool) -> None:
    there = (shift, 0.0, 20.0 + shift, 20.0)
    found, boxes = compared([Track(LEFT, ago)], [there], LOOKS[[look]], {0: LOOKS[0]})
    assert boxes[0, 0] == 0
    assert found[0, 0] == (0.5 if back else 0)
    unsure, _ = compared([Track(LEFT, ago)], [there], LOOKS[[look]], {0: LOOKS[0]}, sure=False)
    assert unsure[0, 0] == 0


def test_boxes_that_nobody_announced_are_compared_as_boxes() -> None:
    appearance = Appearance(0.5, 0.1)
    some = np.array([LEFT, RIGHT])
    assert np.array_equal(appearance.compute(some, some), iou(some, some))
    assert appearance.compute(np.zeros((0, 4)), some).shape == (0, 2)
    assert appearance.compute(some, np.zeros((0, 4))).shape == (2, 0)


def test_a_track_is_remembered_as_a_slow_mean_and_forgotten_with_it() -> None:
    appearance, track = Appearance(0.5, 0.1), Track(LEFT)
    for vector in (LOOKS[0], LOOKS[1]):
        appearance.begin([track], np.array([LEFT], np.float32), vector[None], np.array([True]))
        appearance.seen(track, 0)
    expected: Any = np.array([0.9, 0.1, 0]) / np.hypot(0.9, 0.1)
    assert appearance.looks[track].tolist() == pytest.approx(expected.tolist())
    del track
    appearance.begin([], np.zeros((0, 4), np.float32), np.zeros((0, 3), np.float32), np.zeros(0, np.bool_))
    assert len(appearance.looks) == 0


@given(arrays(np.bool_, st.tuples(st.integers(0, 6), st.integers(0, 6))))
def test_a_pair_is_ambiguous_when_one_of_it_has_another_candidate(candidates: Any) -> None:
    found = ambiguous(candidates)
    for (row, column), value in np.ndenumerate(found):
        others = candidates[row].sum() + candidates[:, column].sum()
        assert value == (candidates[row, column] and others > 2)


def test_vectors_of_length_one_and_none() -> None:
    found = normalised(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    assert found.tolist() == [pytest.approx([0.6, 0.8]), [0, 0]]

"""Boxes whose truth is known, through every tracker of the library: who is who, across gaps and crossings."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from following import detections, followed, moving, without
from msresnet.data.sources.digit_videos import digit_videos
from msresnet.data.videos import VideoSource
from msresnet.errors import ResourceError
from msresnet.results import Detections, Tracks
from msresnet.track.association import Association, Rules
from msresnet.track.figures import Truth, figures
from msresnet.track.library import Tracker

pytest.importorskip("trackers")
TRACKERS: tuple[Tracker, ...] = get_args(Tracker)
APART = moving([(0, 0), (100, 0), (0, 100)], [(1, 1), (-1, 2), (2, 0)], 20)


@cache
def videos(split: str) -> VideoSource:
    """Digits that meet, hide and leave."""
    source = digit_videos()[split]
    assert isinstance(source, VideoSource)
    return source


def numbers_of(answer: Tracks, number: int) -> list[int]:
    """Which numbers an object of APART had, frame by frame; 0 for none."""
    found = []
    for frame, boxes, numbers in zip(APART, answer.detections.boxes, answer.track_ids, strict=True):
        here = [int(n) for box, n in zip(boxes, numbers, strict=True) if np.allclose(box, frame[number])]
        found.append(here[0] if here else 0)
    return found


@pytest.mark.parametrize("tracker", TRACKERS)
def test_objects_that_stay_apart_have_one_number_from_their_first_frame_on(tracker: Tracker) -> None:
    answer = followed([detections(frame) for frame in APART], Rules(tracker=tracker))
    assert len(answer) == len(APART)
    each = [numbers_of(answer, number) for number in (1, 2, 3)]
    assert all(len(set(numbers)) == 1 for numbers in each)
    assert sorted({numbers[0] for numbers in each}) == [1, 2, 3] == answer.objects.tolist()


@pytest.mark.parametrize("tracker", TRACKERS)
@pytest.mark.parametrize("keep", [2, 30])
def test_a_gap_is_bridged_as_long_as_an_object_is_kept(tracker: Tracker, keep: int) -> None:
    frames = without(moving([(0, 0), (100, 100)], [(0.2, 0), (0, 0.2)], 40), 1, range(15, 23))
    answer = followed([detections(frame) for frame in frames], Rules(tracker=tracker, keep=keep))
    assert len(answer.objects) == (2 if keep == 30 else 3)
    assert [len(numbers) for numbers in answer.track_ids] == [len(frame) for frame in frames]


@pytest.mark.parametrize("tracker", TRACKERS)
@settings(max_examples=25)
@given(gaps=st.lists(st.tuples(st.integers(1, 3), st.integers(4, 22), st.integers(1, 4)), max_size=6))
def test_perfect_boxes_all_have_the_number_of_their_object(tracker: Tracker, gaps: list[tuple[int, int, int]]) -> None:
    frames = moving([(0, 0), (300, 0), (0, 300)], [(1, 1), (-1, 2), (2, 0)], 30)
    for number, start, length in gaps:
        frames = without(frames, number, range(start, start + length))
    answer = followed([detections(frame) for frame in frames], Rules(tracker=tracker))
    of = dict[int, int]()
    for frame, boxes, numbers in zip(frames, answer.detections.boxes, answer.track_ids, strict=True):
        assert len(numbers) == len(frame)
        for number, box in frame.items():
            here = int(numbers[np.abs(boxes - box).max(1).argmin()])
            assert of.setdefault(number, here) == here
    assert sorted(of.values()) == [1, 2, 3]


@pytest.mark.parametrize("tracker", TRACKERS)
def test_who_comes_later_has_a_number_from_the_first_frame_on(tracker: Tracker) -> None:
    frames = without(moving([(0, 0), (100, 100)], [(1, 0), (0, 1)], 20), 2, range(10))
    answer = followed([detections(frame) for frame in frames], Rules(tracker=tracker))
    assert [len(numbers) for numbers in answer.track_ids] == [len(frame) for frame in frames]


@pytest.mark.parametrize("tracker", TRACKERS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_video_of_few_frames_has_objects_too(tracker: Tracker, count: int) -> None:
    association = Association(Rules(tracker=tracker))
    for first in (1, 4):  # one after the other
        settled = [t for frame in APART[:count] for t in association.add(detections(frame))] + association.finish()
        assert [sorted(t.track_ids[0].tolist()) for t in settled] == [[first, first + 1, first + 2]] * count
    unsure = [detections(frame, 0.55) for frame in APART[:count]]
    assert len(followed(unsure, Rules(tracker=tracker)).objects) == (3 if tracker == "ocsort" else 0)


@pytest.mark.parametrize("tracker", TRACKERS)
@pytest.mark.parametrize(("sure", "needed"), [(0.01, 0.11), (0.3, 0.4), (0.8, 0.9), (0.95, 0.975), (1.0, 1.0)])
def test_a_new_object_needs_more_than_one_that_goes_on(tracker: Tracker, sure: float, needed: float) -> None:
    rules = Rules(tracker=tracker, sure=sure)
    assert rules.begins == pytest.approx(sure if tracker == "ocsort" else needed)
    for score in (rules.begins + 0.004, rules.begins - 0.004):
        answer = followed([detections(frame, min(score, 1.0)) for frame in APART], rules)
        assert len(answer.objects) == (3 if score > rules.begins else 0)


def test_unsure_boxes_continue_tracks_and_begin_none() -> None:
    frames = [detections(frame, 0.9 if t < 5 else 0.2) for t, frame in enumerate(APART)]
    answer = followed(frames, Rules(sure=0.5))
    assert [len(numbers) for numbers in answer.track_ids] == [3] * len(APART)
    assert followed([detections(frame, 0.2) for frame in APART], Rules(sure=0.5)).objects.size == 0


def test_numbers_are_those_of_the_library_where_it_gives_any() -> None:
    import supervision
    import trackers

    source = videos("val")
    theirs = trackers.ByteTrackTracker(
        lost_track_buffer=30, track_activation_threshold=0.6, high_conf_det_threshold=0.5, minimum_consecutive_frames=2
    )
    ours, answers = Association(Rules(appearance=0)), []
    for index in range(60):
        boxes = source.truth(index).xyxy
        scores = np.full(len(boxes), 0.9, np.float32)
        places: Any = {"place": np.arange(len(boxes))}
        given = supervision.Detections(xyxy=boxes.astype(np.float64), confidence=scores, data=places)
        answer: Any = theirs.update(given)
        answers.append(dict(zip(answer.data.get("place", ()), answer.tracker_id, strict=True)))
    found = [t for index in range(60) for t in ours.add(_seen(source, index))] + ours.finish()
    for index, (tracks, expected) in enumerate(zip(found, answers, strict=True)):
        assert len(tracks.track_ids[0]) == len(source.truth(index))  # a number for each from the first frame on
        for place, number in enumerate(tracks.track_ids[0]):
            assert expected[place] in (-1, number - 1)


def _seen(source: VideoSource, index: int, looks: np.ndarray | None = None) -> Detections:
    """The truth of a frame as a detector would see it, each object with vectors of its own where they are given."""
    boxes, who = source.truth(index), source.objects(index)
    vectors = None if looks is None else (looks[who],)
    scores = np.full(len(boxes), 0.9, np.float32)
    return Detections((source.ids[index],), source.classes, (boxes.xyxy,), (scores,), (boxes.classes,), vectors)


@pytest.mark.parametrize("tracker", ["bytetrack", "botsort", "sort"])
def test_what_objects_look_like_keeps_them_apart_where_they_meet(tracker: Tracker) -> None:
    source = videos("train")
    looks = np.random.default_rng(0).normal(size=(30, 16)).astype(np.float32)
    switches = {}
    for name, vectors in (("boxes", None), ("looks", looks)):
        answers, truths = {}, {}
        for video in (source.followed.videos[index] for index in (2, 9, 18, 20)):  # pairs turn back where they meet
            there = range(video.start + 10, video.stop - 10)
            answers[video.name] = followed([_seen(source, index, vectors) for index in there], Rules(tracker=tracker))
            truths[video.name] = Truth([source.truth(i) for i in there], [source.objects(i) for i in there])
        switches[name] = figures(answers, truths).total["id_switches"]
    assert switches["boxes"] >= 8
    assert switches["looks"] <= 2


FIRST, LIKE_IT, ANOTHER = np.array([[1, 0], [0.7, 0.71], [0.1, 0.99]], np.float32)
THERE, BACK = moving([(0, 0)], [(4, 0)], 10), moving([(16, 0)], [(-4, 0)], 6)
"""An object that goes on out of sight would be at 56 by the time it comes back."""
WITH_LOOKS: list[Tracker] = ["bytetrack", "botsort", "ocsort", "sort"]


def came_back(look: Any, rules: Rules, score: float = 0.9) -> set[int]:
    """The numbers that one has who was out of sight for four frames and looks so when it comes back; it had 1."""
    seen = [detections(frame, looks=None if look is None else {1: FIRST}) for frame in THERE]
    seen += [detections({})] * 4
    seen += [detections(frame, score, None if look is None else {1: look}) for frame in BACK]
    answer = followed(seen, rules)
    assert {number for numbers in answer.track_ids[:10] for number in numbers} == {1}
    return {int(number) for numbers in answer.track_ids[14:] for number in numbers}


@pytest.mark.parametrize("tracker", WITH_LOOKS)
@pytest.mark.parametrize("weight", [0.1, 0.5])
@pytest.mark.parametrize(("look", "number"), [(None, 2), (LIKE_IT, 1), (ANOTHER, 2)], ids=["boxes", "same", "another"])
def test_what_turns_while_out_of_sight_is_known_again_by_its_looks(
    tracker: Tracker, weight: float, look: Any, number: int
) -> None:
    assert came_back(look, Rules(tracker=tracker, appearance=weight)) == {number}


@pytest.mark.parametrize("tracker", WITH_LOOKS)
def test_an_unsure_box_far_away_is_nothing_that_comes_back(tracker: Tracker) -> None:
    assert came_back(FIRST, Rules(tracker=tracker), 0.15) == set()


def test_a_thousand_empty_frames_cost_nothing_and_end_all_tracks() -> None:
    association = Association(Rules())
    for frame in APART:
        association.add(detections(frame))
    for _ in range(100):
        association.add(detections({}))
    gc.collect()
    tracemalloc.start()
    settled = [len(association.add(detections({}))) for _ in range(1000)]
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert settled == [1] * 1000
    assert grown < 200_000
    later = [tracks for frame in APART for tracks in association.add(detections(frame))] + association.finish()
    assert sorted(set(np.concatenate([tracks.track_ids[0] for tracks in later]).tolist())) == [4, 5, 6]


def test_videos_after_each_other_and_beside_each_other() -> None:
    one, other = Association(Rules()), Association(Rules())
    for association in (one, other):
        found = [t for frame in APART[:10] for t in association.add(detections(frame))] + association.finish()
        assert set(np.concatenate([t.track_ids[0] for t in found]).tolist()) == {1, 2, 3}
    found = [t for frame in APART[:10] for t in one.add(detections(frame))] + one.finish()
    assert set(np.concatenate([t.track_ids[0] for t in found]).tolist()) == {4, 5, 6}
    assert other.finish() == []


def test_without_the_library_the_one_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("trackers", "supervision"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ResourceError, match=r'pip install "msresnet\[track\]"'):
        Association(Rules())

"""Generated scenes and videos: boxes are where the digits are, the same bytes everywhere, and files say the same."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from following import write_videos
from msresnet.boxes import areas, iou
from msresnet.data.boxed import BoxedArrays
from msresnet.data.options import DataOptions, PreprocessOptions
from msresnet.data.preprocess import choose
from msresnet.data.sources import digit_scenes as scenes
from msresnet.data.sources import digit_videos as videos
from msresnet.data.splits import open_data, read_any
from msresnet.data.videos import VideoSource


@pytest.fixture(scope="module")
def drawn() -> dict[str, BoxedArrays]:
    """The three sets of scenes."""
    return {name: cast(BoxedArrays, source) for name, source in scenes.digit_scenes().items()}


@pytest.fixture(scope="module")
def filmed() -> dict[str, VideoSource]:
    """The three sets of videos."""
    return {name: cast(VideoSource, source) for name, source in videos.digit_videos().items()}


def test_the_same_bytes_on_every_machine(drawn: dict[str, BoxedArrays]) -> None:
    digest = hashlib.sha256()
    for source in drawn.values():
        digest.update(np.stack([source.image(i) for i in range(len(source))]).tobytes())
        digest.update(source.boxes.xyxy.tobytes() + source.boxes.classes.tobytes())
    assert digest.hexdigest()[:16] == "2d484294a9bf7055"


def test_counts_sizes_and_scales(drawn: dict[str, BoxedArrays]) -> None:
    assert {name: len(source) for name, source in drawn.items()} == scenes.COUNTS
    for source in drawn.values():
        assert source.image(0).shape == (1, scenes.HEIGHT, scenes.WIDTH)
        counts = np.diff(source.first)
        assert 0 in counts
        assert counts.max() > 9
        sides = np.sqrt(areas(source.boxes.xyxy))
        assert sides.min() < 8
        assert sides.max() > 50
        per_class = np.bincount(source.boxes.classes, minlength=10)
        assert per_class.min() > 0.7 * per_class.mean()


def test_boxes_are_around_what_is_brighter_than_the_ground(drawn: dict[str, BoxedArrays]) -> None:
    source = drawn["val"]
    for index in range(len(source)):
        image, boxes = source.image(index)[0], source.truth(index)
        outside = image.copy()
        for left, top, right, bottom in boxes.xyxy.astype(int):
            assert 0 <= left < right <= scenes.WIDTH
            assert 0 <= top < bottom <= scenes.HEIGHT
            bright = image[top:bottom, left:right] > scenes.VISIBLE
            assert bright[0].any() & bright[-1].any() & bright[:, 0].any() & bright[:, -1].any()
            outside[top:bottom, left:right] = 0
        assert outside.max() <= scenes.VISIBLE
        shared = iou(boxes.xyxy, boxes.xyxy) - np.eye(len(boxes), dtype=np.float32)
        assert shared.max(initial=0) <= scenes.COVERED


def test_the_sets_show_different_digits() -> None:
    ends = [end for span in scenes.SHOWN.values() for end in span]
    assert ends == sorted(ends)
    assert ends[1] == ends[2]
    assert (ends[0], ends[-1]) == (0, 1_797)


def test_the_first_run_needs_nothing() -> None:
    splits = open_data("digit-scenes", DataOptions())
    assert (splits.train.task, splits.classes) == ("detection", tuple("0123456789"))
    assert {name: len(source) for name, source in splits.named().items()} == scenes.COUNTS
    preprocess, _ = choose(PreprocessOptions(), splits.train)
    assert (preprocess.size, preprocess.channels) == ((scenes.HEIGHT, scenes.WIDTH), 1)


def test_videos_are_the_same_everywhere(filmed: dict[str, VideoSource]) -> None:
    digest = hashlib.sha256()
    for source in filmed.values():
        digest.update(source.boxes.xyxy.tobytes() + source.boxes.classes.tobytes() + source.followed.objects.tobytes())
    assert digest.hexdigest()[:16] == "7b76edcf599ee0b3"


def test_videos_have_crossings_gaps_and_exits(filmed: dict[str, VideoSource]) -> None:
    crossings = gaps = exits = entries = 0
    for source in filmed.values():
        assert len(source) == videos.FRAMES * len(source.followed.videos)
        for video in source.followed.videos:
            frames = [source.objects(i).tolist() for i in range(video.start, video.stop)]
            crossings += any(_overlapping(source, i) for i in range(video.start, video.stop))
            for number in {n for frame in frames for n in frame}:
                there = np.array([number in frame for frame in frames])
                first, last = int(there.argmax()), videos.FRAMES - int(there[::-1].argmax())
                gaps += not there[first:last].all()
                exits += last < videos.FRAMES
                entries += first > 0
    assert crossings > 0.9 * sum(videos.COUNTS.values())
    assert min(gaps, exits, entries) > 30


def _overlapping(source: VideoSource, index: int) -> bool:
    boxes = source.truth(index).xyxy
    return bool((iou(boxes, boxes) - np.eye(len(boxes), dtype=np.float32) > 0.3).any())


def test_an_object_keeps_its_class_and_moves_steadily(filmed: dict[str, VideoSource]) -> None:
    source = filmed["test"]
    for video in source.followed.videos:
        seen: dict[int, tuple[int, int, float, float]] = {}
        for index in range(video.start, video.stop):
            boxes = source.truth(index)
            for number, kind, box in zip(source.objects(index), boxes.classes, boxes.xyxy, strict=True):
                inside = box[0] > 0 and box[1] > 0 and box[2] < scenes.WIDTH and box[3] < scenes.HEIGHT
                if number in seen and inside:
                    before, then, x, y = seen[number]
                    assert before == kind
                    steps = index - then
                    assert abs(box[0] - x) <= videos.SPEEDS[1] * steps + 1
                    assert abs(box[1] - y) <= videos.SPEEDS[1] * steps + 1
                if inside:
                    seen[number] = (int(kind), index, float(box[0]), float(box[1]))


def test_files_in_motchallenges_layout_say_the_same(filmed: dict[str, VideoSource], tmp_path: Path) -> None:
    source = filmed["val"]
    folders = write_videos(source, tmp_path / "train")
    assert [folder.name for folder in folders] == [video.name for video in source.followed.videos]
    found = read_any(str(tmp_path), DataOptions())[0]["train"]
    assert isinstance(found, VideoSource)
    assert found.followed.videos == source.followed.videos
    assert np.array_equal(found.followed.objects, source.followed.objects)
    assert np.array_equal(found.boxes.xyxy, source.boxes.xyxy)
    names = [found.classes[k] for k in found.boxes.classes]
    assert names == [source.classes[k] for k in source.boxes.classes]
    assert np.array_equal(found.image(17), source.image(17))
    assert found.split_key(17) == source.split_key(17) == b"val-01"

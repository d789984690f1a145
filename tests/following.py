"""Objects that move, made here: boxes of frames whose truth is known, and files of them as MOTChallenge has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from msresnet.boxes import Boxes
from msresnet.data.sources.digit_scenes import HEIGHT, WIDTH
from msresnet.data.videos import VideoSource
from msresnet.results import Detections, Tracks
from msresnet.track.association import Association, Rules
from msresnet.track.figures import Truth

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Frame = dict[int, tuple[float, float, float, float]]
"""Where each object is, by its number."""


def moving(starts: Iterable[tuple[float, float]], steps: Iterable[tuple[float, float]], frames: int) -> list[Frame]:
    """Boxes of 20 pixels a side that go straight on: x, y and how far from frame to frame."""
    ways = list(zip(starts, steps, strict=True))
    return [
        {n: (x + t * dx, y + t * dy, x + t * dx + 20, y + t * dy + 20) for n, ((x, y), (dx, dy)) in enumerate(ways, 1)}
        for t in range(frames)
    ]


def without(frames: Sequence[Frame], number: int, gone: range) -> list[Frame]:
    """The same, one object not being there for a while."""
    return [{n: box for n, box in frame.items() if n != number or t not in gone} for t, frame in enumerate(frames)]


def detections(frame: Frame, score: float = 0.9, looks: dict[int, Floats] | None = None) -> Detections:
    """A frame as a detector would see it."""
    boxes = np.array(list(frame.values()), np.float32).reshape(-1, 4)
    vectors = None if looks is None else (np.array([looks[n] for n in frame], np.float32).reshape(len(frame), -1),)
    scores, classes = np.full(len(boxes), score, np.float32), np.zeros(len(boxes), np.int64)
    return Detections(("frame",), ("thing",), (boxes,), (scores,), (classes,), vectors)


def followed(frames: Iterable[Detections], rules: Rules) -> Tracks:
    """What an association makes of frames."""
    association = Association(rules)
    found = [tracks for frame in frames for tracks in association.add(frame)]
    return Tracks.joined(found + association.finish())


def truth(frames: Sequence[Frame]) -> Truth:
    """The same as a truth."""
    boxes = [Boxes.of(list(frame.values()), [0] * len(frame)) for frame in frames]
    return Truth(boxes, [np.array(list(frame), np.int64) for frame in frames])


def tracks(frames: Sequence[Frame]) -> Tracks:
    """The same as an answer."""
    found = Detections.joined([detections(frame) for frame in frames])
    return Tracks(found, tuple(np.array(list(frame), np.int64) for frame in frames))


def mot_lines(frames: Sequence[Frame], tail: str) -> str:
    """The same as MOTChallenge's text; `tail` are the columns from the seventh on."""
    return "".join(
        f"{t},{n},{left + 1:g},{top + 1:g},{right - left:g},{bottom - top:g}{tail}\n"
        for t, frame in enumerate(frames, 1)
        for n, (left, top, right, bottom) in frame.items()
    )


def write(path: Path, text: str) -> Path:
    """A file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_videos(source: VideoSource, folder: Path) -> list[Path]:
    """Write the videos of a source in MOTChallenge's layout, the frames as PNG; gives the folder of each."""
    folders = []
    for video in source.followed.videos:
        place = folder / video.name
        (place / "img1").mkdir(parents=True, exist_ok=True)
        (place / "gt").mkdir(exist_ok=True)
        lines = []
        for frame, index in enumerate(range(video.start, video.stop), 1):
            Pillow.fromarray(source.image(index)[0]).save(place / "img1" / f"{frame:06d}.png")
            lines += _lines(source.truth(index), source.objects(index), frame)
        (place / "gt" / "gt.txt").write_text("".join(lines))
        (place / "gt" / "labels.txt").write_text("".join(f"{name}\n" for name in source.classes))
        facts: dict[str, object] = {"name": video.name, "imDir": "img1", "frameRate": f"{video.rate:g}"}
        facts |= {"seqLength": video.stop - video.start, "imWidth": WIDTH, "imHeight": HEIGHT, "imExt": ".png"}
        text = "".join(f"{key}={value}\n" for key, value in facts.items())
        (place / "seqinfo.ini").write_text(f"[Sequence]\n{text}")
        folders.append(place)
    return folders


def _lines(boxes: Boxes, objects: npt.NDArray[np.int64], frame: int) -> list[str]:
    """Lines of MOTChallenge's truth, where frames, pixels and classes count from 1."""
    return [
        f"{frame},{who},{left + 1:g},{top + 1:g},{right - left:g},{bottom - top:g},1,{kind + 1},1\n"
        for (left, top, right, bottom), kind, who in zip(boxes.xyxy, boxes.classes, objects, strict=True)
    ]

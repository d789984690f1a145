"""Frames of videos as images with boxes, and which boxes of different frames show the same object.

V videos, N frames in all of them, M boxes in all frames.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from msresnet.data.boxed import BoxedSource
from msresnet.data.sample import Image

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Video:
    """One video: its name, the indices of its first frame and of the first one after it, and frames per second."""

    name: str
    start: int
    stop: int
    rate: float


@dataclass(frozen=True)
class Followed:
    """What is known of the frames of a source beside their boxes.

    Args:
        videos: behind each other, without gaps (V).
        objects: the number of each box's object within its video (M,), from 1; 0 for a crowd.
    """

    videos: tuple[Video, ...]
    objects: Ints

    def place(self, index: int) -> int:
        """Which of the videos a frame belongs to."""
        return bisect_right(self.videos, index, key=lambda video: video.stop)

    def video(self, index: int) -> Video:
        """The video of a frame."""
        return self.videos[self.place(index)]


class VideoSource(BoxedSource):
    """Frames of videos; those of a video stay on one side of a split.

    Args:
        frames: the images with their boxes.
        followed: the videos, and the objects.
        ids: N texts; None takes those of the frames.
    """

    def __init__(self, frames: BoxedSource, followed: Followed, ids: Sequence[str] | None = None) -> None:
        super().__init__(frames.classes, frames.ids if ids is None else ids, np.diff(frames.first), frames.boxes)
        self.frames, self.followed = frames, followed
        spans = [followed.objects[self.first[video.start] : self.first[video.stop]] for video in followed.videos]
        self._before = np.cumsum([0, *(int(span.max(initial=0)) for span in spans)])

    def image(self, index: int, at_least: tuple[int, int] | None = None) -> Image:
        """One frame (C, H, W)."""
        return self.frames.image(index, at_least)

    def objects(self, index: int) -> Ints:
        """The numbers of the objects in one frame, in the order of `truth`; 0 for a crowd."""
        return self.followed.objects[self.first[index] : self.first[index + 1]]

    def identities(self, index: int) -> Ints:
        """The same, other numbers in each video (M,)."""
        objects = self.objects(index)
        return np.where(objects > 0, objects + self._before[self.followed.place(index)], 0)

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of one frame as it came."""
        return self.frames.size(index)

    def split_key(self, index: int) -> bytes:
        """The name of the video."""
        return self.followed.video(index).name.encode("utf-8", "surrogateescape")

    def path(self, index: int) -> Path | None:
        """The frame's file."""
        return self.frames.path(index)

    def files(self, index: int) -> list[Path]:
        """The frame's file, and that of the truth."""
        return self.frames.files(index)

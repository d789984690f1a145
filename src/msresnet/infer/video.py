"""Images from videos and cameras, and into videos. The only home of OpenCV, which the extra `video` brings."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from msresnet.data.decode import MAX_PIXELS, open_regular, printable
from msresnet.data.sample import Image
from msresnet.errors import DataError, ResourceError
from msresnet.files import PART, disk_errors

VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv")
CAMERA = re.compile(r"camera:(\d{1,3})")
_STARTS = (b"\x1aE\xdf\xa3", b"RIFF", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"OggS", b"FLV", b"0&\xb2u")
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
"""How files of the formats above begin. Others, such as playlists that name further files, reach no parser."""
MOST_RATE = 1000.0
MISSING = 0.05
"""Share of the frames that a video may lack of what its header says, which is often an estimate."""


def is_video(text: str) -> bool:
    """Whether a text names a video or a camera."""
    return text.lower().endswith(VIDEOS) or CAMERA.fullmatch(text) is not None


def frames(text: str, every: float | None) -> Iterator[tuple[str, Image]]:
    """An image (C, H, W) each time so many seconds have passed, beginning with the first; None: all. Ids say when.

    A camera goes on until somebody stops it. Where a file changes its size, OpenCV keeps to that of the first frame.
    Raises DataError for what cannot be opened, and, after what could be read, for a video that breaks off;
    ResourceError without OpenCV.
    """
    camera, where = CAMERA.fullmatch(text), printable(text)
    opencv = _opencv()
    if camera is None:
        _check_format(text, where)
        capture = opencv.VideoCapture(text, opencv.CAP_FFMPEG)
    else:
        capture = opencv.VideoCapture(int(camera[1]))
    try:
        if not capture.isOpened():
            hint = "another number, such as camera:0" if camera else "ffmpeg -i VIDEO says more"
            raise DataError(f"cannot open the {'camera' if camera else 'video'}", where=where, hint=hint)
        _check_pixels(opencv, capture, where)
        yield from _due(opencv, capture, where, every)
    finally:
        capture.release()


def _due(opencv: ModuleType, capture: Any, where: str, every: float | None) -> Iterator[tuple[str, Image]]:
    due, count, start = 0.0, 0, None
    while capture.grab():
        count += 1
        now = capture.get(opencv.CAP_PROP_POS_MSEC) / 1000
        start = now if start is None else start
        if every is not None and now - start < due - 1e-6:
            continue
        good, picture = capture.retrieve()
        if not good:
            break
        yield f"{where}#t={now - start:.2f}s", _rgb(picture)
        if every is not None:
            due = every * (int((now - start) / every + 1e-6) + 1)
    expected = int(capture.get(opencv.CAP_PROP_FRAME_COUNT))
    if count == 0 or count < (1 - MISSING) * expected - 2:
        why = f"{count:,} of about {max(expected, 0):,} frames can be read"
        raise DataError("the video breaks off", where=where, why=why, hint="what could be read is answered")


def check_video(text: str) -> None:
    """Raise DataError for what is not a file or does not begin as videos do, ResourceError without OpenCV."""
    _opencv()
    if not CAMERA.fullmatch(text):
        _check_format(text, printable(text))


def rate_of(text: str) -> float | None:
    """Frames per second of a video, by its header; None of a camera, and where it does not say."""
    if CAMERA.fullmatch(text):
        return None
    opencv = _opencv()
    _check_format(text, printable(text))
    capture = opencv.VideoCapture(text, opencv.CAP_FFMPEG)
    try:
        rate = float(capture.get(opencv.CAP_PROP_FPS))
    finally:
        capture.release()
    return rate if MOST_RATE >= rate > 0 else None


class Film:
    """A video that is being written; it has its name when it is whole.

    Args:
        path: ends in .mp4, .avi or .mkv; what is there is replaced.
        rate: frames per second.

    Raises ResourceError without OpenCV, and where it cannot write such a file.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate, self.opencv = path, rate, _opencv()
        self.part = path.with_name(f".{os.getpid()}-{path.stem}{PART}{path.suffix}")
        self.size: tuple[int, int] | None = None
        self.writer: Any = None

    def add(self, image: Image) -> None:
        """The next frame (3, H, W); of another size than the first, it is brought to that."""
        picture = np.ascontiguousarray(image[::-1].transpose(1, 2, 0))
        height, width = picture.shape[:2]
        if self.size is None:
            self.size = height, width
            code = self.opencv.VideoWriter.fourcc(*("MJPG" if self.path.suffix.lower() == ".avi" else "mp4v"))
            self.writer = self.opencv.VideoWriter(str(self.part), code, self.rate, (width, height))
        if not self.writer.isOpened():
            raise ResourceError("OpenCV cannot write the video", where=str(self.path), hint="a name that ends in .avi")
        if (height, width) != self.size:
            picture = self.opencv.resize(picture, self.size[::-1], interpolation=self.opencv.INTER_AREA)
        self.writer.write(picture)

    def close(self) -> None:
        """Finish the file. Raises ResourceError where nothing of it reached the disk."""
        if self.writer is None:
            return
        self.writer.release()
        with disk_errors(self.path):
            if not self.part.is_file() or not self.part.stat().st_size:
                raise ResourceError("OpenCV wrote no video", where=str(self.path), why="the disk may be full")
            self.part.replace(self.path)

    def discard(self) -> None:
        """Remove what was written."""
        if self.writer is not None:
            self.writer.release()
        self.part.unlink(missing_ok=True)


def _rgb(picture: Any) -> Image:
    """(H, W, 3) blue first -> (3, H, W) red first; grey (H, W) -> (1, H, W)."""
    if picture.ndim == 2:
        return np.ascontiguousarray(picture[None])
    return np.ascontiguousarray(picture[:, :, 2::-1].transpose(2, 0, 1))


def _check_format(path: str, where: str) -> None:
    with open_regular(path) as file:
        start = file.read(12)
    if not start.startswith(_STARTS) and start[4:8] not in _BOXES:
        raise DataError("cannot open the video", where=where, why="it does not begin as videos do")


def _check_pixels(opencv: ModuleType, capture: Any, where: str) -> None:
    width, height = (capture.get(p) for p in (opencv.CAP_PROP_FRAME_WIDTH, opencv.CAP_PROP_FRAME_HEIGHT))
    if width * height > MAX_PIXELS:
        raise DataError("the video is too large", where=where, why=f"{width:.0f}x{height:.0f} pixels a frame")


def _opencv() -> ModuleType:
    # Without it, the decoder writes to the terminal by itself; it is read when the library is first used.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        hint = 'pip install "msresnet[video]"'
        raise ResourceError("videos and cameras need OpenCV", why=str(error), hint=hint) from error

"""Frames one after the other: of a video, a camera, or a folder whose names give the order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from msresnet.data.decode import decode_file, printable
from msresnet.data.sample import Image
from msresnet.data.sources.folder import by_number, entries, is_image
from msresnet.data.sources.mot import IMAGES
from msresnet.errors import DataError, UsageError
from msresnet.infer.video import check_video, frames, is_video


@dataclass(frozen=True)
class Frame:
    """One frame: its name and its pixels (C, H, W) uint8, or why there are none."""

    name: str
    image: Image | None
    error: DataError | None = None


def frames_of(text: str) -> Iterator[Frame]:
    """All frames of a video, a camera or a folder. A camera goes on until somebody stops it.

    A frame of a folder that cannot be read is one without an image. Raises at once UsageError for what does not move,
    DataError for what is absent or does not begin as videos do, ResourceError without OpenCV; while reading DataError
    for what cannot be opened, and for a video that breaks off after what could be read of it.
    """
    folder = Path(text)
    if folder.is_dir():
        return _files(folder / IMAGES if (folder / IMAGES).is_dir() else folder)
    if is_video(text):
        check_video(text)
        return (Frame(name, image) for name, image in frames(text, None))
    if folder.exists():
        why = "it is neither a video nor a folder of frames"
        raise UsageError(f"{printable(text)} cannot be followed", why=why, hint="msresnet predict, for images")
    raise DataError("there is no such video", where=printable(text), hint="a video, a folder of frames, or camera:0")


def _files(folder: Path) -> Iterator[Frame]:
    """The images in a folder, 2 before 10."""
    names = sorted((path.name for path in entries(folder) if is_image(path) and path.is_file()), key=by_number)
    if not names:
        raise DataError("no frame was found", where=printable(folder), hint="a folder with .jpg, .png, ... files")
    return (_read(folder / name) for name in names)


def _read(path: Path) -> Frame:
    name = printable(path)
    try:
        return Frame(name, decode_file(path))
    except DataError as error:
        return Frame(name, None, error)

"""Videos with the truth about their objects, as MOTChallenge has them (arXiv 1603.00831).

    train/MOT17-02/img1/000001.jpg ...   gt/gt.txt   seqinfo.ini

A line of the truth is frame, object, x, y, w, h, and perhaps more: whether it counts, class, visibility; or, as MOT15
has it, whether it counts and a place in the world. Frames and pixels count from 1. gt/labels.txt may name the classes.
What does not count is kept, to be ignored, if it is like a person; videos without a truth teach nothing. Images that
are called by numbers are the frames of these numbers, others follow in the order of the numbers in their names.
"""

from __future__ import annotations

import configparser
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from msresnet.boxes import Boxes
from msresnet.data.boxed import BoxedFiles
from msresnet.data.decode import printable, read_regular, refuse_pointer
from msresnet.data.names import class_name
from msresnet.data.sample import Source
from msresnet.data.sources.annotated import Gathered, settled
from msresnet.data.sources.folder import SPLITS, by_number, entries, is_image
from msresnet.data.videos import Followed, Video, VideoSource
from msresnet.errors import DataError

IMAGES, TRUTH, LABELS, INFO = "img1", "gt/gt.txt", "gt/labels.txt", "seqinfo.ini"
Ints = npt.NDArray[np.int64]
MOST_BYTES, MOST_INFO = 512 << 20, 1 << 20
COLUMNS = (6, 9, 10)
UNKNOWN, PERSON = -1, "pedestrian"
"""MOT15 has a place in the world where later years have the class; all objects are people."""
LIKE_PEOPLE = (2, 7, 8, 12)
"""Classes of MOT16, 17 and 20 that neither teach nor count: people on vehicles, sitting, on posters, mirrored."""
IN_MOT20 = (*LIKE_PEOPLE, 6)
"""In videos of MOT20 vehicles without a motor too, as TrackEval has it."""
RATE = 30.0
"""Frames per second where nothing is said."""


@dataclass(frozen=True)
class Row:
    """A line of the truth: frame from 1, object, xyxy from 0, whether it counts, class, and where it stands."""

    frame: int
    number: int
    corners: tuple[float, float, float, float]
    counts: bool
    kind: int
    place: str


def mot_sets(root: Path) -> tuple[dict[str, Source], list[str]]:
    """The sets of videos below a folder, by split, and what was inferred; none where it holds no such.

    Raises DataError, naming file and line.
    """
    found = _videos(root)
    if not found:
        return {}, []
    notes: list[str] = []
    gathered, videos = {}, {}
    for split, folders in found.items():
        known = [folder for folder in folders if (folder / TRUTH).is_file()]
        if without := [folder.name for folder in folders if folder not in known]:
            notes.append(f"{split}: {len(without)} videos without {TRUTH} were left aside ({', '.join(without[:3])})")
        if known:
            gathered[split], videos[split] = _gathered(root, known, notes)
    if not gathered:
        raise DataError("no video has a truth", where=printable(root), why=f"none holds {TRUTH}")
    raws = {split: part.cut() for split, part in gathered.items()}
    sets, more = settled(raws, "MOTChallenge")
    followed = {split: Followed(videos[split], raw.tags) for split, raw in raws.items()}
    return {split: VideoSource(BoxedFiles(part), followed[split]) for split, part in sets.items()}, more + notes


def _videos(root: Path) -> dict[str, list[Path]]:
    """The folders of videos, by split."""
    if _is_video(root):
        return {"train": [root]}
    below = {entry.name.lower(): entry for entry in entries(root) if entry.is_dir()}
    found: dict[str, list[Path]] = {}
    for split, words in SPLITS.items():
        folders = [below[word] for word in words if word in below]
        if videos := [entry for folder in folders for entry in entries(folder) if _is_video(entry)]:
            found[split] = videos
    videos = [entry for entry in below.values() if _is_video(entry)]
    return found or ({"train": videos} if videos else {})


def _is_video(folder: Path) -> bool:
    return (folder / IMAGES).is_dir() and ((folder / TRUTH).is_file() or (folder / INFO).is_file())


def _gathered(root: Path, folders: list[Path], notes: list[str]) -> tuple[Gathered, tuple[Video, ...]]:
    """The frames of some videos, each box with the number of its object, 0 for what does not count."""
    found, videos, named = Gathered(root), list[Video](), dict[str, Path]()
    for folder in folders:
        size, rate = _info(folder)
        other = named.setdefault(printable(folder.name), folder)
        if other is not folder:
            why = f"{printable(other)} has it too"
            raise DataError("two videos of a set have one name", where=printable(folder), why=why)
        frames = _frames(folder / IMAGES)
        rows, names, like = read_truth(folder / TRUTH), _names(folder), _like_people(folder)
        last = max((row.frame for row in rows), default=0)
        if last > len(frames):
            why = f"the truth goes on to frame {last:,}, there are {len(frames):,} images"
            raise DataError("the truth is longer than the video", where=printable(folder), why=why)
        if last < len(frames):
            notes.append(f"{printable(folder.name)}: the truth ends at frame {last:,} of {len(frames):,}")
        by_frame = _by_frame(rows, len(frames))
        start = len(found.names)
        for path, in_frame in zip(frames, by_frame, strict=True):
            found.image(path.relative_to(root).as_posix(), size, folder / TRUTH)
            for row in in_frame:
                if (label := _label(row, names, like)) is not None:
                    number = row.number if row.counts else 0
                    found.box(label, row.corners, f"{folder.name}, {row.place}", not row.counts, number)
        videos.append(Video(printable(folder.name), start, len(found.names), rate))
    return found, tuple(videos)


def _frames(folder: Path) -> list[Path]:
    """The images in a folder, in the order of their numbers.

    Raises DataError where they are called by numbers alone and these are not 1, 2, 3 and so on.
    """
    paths = sorted((path for path in entries(folder) if is_image(path)), key=lambda path: by_number(path.name))
    if not all(path.stem.isdecimal() and path.stem.isascii() for path in paths):
        return paths
    for number, path in enumerate(paths, 1):
        if int(path.stem) != number:
            before = f"after {printable(paths[number - 2].name)} comes" if number > 1 else "the first is"
            why = f"{before} {printable(path.name)}"
            raise DataError("the frames are not numbered 1, 2, 3, ...", where=printable(folder), why=why)
    return paths


def read_uncut(path: Path, frames: int, answers: bool = False) -> list[tuple[Boxes, Ints]]:
    """The lines of a truth, or of `answers`, by frame: boxes, also beyond the image, and objects, 0 for the ignored.

    Raises DataError, naming the line, also for a frame after the last.
    """
    rows, folder = read_truth(path, answers), path.parent.parent
    names, like = _names(folder), _like_people(folder)
    for row in rows:
        if row.frame > frames:
            why = f"there is a frame {row.frame:,}, and the video has {frames:,}"
            raise DataError("the file is longer than the video", where=f"{printable(path)}, {row.place}", why=why)
    found = []
    for part in _by_frame(rows, frames):
        kept = [row for row in part if _label(row, names, like) is not None]
        numbers = np.array([row.number if row.counts else 0 for row in kept], np.int64)
        found.append((Boxes.of([row.corners for row in kept], np.zeros(len(kept))), numbers))
    return found


def _by_frame(rows: list[Row], frames: int) -> list[list[Row]]:
    found: list[list[Row]] = [[] for _ in range(frames)]
    for row in rows:
        found[row.frame - 1].append(row)
    return found


def _like_people(folder: Path) -> tuple[int, ...]:
    """The classes in a video that are ignored where they do not count."""
    return IN_MOT20 if folder.name.upper().startswith("MOT20") else LIKE_PEOPLE


def _label(row: Row, names: dict[int, str] | None, like: tuple[int, ...]) -> str | None:
    """The name of a box's class; None for what is not asked about."""
    if names is not None:
        return names.get(row.kind, str(row.kind))
    if row.kind in (UNKNOWN, 1):
        return PERSON
    return PERSON if row.kind in like and not row.counts else None if not row.counts else str(row.kind)


def _names(folder: Path) -> dict[int, str] | None:
    """The names of the classes from 1 on, one a line of gt/labels.txt; None where there is no such file."""
    path = folder / LABELS
    if not path.is_file():
        return None
    lines = read_regular(path, MOST_INFO).decode("utf-8-sig", "replace").splitlines()
    return {number: class_name(line.strip()) for number, line in enumerate(lines, 1) if line.strip()}


def _info(folder: Path) -> tuple[tuple[int, int], float]:
    """(H, W) of the frames, or (0, 0), and the frames per second, from seqinfo.ini. Raises DataError."""
    path = folder / INFO
    if not path.is_file():
        return (0, 0), RATE
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_regular(path, MOST_INFO).decode("utf-8-sig", "replace"))
        section = parser["Sequence"]
        size = section.getint("imHeight", 0), section.getint("imWidth", 0)
        rate = section.getfloat("frameRate", RATE)
    except (configparser.Error, KeyError, ValueError) as error:
        raise DataError("the file says nothing of a video", where=printable(path), why=str(error)[:200]) from error
    if not (math.isfinite(rate) and rate > 0) or min(size) < 0:
        raise DataError("a video has no such rate or size", where=printable(path), why=f"{rate:g} frames/s, {size}")
    return size if all(size) else (0, 0), rate


def read_truth(path: Path, answers: bool = False) -> list[Row]:
    """The lines of a truth, or of `answers`, all of which count. Raises DataError, naming the line."""
    data = read_regular(path, MOST_BYTES)
    refuse_pointer(data[:64], printable(path))
    lines = data.decode("utf-8-sig", "replace").splitlines()
    rows = list(_rows(lines, path, answers))
    seen: dict[tuple[int, int], Row] = {}
    for row in rows:
        if row.counts and (first := seen.setdefault((row.frame, row.number), row)) is not row:
            why = f"{first.place} has object {row.number} in frame {row.frame} too"
            raise DataError("an object is twice in a frame", where=f"{printable(path)}, {row.place}", why=why)
    return rows


def _rows(lines: list[str], path: Path, answers: bool) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{printable(path)}, line {number:,}"
        words = line.replace(",", " ").split()
        if len(words) not in COLUMNS:
            why = "6, 9 or 10 belong there: frame, object, x, y, w, h, counts, class, visibility"
            raise DataError(f"the line has {len(words)} columns", where=where, why=why)
        try:
            values = [float(word) for word in words]
        except ValueError as error:
            raise DataError("the line holds something beside numbers", where=where, why=str(error)[:80]) from error
        yield _row(values, where, f"line {number}", answers)


def _row(values: list[float], where: str, place: str, answers: bool) -> Row:
    """One line of numbers, the seventh of `answers` being how sure they are. Raises DataError for what cannot be."""
    frame, number, left, top, width, height = values[:6]
    if not all(map(math.isfinite, values)) or max(map(abs, values[:6])) > 1e9:
        raise DataError("the line holds what is not a number", where=where, why=str(values)[:80])
    if frame < 1 or frame != int(frame):
        raise DataError(f"there is no frame {frame:g}", where=where, why="frames count from 1")
    if number != int(number):
        raise DataError(f"there is no object {number:g}", where=where, why="objects are whole numbers")
    if width < 0 or height < 0:
        raise DataError("a box is turned inside out", where=where, why=f"its width is {width:g}, its height {height:g}")
    counts = answers or len(values) == 6 or values[6] != 0
    if counts and number < 1:
        raise DataError(f"there is no object {number:g}", where=where, why="objects count from 1")
    kind = int(values[7]) if len(values) == 9 and values[7] == int(values[7]) else UNKNOWN
    corners = (left - 1, top - 1, left - 1 + width, top - 1 + height)
    return Row(int(frame), int(number), corners, counts, kind, place)

"""What `predict` and `explain` take: files, folders, patterns, archives, videos, addresses, standard input.

Names are found one by one, so that a million of them cost no more memory than ten.
"""

from __future__ import annotations

import fnmatch
import glob
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from msresnet.data.decode import MAX_BYTES, decode_bytes, open_regular, printable, read_regular
from msresnet.data.resize import reduced
from msresnet.data.sample import Image
from msresnet.data.sources.folder import is_picture
from msresnet.errors import DataError, ResourceError, UsageError
from msresnet.infer.archives import images_in, is_archive
from msresnet.infer.remote import fetch, is_url, shown
from msresnet.infer.video import CAMERA, frames, is_video

STDIN = "-"
SORTED = 10_000
"""Names of a folder up to which they come in their order; of larger folders, they come as the system gives them."""
MOST_LINE = 1 << 16
"""Bytes of a line in a list; no path or address is longer."""
PREVIEW = 1024
"""Longest side, in pixels, of an image that is shown beside its answer."""


@dataclass(frozen=True)
class Input:
    """One image to be: its name, and what is known of it.

    Args:
        id: its name in the answers.
        read: how its bytes are read; None where there are pixels, or none.
        pixels: uint8 (C, H, W), of a video.
        error: why there is no image.
        path: of its file, where it is one.
        within: the file that it is a part of, such as an archive.
    """

    id: str
    read: Callable[[], bytes] | None = None
    pixels: Image | None = None
    error: DataError | None = None
    path: str | None = None
    within: str | None = None

    @property
    def file(self) -> str | None:
        """The file that an argument names to mean this image."""
        return self.path or self.within

    def decode(self, at_least: tuple[int, int] | None = None) -> Image | DataError:
        """The image (C, H, W) uint8, or why there is none; `at_least` as `Preprocess` says it."""
        return self.decode_with_preview(at_least, preview=False)[0]

    def decode_with_preview(
        self, at_least: tuple[int, int] | None, preview: bool
    ) -> tuple[Image | DataError, Image | None]:
        """The same, and the image reduced to PREVIEW pixels, where that is asked for."""
        try:
            if self.error is not None:
                raise self.error
            if self.pixels is not None:
                return self.pixels, reduced(self.pixels, PREVIEW) if preview else None
            assert self.read is not None
            data = self.read()
            shown_at = (PREVIEW, PREVIEW) if preview else None
            image = decode_bytes(data, self.id, at_least)
            return image, reduced(decode_bytes(data, self.id, shown_at), PREVIEW) if preview else None
        except DataError as error:
            return error if error.where else DataError(error.what, where=self.id, why=error.why, hint=error.hint), None

    def open(self) -> BinaryIO:
        """The file, for readers of large images. Raises DataError."""
        if self.error is not None:
            raise self.error
        if self.path is not None:
            return open_regular(self.path)
        if self.read is None:
            raise DataError("tiles are for images", where=self.id, why="this is a frame of a video")
        return io.BytesIO(self.read())


@dataclass(frozen=True)
class Allowed:
    """What a user said about inputs: whether addresses are fetched, and how often videos are looked at, in seconds."""

    urls: bool = False
    every: float = 1.0


def expand(inputs: Sequence[str], stdin: BinaryIO, allowed: Allowed = Allowed()) -> Iterator[Input]:
    """The images that are meant, one by one; an empty folder or pattern is one that cannot be read.

    What two arguments name comes once. Raises UsageError at once when nothing was named, or an address without
    permission.
    """
    if not inputs:
        raise UsageError("no image was named", hint="msresnet predict photo.jpg, a folder, 'photos/*.jpg', or -")
    for text in inputs:
        if is_url(text) and not allowed.urls:
            raise UsageError("addresses are not fetched", where=shown(text), hint="--allow-urls")
    return _each(list(dict.fromkeys(inputs)), stdin, allowed)


def standard_input() -> BinaryIO:
    """What `-` is read from; nothing where it is closed."""
    return sys.stdin.buffer if sys.stdin else io.BytesIO()


def may_move(text: str) -> bool:
    """Whether an argument may stand for a video or a camera."""
    return text == STDIN or is_video(text) or glob.has_magic(text)


def _each(words: list[str], stdin: BinaryIO, allowed: Allowed) -> Iterator[Input]:
    for number, text in enumerate(words):
        before = Named(words[:number] if text != STDIN else [w for w in words if w != STDIN])
        found = _standard_input(stdin, allowed) if text == STDIN else _named(text, allowed)
        yield from (item for item in found if item.file is None or not before.covers(item.file))


class Named:
    """Which files some arguments name, without a list of them."""

    def __init__(self, words: Sequence[str]) -> None:
        paths = [os.path.abspath(word) for word in words if word != STDIN and not is_url(word)]  # noqa: PTH100 - links stay
        self.files = set(paths)
        self.folders = tuple(os.path.join(path, "") for path in paths if os.path.isdir(path))  # noqa: PTH118, PTH112
        self.patterns = [_regex(path) for path in paths if glob.has_magic(path) and not os.path.lexists(path)]

    def covers(self, path: str) -> bool:
        """Whether a file is named, and so comes with one of the arguments."""
        if not self.files:
            return False
        path = os.path.abspath(path)  # noqa: PTH100
        if path in self.files:
            return True
        if is_picture(Path(path)) and any(_comes_with(folder, path) for folder in self.folders):
            return True
        return _known(path) and any(pattern.fullmatch(path) for pattern in self.patterns)


def _comes_with(folder: str, path: str) -> bool:
    """Whether `_below` reaches a path: it follows no links between them."""
    if not path.startswith(folder):
        return False
    between = itertools.takewhile(lambda inner: len(str(inner)) >= len(folder), Path(path).parents)
    return not any(inner.is_symlink() for inner in between)


def _regex(pattern: str) -> re.Pattern[str]:
    """A pattern for paths, as `glob` takes it: `**` is any folders, a star is neither a slash nor a leading dot."""
    parts = []
    for part in Path(pattern).parts[1:]:
        if part == "**":
            parts.append(r"(?:/[^/.][^/]*)*")
            continue
        hidden = "" if part.startswith(".") or not glob.has_magic(part) else r"(?!\.)"
        translated = fnmatch.translate(part).removeprefix("(?s:").removesuffix(r")\Z").removesuffix(r")\z")
        parts.append("/" + hidden + translated.replace(".*", "[^/]*"))
    return re.compile("".join(parts), re.DOTALL)


def _named(text: str, allowed: Allowed) -> Iterator[Input]:
    if is_url(text):
        if not allowed.urls:
            yield Input(
                shown(text), error=DataError("addresses are not fetched", where=shown(text), hint="--allow-urls")
            )
            return
        yield Input(shown(text), partial(fetch, text))
    elif CAMERA.fullmatch(text):
        yield from _frames(text, allowed)
    elif os.path.isdir(text):  # noqa: PTH112 - names with a null character are not folders
        yield from _or_nothing(text, (_file(path) for path in _below(text)))
    elif glob.has_magic(text) and not os.path.lexists(text):
        found = (path for path in _matching(text) if _known(path))
        yield from _or_nothing(text, (item for path in found for item in _opened(path, allowed)))
    else:
        yield from _opened(text, allowed)


def _known(path: str) -> bool:
    return is_picture(Path(path)) or is_archive(path) or is_video(path)


def _opened(path: str, allowed: Allowed) -> Iterator[Input]:
    """A file, or the images in it."""
    if is_video(path):
        yield from _frames(path, allowed)
    elif is_archive(path):
        yield from _or_nothing(path, _members(path))
    else:
        yield _file(path)


def _file(path: str) -> Input:
    return Input(path, partial(read_regular, path), path=path)


def _members(path: str) -> Iterator[Input]:
    try:
        for name, read in images_in(path):
            yield Input(name, read, within=path)
    except DataError as error:
        yield Input(path, error=error, within=path)


def _frames(text: str, allowed: Allowed) -> Iterator[Input]:
    try:
        for name, pixels in frames(text, allowed.every):
            yield Input(name, pixels=pixels, within=text)
    except DataError as error:
        yield Input(text, error=error, within=text)


def _or_nothing(text: str, found: Iterator[Input]) -> Iterator[Input]:
    first = next(found, None)
    if first is None:
        hint = "a folder, a pattern or an archive with .jpg, .png, ... files"
        yield Input(text, error=DataError("no image was found", where=printable(text), hint=hint))
        return
    yield first
    yield from found


def _below(folder: str) -> Iterator[str]:
    """The images below a folder: those in it, then those in the folders in it; ones that are not read are told so."""
    yield from _in_order(e.path for e in _entries(folder) if is_picture(Path(e.name)) and not _is_folder(e))
    for inner in _in_order(e.path for e in _entries(folder) if _is_folder(e)):
        yield from _below(inner)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Links to folders are none: they may lead in circles."""
    return entry.is_dir(follow_symlinks=False)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:  # an unreadable folder holds nothing that could be read
        return


def _in_order(names: Iterator[str]) -> Iterator[str]:
    """Names in their order, unless they are too many to be kept."""
    first = list(itertools.islice(names, SORTED))
    return iter(sorted(first)) if len(first) < SORTED else itertools.chain(first, names)


def _matching(pattern: str) -> Iterator[str]:
    """The paths of a pattern. The last part, where the many names are, is matched name by name."""
    folder, last = os.path.split(pattern)
    if not glob.has_magic(last) or last == "**":
        yield from sorted(glob.iglob(pattern, recursive=True))  # noqa: PTH207 - absolute patterns
        return
    hidden = last.startswith(".")
    folders = [folder]
    if glob.has_magic(folder):
        found = glob.iglob(os.path.join(folder, ""), recursive=True)  # noqa: PTH118, PTH207
        folders = [*([""] if folder == "**" else []), *sorted(found)]  # the folder itself, which glob leaves out
    for base in folders:
        names = (e.name for e in _entries(base or os.curdir) if hidden or not e.name.startswith("."))
        yield from (os.path.join(base, name) for name in _in_order(n for n in names if fnmatch.fnmatch(n, last)))  # noqa: PTH118


def _standard_input(stdin: BinaryIO, allowed: Allowed) -> Iterator[Input]:
    """A list of files, one a line, or one image's bytes."""
    start = stdin.read(MOST_LINE)
    if _is_text(start):
        yield from _listed(start, stdin, allowed)
        return
    data = start + stdin.read(MAX_BYTES - len(start))
    yield Input("standard input", lambda: data)


def _is_text(start: bytes) -> bool:
    if b"\0" in start:
        return False
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4 and len(start) == MOST_LINE  # a character that is cut in two
    return True


def _listed(start: bytes, stdin: BinaryIO, allowed: Allowed) -> Iterator[Input]:
    empty = True
    for line in _lines(start, stdin):
        name = os.fsdecode(line).strip()
        if not name:
            continue
        empty = False
        if len(line) >= MOST_LINE:
            yield Input(STDIN, error=DataError("standard input is not a list of files", where=STDIN))
            return
        try:
            yield from _named(name, allowed)
        except ResourceError as error:  # a list goes on without what this machine cannot read
            yield Input(name, error=DataError(error.what, where=printable(name), why=error.why, hint=error.hint))
    if empty:
        hint = "ls *.jpg | msresnet predict -"
        yield Input(STDIN, error=DataError("standard input is empty", where=STDIN, hint=hint))


def _lines(start: bytes, stdin: BinaryIO) -> Iterator[bytes]:
    """The lines of a file whose beginning was read already, each of a bounded length."""
    *lines, rest = start.split(b"\n")
    yield from lines
    while len(rest) < MOST_LINE and (line := stdin.readline(MOST_LINE)):
        rest += line
        if rest.endswith(b"\n"):
            yield rest
            rest = b""
    yield rest

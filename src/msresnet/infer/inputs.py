"""What `predict` and `explain` take: files, folders, patterns, standard input."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from msresnet.data.decode import MAX_BYTES, decode_bytes, decode_file
from msresnet.data.sample import Image
from msresnet.data.sources.folder import is_image
from msresnet.errors import DataError, UsageError

STDIN = "-"


@dataclass(frozen=True)
class Input:
    """One image to be: its name, and its bytes if they are here already, or why there are none."""

    id: str
    data: bytes | None = None
    error: DataError | None = None

    def decode(self, at_least: tuple[int, int] | None = None) -> Image | DataError:
        """The image (C, H, W) uint8, or why there is none; `at_least` as `Preprocess` says it."""
        if self.error is not None:
            return self.error
        try:
            if self.data is None:
                return decode_file(self.id, at_least)
            return decode_bytes(self.data, self.id, at_least)
        except DataError as error:
            return error


def expand(inputs: Sequence[str], stdin: BinaryIO) -> Iterator[Input]:
    """The images that are meant, one by one; an empty folder or pattern is one that cannot be read.

    Raises UsageError when nothing was named.
    """
    if not inputs:
        raise UsageError("no image was named", hint="msresnet predict photo.jpg, a folder, 'photos/*.jpg', or -")
    for text in inputs:
        yield from _standard_input(stdin) if text == STDIN else _named(text)


def _named(text: str) -> Iterator[Input]:
    path = Path(text)
    if path.is_dir():
        found = _below(path)
    elif glob.has_magic(text) and not os.path.lexists(text):
        found = iter(sorted(p for p in glob.glob(text, recursive=True) if is_image(Path(p))))  # noqa: PTH207 - absolute patterns
    else:
        yield Input(text)
        return
    empty = True
    for name in found:
        empty = False
        yield Input(name)
    if empty:
        hint = "a folder or a pattern with .jpg, .png, ... files"
        yield Input(text, error=DataError("no image was found", where=text, hint=hint))


def _below(folder: Path) -> Iterator[str]:
    for base, folders, files in os.walk(folder):
        folders.sort()
        yield from (os.path.join(base, name) for name in sorted(files) if is_image(Path(name)))  # noqa: PTH118


def _standard_input(stdin: BinaryIO) -> Iterator[Input]:
    """A list of files, one a line, or one image's bytes."""
    data = stdin.read(MAX_BYTES)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        yield Input("standard input", data)
        return
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        error = DataError("standard input is empty", where=STDIN, hint="ls *.jpg | msresnet predict -")
        yield Input(STDIN, error=error)
    for name in names:
        yield from _named(name)

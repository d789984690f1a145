"""What is answered into one file: the images of a tar file, of a folder, or of a list of paths.

A shard is gone through as a stream and never unpacked, so its length costs no memory. Nothing of it is read before its
turn comes: ten thousand shards are found as fast as their names are.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, TextIO

from msresnet.data.decode import MAX_BYTES, printable, read_regular, refuse_pointer
from msresnet.data.sources.columns import PATHS, guessed
from msresnet.data.sources.folder import is_image, unreadable
from msresnet.data.sources.tar import members, read_at
from msresnet.data.sources.wds import PREFIX, expand
from msresnet.errors import DataError, UsageError, nearest
from msresnet.infer.inputs import STDIN, Input

TARS, LISTS, TABLES = (".tar", ".tar.gz", ".tgz"), (".txt", ".lst"), (".csv", ".tsv")
EXAMPLE = "msresnet predict 'shards/*.tar' --model RUN --output answers"
MOST_LINE = 1 << 16
"""Characters of a line in a list; no path is longer."""
PROBES = 20
"""Paths of a list that are looked for before it is answered."""


@dataclass(frozen=True)
class Shard(ABC):
    """Images that are answered into one file.

    Args:
        name: of that file, without its ending.
        path: absolute.
    """

    name: str
    path: Path

    @abstractmethod
    def items(self) -> Iterator[Input]:
        """The images, in a fixed order. Raises DataError for a shard that cannot be read to its end."""

    @abstractmethod
    def stamp(self) -> str:
        """What is different when the shard was changed. Raises DataError when it is gone."""


class TarShard(Shard):
    """The images among a tar file's members; an id is the file's and the member's name, as `evaluate` has it."""

    def items(self) -> Iterator[Input]:
        """The images, in the file's order."""
        for member in members(self.path):
            if member.plain and is_image(Path(member.name)):
                name = printable(f"{self.path.name}/{member.name}")
                yield Input(name, partial(_member, self.path, member.start, member.size))

    def stamp(self) -> str:
        """Size and time of change."""
        return _file_stamp(self.path)


class FolderShard(Shard):
    """The images below a folder, by name; an id begins with the folder's name."""

    def items(self) -> Iterator[Input]:
        """The images, folder by folder."""
        for below in self._paths():
            yield Input(printable(f"{self.path.name}/{below}"), partial(read_regular, self.path / below))

    def stamp(self) -> str:
        """A digest of the images' names, sizes and times of change."""
        digest = hashlib.sha256()
        for below in self._paths():
            try:
                status = os.stat(self.path / below)  # noqa: PTH116 - a broken link is an image that cannot be read
                text = f"{status.st_size} {status.st_mtime_ns}"
            except OSError:
                text = "gone"
            digest.update(os.fsencode(below) + f"\0{text}\n".encode())
        return digest.hexdigest()

    def _paths(self) -> Iterator[str]:
        for base, folders, files in os.walk(self.path, onerror=unreadable):
            folders.sort()
            inside = Path(base).relative_to(self.path)
            yield from (str(inside / name) for name in sorted(files) if is_image(Path(name)))


class ListShard(Shard):
    """The images that a text file names, one a line, or a table with a column of paths; an id is the path as it stands.

    Paths are absolute, or relative to the list's folder. A table's column is known by its name, such as `path` or
    `image`; without such a header it is the first.
    """

    def items(self) -> Iterator[Input]:
        """The images, in the list's order."""
        paths = self._paths()
        first = list(itertools.islice(paths, PROBES))
        if first and not any(os.path.lexists(self.path.parent / p) for p in first):
            raise DataError(
                f"none of the first {len(first)} images is there",
                where=printable(self.path),
                why=f"such as {printable(first[0])}",
                hint=f"paths that are absolute, or relative to {printable(self.path.parent)}",
            )
        for path in itertools.chain(first, paths):
            yield Input(printable(path), partial(read_regular, self.path.parent / path))

    def stamp(self) -> str:
        """Size and time of change of the list."""
        return _file_stamp(self.path)

    def _paths(self) -> Iterator[str]:
        try:
            with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                lines = _lines(file, self.path)
                found = self._cells(lines) if self.path.suffix.lower() in TABLES else lines
                yield from (path for text in found if (path := text.strip()))
        except OSError as error:
            raise DataError("cannot read the list", where=printable(self.path), why=error.strerror or "") from error

    def _cells(self, lines: Iterator[str]) -> Iterator[str]:
        rows = csv.reader(lines, delimiter="\t" if self.path.suffix.lower() == ".tsv" else ",")
        try:
            first = next(rows, [])
            named = guessed(first, PATHS)
            column = named[0] if named else 0
            for row in rows if named else itertools.chain([first], rows):
                if len(row) > column:
                    yield row[column]
        except csv.Error as error:
            where = f"{printable(self.path)}, line {rows.line_num:,}"
            raise DataError("the list is not a table", where=where, why=str(error)) from error


def find_shards(words: Sequence[str], stdin: BinaryIO) -> list[Shard]:
    """The shards that paths, patterns and `-` (names on standard input) mean, each once, in this order.

    A folder that holds .tar files stands for those. Raises UsageError for what is not a shard and for two shards of one
    name, DataError for what is not there.
    """
    names = [name for word in words for name in (_listed(stdin) if word == STDIN else [word])]
    if not names:
        raise UsageError("no shard was named", hint=EXAMPLE)
    found: dict[str, Shard] = {}
    for path in (path for name in names for path in _paths(name)):
        shard = _shard(path)
        before = found.setdefault(shard.name, shard)
        if before.path != shard.path:
            where = f"{printable(before.path)} and {printable(shard.path)}"
            why = f"both would be answered into {printable(shard.name)}"
            raise UsageError("two shards have one name", where=where, why=why, hint="an --output for each of the two")
    return list(found.values())


def _listed(stdin: BinaryIO) -> list[str]:
    return [os.fsdecode(line).strip() for line in stdin if line.strip()]


def _paths(text: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        return sorted(p for p in path.glob("*.tar") if p.is_file()) or [path]
    if os.path.lexists(text):
        return [path]
    if "{" in text or text.startswith(PREFIX):
        return expand(text.removeprefix(PREFIX))
    found = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) else []  # noqa: PTH207 - absolute ones too
    if not found:
        close = nearest(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [], 1)
        hint = printable(path.with_name(close)) if close else EXAMPLE
        raise DataError("there is no such shard", where=printable(text), hint=hint)
    return [Path(name) for name in found]


def _shard(path: Path) -> Shard:
    path = Path(os.path.abspath(path))  # noqa: PTH100 - links stay: their names are the shards'
    kinds: dict[type[Shard], Sequence[str]] = {TarShard: TARS, ListShard: (*LISTS, *TABLES)}
    if path.is_dir():
        return FolderShard(path.name or "root", path)
    if not path.is_file():
        raise DataError(
            "this is not a file", where=printable(path), why="a link that leads nowhere, a pipe or a device"
        )
    for kind, endings in kinds.items():
        for ending in endings:
            if path.name.lower().endswith(ending) and len(path.name) > len(ending):
                return kind(path.name[: -len(ending)], path)
    hint = "--output answers.csv, .jsonl or .parquet, or name its folder" if is_image(path) else EXAMPLE
    why = "a shard is a .tar file, a folder, or a .txt or .csv list of paths"
    raise UsageError("this is not a shard", where=printable(path), why=why, hint=hint)


def _member(path: Path, start: int, size: int) -> bytes:
    if size > MAX_BYTES:
        raise DataError("the image is too large", why=f"{size:,} bytes, the limit is {MAX_BYTES:,}")
    return read_at(path, start, size)


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of a list, each of a bounded length."""
    for number in itertools.count(1):
        line = file.readline(MOST_LINE)
        if number == 1:
            refuse_pointer(os.fsencode(line), printable(path))
        if len(line) == MOST_LINE or "\0" in line:
            raise DataError("the list is not a text of paths", where=f"{printable(path)}, line {number:,}")
        if not line:
            return
        yield line


def _file_stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError("cannot read the shard", where=printable(path), why=error.strerror or "") from error
    return f"{status.st_size} bytes, changed at {status.st_mtime_ns}"

"""Text files of paths and labels, one image a row.

The file is read once, as a stream; a row leaves behind the letters of its path and four bytes. Columns are found by
their names; without a header, the column that looks like paths holds the images. Paths are relative to the file's
folder and may not leave it. Absolute ones are taken only where every row has one: a table that some program wrote for
one machine does, and a single stray row does not pass.
"""

from __future__ import annotations

import codecs
import csv
import posixpath
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from msresnet.data.decode import EXTENSIONS, printable, refuse_pointer
from msresnet.data.names import Names, below, spread
from msresnet.data.options import DataOptions
from msresnet.data.sample import UNLABELLED, Source
from msresnet.data.sources import columns
from msresnet.data.sources.folder import SPLITS, FileSource
from msresnet.errors import DataError

HEAD_BYTES, HEAD_ROWS = 1 << 16, 20
"""What is looked at to find out how a table is written."""
PROBES = 20
"""Images that are looked for when a table is opened; the others when they are read."""


@dataclass(frozen=True)
class Layout:
    """How a table is written, and which column holds what (None: none does)."""

    encoding: str
    delimiter: str
    header: list[str]
    width: int
    path_at: int
    label_at: int | None
    split_at: int | None

    def __str__(self) -> str:
        names = self.header or [f"column {i + 1}" for i in range(self.width)]
        label = "no labels" if self.label_at is None else f"labels in {names[self.label_at].strip()!r}"
        split = "" if self.split_at is None else f", sets in {names[self.split_at].strip()!r}"
        return f"a table of paths in {names[self.path_at].strip()!r}, {label}{split}"


@dataclass
class _Rows:
    """The rows of one set: path, number of the label among those seen."""

    paths: Names = field(default_factory=Names)
    codes: array[int] = field(default_factory=lambda: array("i"))


def holds_paths(path: Path, options: DataOptions) -> bool:
    """Whether a text file is a table of paths, and not of pixels. Raises DataError."""
    _, rows = _head(path)
    if options.path_column != "auto":
        return True
    if any(_is_picture(cell) for row in rows[:2] for cell in row):
        return True
    named = columns.guessed(rows[0], columns.PATHS) if rows else []
    numbers = (
        all(columns.number(row[named[0]]) is not None for row in rows[1:] if len(row) > named[0]) if named else True
    )
    return bool(named) and (not numbers or bool(columns.guessed(rows[0], columns.LABELS)))


def table(path: Path, options: DataOptions) -> tuple[dict[str, Source], list[str]]:
    """The sets in a table of paths, by split ('train' where it names none), and what was inferred.

    Raises DataError, naming file and row; UsageError for a column that is not there.
    """
    layout = _layout(path, options)
    reader = _Reader(path, layout)
    reader.read()
    lookup, classes = columns.classes(
        list(reader.labels), lambda place: f"{printable(path)}, row {reader.label_rows[place]:,}"
    )
    found: dict[str, Source] = {}
    for split in [split for split in SPLITS if split in reader.sets]:
        rows = reader.sets[split]
        _probe(path.parent, rows.paths, path)
        codes = np.frombuffer(rows.codes, np.int32)
        if layout.label_at is None:
            used, targets = np.zeros(0, np.int64), np.full(len(codes), UNLABELLED, np.int64)
        else:
            targets = lookup[codes]
            there = np.bincount(targets) > 0
            used, targets = np.flatnonzero(there), (np.cumsum(there) - 1)[targets]
        found[split] = FileSource(path.parent, rows.paths, targets, [classes[i] for i in used])
    common = [f"all paths are absolute, below {printable(reader.common)}"] if reader.absolute else []
    return found, [str(layout), *common]


def lacks_labels(path: Path, train: Path, options: DataOptions) -> bool:
    """Whether a table of paths has the columns of a training table but for its labels."""
    if not (holds_paths(path, options) and holds_paths(train, options)):
        return False
    known, (_, rows) = _layout(train, options), _head(path)
    if known.label_at is None or len(rows[0]) != known.width - 1:
        return False
    return not known.header or known.header[known.label_at] not in rows[0]


def _head(path: Path) -> tuple[str, list[list[str]]]:
    """Delimiter and first rows of a text file."""
    try:
        with path.open("rb") as file:
            start = file.read(HEAD_BYTES)
    except OSError as error:
        raise DataError("cannot read the file", where=printable(path), why=error.strerror or "") from error
    refuse_pointer(start, printable(path))
    text = start.decode("utf-8-sig", "replace")
    lines = [line for line in text.replace("\r", "\n").split("\n") if line.strip()]
    if len(start) == HEAD_BYTES and len(lines) > 1:
        del lines[-1]  # it may go on
    lines = lines[:HEAD_ROWS]
    delimiter = _delimiter(lines)
    try:
        return delimiter, list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise DataError("the file is not a table", where=printable(path), why=str(error)) from error


def _encoding(path: Path) -> str:
    """UTF-8 if all of a file is, else Latin-1, in which everything is text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                decoder.decode(piece)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _delimiter(lines: list[str]) -> str:
    """What makes several columns of all lines, the same number; else of the first line."""
    for delimiter in "\t;, ":
        try:
            widths = {len(row) for row in csv.reader(lines, delimiter=delimiter)}
        except csv.Error:
            continue
        if len(widths) == 1 and widths != {1}:
            return delimiter
    return next((d for d in "\t;," if lines and d in lines[0]), ",")


def _layout(path: Path, options: DataOptions) -> Layout:
    delimiter, rows = _head(path)
    where = printable(path)
    if not rows:
        raise DataError("the file is empty", where=where)
    header, width = rows[0] if _has_header(rows, options) else [], len(rows[0])
    path_at = _path_column(rows, header, options, where)
    split_at = next(iter(columns.guessed(header, columns.SPLITS)), None)
    label_at = _label_column(header, width, {path_at, split_at}, options, where)
    if label_at == path_at:
        raise DataError("path and label are the same column", where=where, hint="--path-column, --label-column")
    split_at = None if split_at in (path_at, label_at) else split_at
    return Layout(_encoding(path), delimiter, header, width, path_at, label_at, split_at)


def _has_header(rows: list[list[str]], options: DataOptions) -> bool:
    if any(_is_picture(cell) for cell in rows[0]):
        return False
    named = {options.path_column, options.label_column} - {"auto", "first", "last", "none"}
    known = columns.guessed(rows[0], columns.PATHS | columns.LABELS | columns.SPLITS)
    return bool(named or known) or any(_is_picture(cell) for row in rows[1:] for cell in row)


def _path_column(rows: list[list[str]], header: list[str], options: DataOptions, where: str) -> int:
    if options.path_column != "auto":
        return columns.asked("--path-column", options.path_column, header, len(rows[0]), where)
    body = rows[1:] if header else rows
    looks = [i for i in range(len(rows[0])) if any(len(row) > i and _is_picture(row[i]) for row in body)]
    named = columns.guessed(header, columns.PATHS)
    # The name decides, unless another column is the one that looks so: 'image' may number the images.
    found = [i for i in named if i in looks] or named or looks
    if len(found) == 1:
        return found[0]
    raise DataError(
        "no column is known to hold paths" if not found else "several columns may hold the paths",
        where=where,
        why=f"the columns are {columns.listed(header)}" if header else f"it has {len(rows[0])} columns and no header",
        hint="a header as in path,label; or --path-column NAME",
    )


def _label_column(
    header: list[str], width: int, taken: set[int | None], options: DataOptions, where: str
) -> int | None:
    """The label's column; None where the user says that there is none."""
    if options.label_column == "none":
        return None
    if options.label_column != "auto":
        return columns.asked("--label-column", options.label_column, header, width, where)
    free = [i for i in range(width) if i not in taken]
    found = [i for i in columns.guessed(header, columns.LABELS) if i in free]
    found = found if found else free[:1] if len(free) == 1 else []
    if len(found) == 1:
        return found[0]
    raise DataError(
        "the table has no column of labels" if not free else "which column holds the labels is not clear",
        where=where,
        why=f"the columns are {columns.listed(header)}" if header else f"it has {width} columns and no header",
        hint="a header as in path,label; or --label-column NAME, first, last or none",
    )


class _Reader:
    """One pass over a table."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path, self.layout = path, layout
        self.inside = posixpath.join(posixpath.normpath(str(path.parent.absolute())), "")
        self.sets: dict[str, _Rows] = {}
        self.labels: dict[str, int] = {}
        self.label_rows = array("q")
        """Where each label appears first."""
        self.absolute, self.common, self.first_absolute = 0, "", 0

    def read(self) -> None:
        """Fill the sets. Raises DataError, naming the row."""
        try:
            with self.path.open(encoding=self.layout.encoding, newline="") as file:
                self._take(self._rows(csv.reader(file, delimiter=self.layout.delimiter)))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError("cannot read the table", where=printable(self.path), why=str(error)) from error
        count = sum(len(rows.paths) for rows in self.sets.values())
        if not count:
            raise DataError("the table holds no row", where=printable(self.path))
        if self.absolute and (self.absolute < count or self.common == "/"):
            why = "absolute paths are taken where every row has one, below a common folder"
            raise self._outside(self.first_absolute, why)

    def _rows(self, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
        """The rows that say something, with their numbers."""
        width, number = self.layout.width, 0
        try:
            for number, row in enumerate(reader, 1):
                if len(row) == width:
                    if number > 1 or not self.layout.header:
                        yield number, row
                elif any(cell.strip() for cell in row):
                    raise self._bad(number, f"the row has {len(row)} columns, the first has {width}")
        except csv.Error as error:
            raise self._bad(number + 1, "the row cannot be read", str(error)) from error

    def _take(self, rows: Iterator[tuple[int, list[str]]]) -> None:
        path_at, label_at, split_at = self.layout.path_at, self.layout.label_at, self.layout.split_at
        by_name: dict[str, _Rows] = {}
        here = self._set("train", 0) if split_at is None else _Rows()
        code: int | None = 0
        for number, row in rows:
            text = row[path_at].strip()
            name = below(text) or self._absolute(text, number)
            if label_at is not None:
                label = row[label_at].strip()
                code = self.labels.get(label)
                if code is None:
                    code = self._new_label(label, number)
            if split_at is not None:
                split = row[split_at]
                if split not in by_name:
                    by_name[split] = self._set(split, number)
                here = by_name[split]
            here.paths.append(name)
            here.codes.append(code or 0)

    def _new_label(self, label: str, number: int) -> int:
        if not label or label.casefold() == "nan":
            raise self._bad(number, "the label is empty" if not label else f"the label is {label}")
        self.labels[label] = len(self.labels)
        self.label_rows.append(number)
        return self.labels[label]

    def _set(self, name: str, number: int) -> _Rows:
        word = name.strip().casefold()
        split = next((split for split, words in SPLITS.items() if word in words), None)
        if split is None:
            raise self._bad(number, f"{printable(name.strip()[:40])!r} is not a set", "a set is train, val or test")
        return self.sets.setdefault(split, _Rows())

    def _absolute(self, text: str, number: int) -> str:
        """An absolute path: relative if it leads below the table's folder, else noted. Raises DataError for others."""
        if not text:
            raise self._bad(number, "the path is empty")
        text = text.replace("\\", "/")
        if not text.startswith("/"):
            raise self._outside(number, f"paths are relative to {printable(self.path.parent)}")
        text = "/" + posixpath.normpath(text).lstrip("/")
        if text.startswith(self.inside):
            return text[len(self.inside) :]
        if not self.absolute:
            self.common, self.first_absolute = posixpath.dirname(text), number
        while not text.startswith(posixpath.join(self.common, "")):
            self.common = posixpath.dirname(self.common)
        self.absolute += 1
        return text

    def _bad(self, number: int, what: str, why: str = "") -> DataError:
        return DataError(what, where=f"{printable(self.path)}, row {number:,}", why=why)

    def _outside(self, number: int, why: str) -> DataError:
        return self._bad(number, "the path leads out of the table's folder", why)


def _probe(root: Path, paths: Names, table: Path) -> None:
    """Raise DataError when none of some images is there: the paths are meant in another way."""
    chosen = [root / paths[i] for i in spread(len(paths), PROBES)]
    try:
        if any(path.exists() for path in chosen):
            return
    except (OSError, ValueError):  # a name that cannot be; reading the image will say so
        return
    raise DataError(
        "the images are not there",
        where=printable(table),
        why=f"of {len(chosen)} that were looked for, none exists, such as {printable(chosen[0])}",
        hint=f"paths are relative to {printable(root)}",
    )


def _is_picture(cell: str) -> bool:
    return posixpath.splitext(cell.strip())[1].lower() in EXTENSIONS

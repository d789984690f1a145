"""Text files of pixels, one image a row, as `numpy.loadtxt(path, delimiter=",")` reads them.

A header row, a byte-order mark, CRLF, ';' or tabs, and Latin-1 are taken as they come. Labels may be words; an index of
pandas is left aside.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import isqrt, prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from msresnet.data.decode import MIN_SIDE, refuse_pointer
from msresnet.data.options import DataOptions
from msresnet.data.preprocess import to_uint8
from msresnet.data.sample import UNLABELLED, ArraySource, Image, Source
from msresnet.data.sources import columns
from msresnet.errors import DataError, UsageError

EXTENSIONS = (".csv", ".txt", ".tsv")
FEWEST = MIN_SIDE**2
"""In a row of no more columns a word is no label: the rest would be no picture."""
Table = npt.NDArray[np.float64]


class PixelSource(ArraySource):
    """The rows of a text file; `white` is the number that stands for white in it, 1 or 255."""

    def __init__(
        self, images: Image, targets: npt.NDArray[np.int64], classes: list[str], name: str, white: int
    ) -> None:
        super().__init__(images, targets, classes, name)
        self.white = white


def pixels(path: Path, options: DataOptions, like: Source | None = None) -> tuple[ArraySource, list[str]]:
    """The images and labels in a text file, and what was inferred.

    White is the number that it is in `like`, else 1 if no pixel is above 1, else 255. Where there are as many columns
    as `like` has pixels, none is a label.

    Raises DataError, naming file and row.
    """
    text = _read(path)
    label_at, doubt = _label_column(text, options, like)
    table, labels = _numbers(text, label_at)
    shape = _shape(text, label_at, options)
    if label_at is None:
        targets, classes = np.full(len(table), UNLABELLED, dtype=np.int64), list[str]()
    else:
        codes = table[:, label_at].astype(np.int64)
        lookup, classes = columns.classes(
            labels,
            lambda code: f"{path}, row {text.first + int(np.argmax(codes == code))}",
            hint="--label-column last, or none",
        )
        targets = lookup[codes]
    table = np.delete(table, [*range(text.index), *([] if label_at is None else [label_at])], axis=1)
    white = _white(table, like, path)
    images = _scaled(table, white, path, text.first).reshape(len(table), *shape)
    places = {0: "the first column", text.width - 1: "the last column"}
    label = "no label" if label_at is None else f"label in {places.get(label_at, f'column {label_at + 1}')}{doubt}"
    notes = [f"{text.width} columns: {label}, images of {' x '.join(map(str, shape))}"]
    notes += ["the first column numbers the rows and is left aside"] if text.index else []
    return PixelSource(images, targets, classes, path.name, white), notes


def read_table(path: Path) -> Table:
    """The numbers in a text file (rows, columns), without its header and index. Raises DataError."""
    text = _read(path)
    return _numbers(text, None)[0][:, text.index :]


@dataclass(frozen=True)
class _Text:
    """A text file's rows that say something, and the cells of its header, if it has one."""

    path: Path
    rows: list[str]
    delimiter: str | None
    header: list[str]

    @property
    def first(self) -> int:
        """The number of the first row, from 1."""
        return 2 if self.header else 1

    @cached_property
    def width(self) -> int:
        """Columns of the first row."""
        return len(self.rows[0].split(self.delimiter))

    @cached_property
    def index(self) -> int:
        """1 where the first column is an index as pandas writes it, without a name of its own; else 0."""
        if not self.header or columns.plain(self.header[0]) not in ("", "unnamed0"):
            return 0
        cells = self.column(0)
        return int(self.width > 1 and len(cells) == len(self.rows) and all(c.isdecimal() for c in cells))

    def column(self, place: int) -> set[str]:
        """The different cells at one end: place 0 or 1, or -1 for the last."""
        if place < 0:
            return {row.rsplit(self.delimiter, 1)[-1].strip() for row in self.rows}
        return {[*row.split(self.delimiter, place + 1), ""][place].strip() for row in self.rows}


def _read(path: Path) -> _Text:
    lines = [line for line in _content(path).splitlines() if line.strip()]
    if not lines:
        raise DataError("the file is empty", where=str(path))
    lines = [lines[0], *(line for line in lines[1:] if not line.lstrip().startswith("#"))]  # comments
    delimiter = next((d for d in (";", "\t", ",") if d in lines[-1]), None)
    header = _has_header(lines, delimiter)
    if len(lines) == header:
        raise DataError("the file holds a header and no row", where=str(path))
    cells = [cell.strip().strip('"') for cell in lines[0].split(delimiter)] if header else []
    return _Text(path, lines[header:], delimiter, cells)


def _has_header(lines: list[str], delimiter: str | None) -> bool:
    """Whether the first line names columns."""
    first, second = ([cell.strip() for cell in line.split(delimiter)] for line in (lines * 2)[:2])
    words = [place for place, cell in enumerate(first) if cell and columns.number(cell) is None]
    if not words:  # an index has no name, the other columns may be numbers
        return len(lines) > 1 and not first[0] and second[0] != ""
    at = words[0]
    if words not in ([0], [len(first) - 1]) or len(first) <= FEWEST or columns.plain(first[at]) in columns.LABELS:
        return True
    # One word among numbers: the first label, where another word stands below it; unless the numbers count columns.
    others = first[:at] + first[at + 1 :]
    counts = any(others == [str(number + start) for number in range(len(others))] for start in (0, 1))
    return counts or len(lines) == 1 or len(second) != len(first) or columns.number(second[at] or "0") is not None


def _numbers(text: _Text, label_at: int | None) -> tuple[Table, list[str]]:
    """The numbers of all rows, and the different labels, whose places stand in the label's column. Raises DataError."""
    seen: dict[str, int] = {}

    def code(cell: str) -> float:
        label = cell.strip().strip('"')
        if not label or (text.width <= FEWEST and columns.number(label) is None):
            raise ValueError(label)
        return seen.setdefault(label, len(seen))

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = np.loadtxt(
                text.rows,
                delimiter=text.delimiter,
                ndmin=2,
                dtype=np.float64,
                converters=None if label_at is None else {label_at: code},
                encoding=None,
                comments=None,
            )
        if table.shape != (len(text.rows), text.width):
            raise ValueError("rows and columns cannot be told")
    except (ValueError, UserWarning) as error:
        raise DataError(
            "the file is not a table of numbers",
            where=str(text.path),
            why=_first_bad_row(text, label_at, code) or str(error).split(";")[0],
            hint="every row needs the same columns: pixels, and the label if there is one; "
            "of a table of paths, --path-column NAME",
        ) from error
    return table, list(seen)


def _content(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError("cannot read the file", where=str(path), why=error.strerror or "") from error
    refuse_pointer(data[:64], str(path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _first_bad_row(text: _Text, label_at: int | None, code: Callable[[str], float]) -> str:
    """What is wrong with the first row that is not a row of numbers and a label, for people."""
    for number, line in enumerate(text.rows, text.first):
        cells = line.split(text.delimiter)
        if len(cells) != text.width:
            return f"row {number} has {len(cells)} columns, the first has {text.width}"
        for column, cell in enumerate(cells):
            try:
                code(cell) if column == label_at else float(cell)
            except ValueError:
                return (
                    f"row {number}, column {column + 1} is {'empty' if not cell.strip() else repr(cell.strip()[:30])}"
                )
    return ""


def _label_column(text: _Text, options: DataOptions, like: Source | None) -> tuple[int | None, str]:
    """The label's column, None where there is none, and what to say of another that may be meant.

    A header's name decides; else what is no pixel at an end; else the first column, unless it never changes.
    """
    if options.label_column == "none":
        return None, ""
    header, width = text.header[text.index :], text.width - text.index
    if isinstance(like, PixelSource) and like.images[0].size == width and like.targets[0] != UNLABELLED:
        return None, ""
    if options.label_column != "auto":
        place = columns.asked("--label-column", options.label_column, header, width, str(text.path))
        return text.index + place, ""
    named = columns.guessed(header, columns.LABELS) if len(header) == width else []
    if len(named) > 1:
        raise DataError(
            "several columns may hold the labels",
            where=str(text.path),
            why=f"they are {columns.listed([header[place] for place in named])}",
            hint=f"--label-column {header[named[0]]}, or another of them",
        )
    if named:
        return text.index + named[0], ""
    if width == (prod(options.image_shape) if options.image_shape else isqrt(width) ** 2):
        return None, ""
    return _label_at_an_end(text)


def _label_at_an_end(text: _Text) -> tuple[int, str]:
    first, last = text.column(text.index), text.column(-1)
    if any(columns.number(cell) is None for cell in first):
        return text.index, ""
    numbers = [columns.number(cell) for cell in last]
    if None in numbers:
        return text.width - 1, ""
    may_be_last = len(last) > 1 and all(number is not None and number.is_integer() for number in numbers)
    if may_be_last and len(first) == 1:
        return text.width - 1, ""
    doubt = may_be_last and len(last) <= len(first)
    return text.index, " (the last may be it too: --label-column last)" if doubt else ""


def _shape(text: _Text, label_at: int | None, options: DataOptions) -> tuple[int, ...]:
    """Shape (C, H, W) of an image."""
    given = options.image_shape
    if given is not None and (len(given) not in (2, 3) or min(given) < 1):
        raise UsageError(f"--image-shape {' '.join(map(str, given))}", hint="--image-shape 28 28, or 3 32 32")
    count = text.width - text.index - (label_at is not None)
    side = isqrt(count)
    shape = tuple(given) if given else (side, side)
    shape = shape if len(shape) == 3 else (1, *shape)
    if count < 1 or prod(shape) != count or shape[0] not in (1, 3):
        asked = " x ".join(map(str, given)) if given else "a square"
        raise DataError(
            f"{text.width} columns do not make {asked} image" + (" and a label" if label_at is not None else ""),
            where=str(text.path),
            hint="--image-shape H W (or C H W) and --label-column first|last|none",
        )
    return shape


def _white(table: Table, like: Source | None, path: Path) -> int:
    shares = bool((table <= 1).all())
    if not isinstance(like, PixelSource):
        return 1 if shares else 255
    # A file of 0 and 1 alone may be of dark bytes; fractions up to 1 cannot be.
    if like.white == 255 and shares and (table % 1 != 0).any():
        raise DataError("the pixels are 0 to 1, those of the training file 0 to 255", where=str(path))
    return like.white


def _scaled(table: Table, white: int, path: Path, first_row: int) -> Image:
    bad = ~np.isfinite(table) | (table < 0) | (table > white)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"the pixel {table[row, column]:g} is out of range",
            where=f"{path}, row {row + first_row}, pixel {column + 1}",
            why="pixels are 0 to 1 or 0 to 255" if white == 255 else "the training file's pixels are 0 to 1",
        )
    return to_uint8(table, (0, white))

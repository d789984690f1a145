"""Text files of pixels, one image a row, as `numpy.loadtxt(path, delimiter=",")` reads them.

A header row, a byte-order mark, CRLF, ';' or tabs, and Latin-1 are taken as they come.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from math import isqrt, prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from msresnet.data.decode import refuse_pointer
from msresnet.data.options import DataOptions
from msresnet.data.preprocess import to_uint8
from msresnet.data.sample import UNLABELLED, ArraySource, Image, Source
from msresnet.data.sources.columns import asked
from msresnet.errors import DataError, UsageError

EXTENSIONS = (".csv", ".txt", ".tsv")
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

    White is the number that it is in `like`, else 1 if no pixel is above 1, else 255.

    Raises DataError, naming file and row.
    """
    table, header = read_table(path)
    shape, label_at, notes = _layout(table.shape[1], header, options, path)
    if label_at == 0 and options.label_column == "auto" and _label_is_last(table):
        shape, label_at, notes = _layout(table.shape[1], header, replace(options, label_column="last"), path)
    first_row = 1 + bool(header)
    if label_at is None:
        targets, classes = np.full(len(table), UNLABELLED, dtype=np.int64), list[str]()
    else:
        targets, classes = _labels(table[:, label_at], path, first_row)
        table = np.delete(table, label_at, axis=1)
    white = _white(table, like, path)
    images = _scaled(table, white, path, first_row).reshape(len(table), *shape)
    return PixelSource(images, targets, classes, path.name, white), notes


def _label_is_last(table: Table) -> bool:
    """Whether the first column cannot be a label, because it never changes, and the last can."""
    first, last = table[:, 0], table[:, -1]
    return bool((first == first[0]).all() and (last != last[0]).any() and (last == np.floor(last)).all())


def read_table(path: Path) -> tuple[Table, list[str]]:
    """The numbers in a text file (rows, columns) and the cells of its header, if it has one. Raises DataError."""
    text = _text(path)
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError("the file is empty", where=str(path))
    delimiter = next((d for d in (";", "\t", ",") if d in lines[-1]), None)
    header = 0 if _is_numeric(lines[0], delimiter) else 1
    if len(lines) == header:
        raise DataError("the file holds a header and no row", where=str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = np.loadtxt(lines[header:], delimiter=delimiter, ndmin=2, dtype=np.float64)
    except (ValueError, UserWarning) as error:
        raise DataError(
            "the file is not a table of numbers",
            where=str(path),
            why=_first_bad_row(lines, header, delimiter) or str(error).split(";")[0],
            hint="every row needs the same columns: pixels, and the label if there is one; "
            "of a table of paths, --path-column NAME",
        ) from error
    return table, [cell.strip().strip('"') for cell in lines[0].split(delimiter)] if header else []


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError("cannot read the file", where=str(path), why=error.strerror or "") from error
    refuse_pointer(data[:64], str(path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _is_numeric(line: str, delimiter: str | None) -> bool:
    for cell in line.split(delimiter):
        try:
            float(cell)
        except ValueError:
            if cell.strip():
                return False
    return True


def _first_bad_row(lines: list[str], header: int, delimiter: str | None) -> str:
    """What is wrong with the first row that is not a row of numbers, for people."""
    columns = len(lines[header].split(delimiter))
    for number, line in enumerate(lines[header:], header + 1):
        cells = line.split(delimiter)
        if len(cells) != columns:
            return f"row {number} has {len(cells)} columns, the first has {columns}"
        for column, cell in enumerate(cells, 1):
            try:
                float(cell)
            except ValueError:
                return f"row {number}, column {column} is {'empty' if not cell.strip() else repr(cell.strip()[:30])}"
    return ""


def _layout(
    columns: int, header: list[str], options: DataOptions, path: Path
) -> tuple[tuple[int, ...], int | None, list[str]]:
    """Shape (C, H, W) of an image, the label's column (None: unlabelled), and what was inferred."""
    given = options.image_shape
    if given is not None and (len(given) not in (2, 3) or min(given) < 1):
        raise UsageError(f"--image-shape {' '.join(map(str, given))}", hint="--image-shape 28 28, or 3 32 32")
    label_at: int | None = None
    if options.label_column == "auto":
        fits = (prod(given) if given else isqrt(columns) ** 2) == columns
        label_at = None if fits else 0
    elif options.label_column != "none":
        label_at = asked("--label-column", options.label_column, header, columns, str(path))
    count = columns - (label_at is not None)
    side = isqrt(count)
    shape = tuple(given) if given else (side, side)
    shape = shape if len(shape) == 3 else (1, *shape)
    if count < 1 or prod(shape) != count or shape[0] not in (1, 3):
        text = " x ".join(map(str, given)) if given else "a square"
        raise DataError(
            f"{columns} columns do not make {text} image" + (" and a label" if label_at is not None else ""),
            where=str(path),
            hint="--image-shape H W (or C H W) and --label-column first|last|none",
        )
    places = {0: "the first column", columns - 1: "the last column"}
    label = "no label" if label_at is None else f"label in {places.get(label_at, f'column {label_at + 1}')}"
    return shape, label_at, [f"{columns} columns: {label}, images of {' x '.join(map(str, shape))}"]


def _labels(column: Table, path: Path, first_row: int) -> tuple[npt.NDArray[np.int64], list[str]]:
    bad = ~np.isfinite(column) | (column < 0) | (column != np.floor(column)) | (column > 1e6)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"the label {column[row]:g} is not a class",
            where=f"{path}, row {row + first_row}",
            why="labels are whole numbers from 0",
            hint="--label-column last, or none",
        )
    values, targets = np.unique(column.astype(np.int64), return_inverse=True)
    return targets.astype(np.int64), [str(v) for v in values]


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

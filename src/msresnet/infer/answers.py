"""Answers as .csv, .jsonl or .parquet, a row for each image: those of an evaluation at once, others as they come.

A shard's length costs no memory. The same answers give the same bytes.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TextIO

from msresnet.data.decode import printable
from msresnet.errors import DataError, ResourceError
from msresnet.files import write_atomic, write_text
from msresnet.infer.config import Form
from msresnet.results import DIGITS
from msresnet.rows import csv_text, write_csv
from msresnet.tasks.postprocess.base import Postprocess

Row = dict[str, Any]
"""`id`, and either what `columns` says (and `top`), or `error`."""


def columns(postprocess: Postprocess, exits: bool) -> tuple[str, ...]:
    """What stands between an image's id and its error in a table."""
    return *postprocess.columns, *(["exit"] if exits else [])


class Answers(ABC):
    """Answers that are put out as they come."""

    @abstractmethod
    def add(self, rows: Sequence[Row]) -> None:
        """Put out some."""

    def close(self) -> None:  # noqa: B027 - most have nothing left
        """Put out what is left; no row comes any more."""


class CsvAnswers(Answers):
    """A header, then a line for each row.

    Args:
        file: where they go.
        columns: that are written; what a row lacks is left empty.
    """

    def __init__(self, file: TextIO, columns: Sequence[str]) -> None:
        self.file, self.columns = file, columns
        write_csv(file, [columns])

    def add(self, rows: Sequence[Row]) -> None:
        """Put out some."""
        write_csv(self.file, ([_cell(row.get(name)) for name in self.columns] for row in rows), DIGITS)


class JsonlAnswers(Answers):
    """One JSON object a line.

    Args:
        file: where they go.
    """

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def add(self, rows: Sequence[Row]) -> None:
        """Put out some."""
        self.file.write(_jsonl(rows))


class ParquetAnswers(Answers):
    """A file with the same columns as CSV, and `top` as a list of labels and probabilities.

    Args:
        path: the file, which is overwritten.
        names: of the columns, as `columns` gives them.
    """

    together = 8192
    """Rows of a row group."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        need_pyarrow()
        import pyarrow as arrow
        from pyarrow.parquet import ParquetWriter

        real, text, number = arrow.float64(), arrow.string(), arrow.int32()
        kinds = {"label": text, "probability": real, "exit": number, "height": number, "width": number}
        kinds |= {"confidence": real, "shares": arrow.list_(arrow.struct([("label", text), ("share", real)]))}
        found_there = arrow.struct([("label", text), ("score", real), ("box", arrow.list_(real))])
        kinds |= {"count": number, "detections": arrow.list_(found_there)}
        found = [(name, kinds[name]) for name in names]
        if "label" in names:
            found.insert(2, ("top", arrow.list_(arrow.struct([("label", text), ("probability", real)]))))
        self.schema = arrow.schema([("id", text), *found, ("error", text)])
        self.writer = ParquetWriter(path, self.schema)
        self.waiting: list[Row] = []

    def add(self, rows: Sequence[Row]) -> None:
        """Put out some."""
        self.waiting += rows
        while len(self.waiting) >= self.together:
            self._write(self.waiting[: self.together])
            del self.waiting[: self.together]

    def close(self) -> None:
        """Put out what is left."""
        if self.waiting:
            self._write(self.waiting)
        self.writer.close()

    def _write(self, rows: list[Row]) -> None:
        import pyarrow as arrow

        self.writer.write_table(arrow.Table.from_pylist([_plain(row) for row in rows], schema=self.schema))


@contextmanager
def open_answers(path: Path, form: Form, names: Sequence[str]) -> Iterator[Answers]:
    """A file of answers, readable ones and others, which is overwritten. Raises OSError, ResourceError.

    Args:
        names: of the columns, as `columns` gives them.
    """
    if form == "parquet":
        with closing(ParquetAnswers(path, names)) as answers:
            yield answers
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        yield CsvAnswers(file, ("id", *names, "error")) if form == "csv" else JsonlAnswers(file)


def write_predictions(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows of `Task.rows` in the form that the file's ending names.

    Raises ResourceError when that fails, for Parquet also where pyarrow is missing.
    """
    rows = [_plain(row) for row in rows]
    if path.suffix == ".parquet":
        need_pyarrow()
        write_atomic(path, lambda part: _parquet(part, rows))
    elif path.suffix == ".csv":
        write_text(path, csv_text([rows[0] if rows else (), *(row.values() for row in rows)], DIGITS))
    else:
        write_text(path, _jsonl(rows))


def need_pyarrow() -> None:
    """Raise ResourceError where Parquet cannot be written."""
    try:
        import pyarrow.parquet  # noqa: F401 - whether it is there
    except ImportError as error:
        raise ResourceError("--format parquet needs pyarrow", why=str(error), hint="pip install pyarrow") from error


def _jsonl(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)


def _parquet(path: Path, rows: list[Row]) -> None:
    import pyarrow as arrow
    from pyarrow.parquet import write_table

    write_table(arrow.Table.from_pylist(rows), path)


def _plain(row: Row) -> Row:
    """A row whose texts every format can hold."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in row.items()}


def _cell(value: Any) -> Any:
    """The classes in a mask, or the objects in an image, as text."""
    return "; ".join(map(_item, value)) if isinstance(value, list) else value


def _item(item: dict[str, Any]) -> str:
    if "share" in item:
        return f"{item['label']} {item['share']:.{DIGITS}f}"
    return f"{item['label']} {item['score']:.{DIGITS}f} at {' '.join(f'{v:g}' for v in item['box'])}"


def unreadable(name: str, error: DataError) -> Row:
    """The row of an image that cannot be read, on one line; where the data lies makes no difference to it."""
    text = f"{error.what}: {error.why}" if error.why else error.what
    return {"id": name, "error": printable(" ".join(text.split()))}

"""Answers as a file: .csv, .jsonl or .parquet, a row for each image, readable or not.

Rows are written as they come, so that a shard's length costs no memory. The same answers give the same bytes.
"""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from msresnet.data.decode import printable
from msresnet.errors import DataError, ResourceError
from msresnet.infer.config import Form
from msresnet.results import DIGITS
from msresnet.tasks.postprocess.base import Postprocess

Row = dict[str, Any]
"""`id`, and either what `columns` says (and `top`), or `error`."""


def columns(postprocess: Postprocess, exits: bool) -> tuple[str, ...]:
    """What stands between an image's id and its error in a table."""
    return *postprocess.columns, *(["exit"] if exits else [])


class Answers(ABC):
    """A file of answers that is being written.

    Args:
        path: the file, which is overwritten.
        names: of the columns, as `columns` gives them.
    """

    ending: ClassVar[str]

    @abstractmethod
    def __init__(self, path: Path, names: Sequence[str]) -> None: ...

    @abstractmethod
    def add(self, rows: Sequence[Row]) -> None:
        """Write some rows."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left; no row comes any more."""


class CsvAnswers(Answers):
    """id, label, probability (, exit), error, or those of masks; cells that a spreadsheet would run are quoted."""

    ending = "csv"

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.file = path.open("w", encoding="utf-8", newline="")
        self.writer, self.names = csv.writer(self.file, lineterminator="\n"), names
        self.writer.writerow(["id", *names, "error"])

    def add(self, rows: Sequence[Row]) -> None:
        """Write some rows."""
        for row in rows:
            blank = [safe_cell(row["id"]), *("" for _ in self.names)]
            cells = blank if "error" in row else csv_cells(row, self.names)
            self.writer.writerow([*cells, safe_cell(row.get("error", ""))])

    def close(self) -> None:
        """Write what is left."""
        self.file.close()


class JsonlAnswers(Answers):
    """One JSON object a line."""

    ending = "jsonl"

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.file = path.open("w", encoding="utf-8")

    def add(self, rows: Sequence[Row]) -> None:
        """Write some rows."""
        self.file.writelines(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)

    def close(self) -> None:
        """Write what is left."""
        self.file.close()


class ParquetAnswers(Answers):
    """The same columns as CSV, and `top` as a list of labels and probabilities."""

    ending = "parquet"
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
        """Write some rows."""
        self.waiting += rows
        while len(self.waiting) >= self.together:
            self._write(self.waiting[: self.together])
            del self.waiting[: self.together]

    def close(self) -> None:
        """Write what is left."""
        if self.waiting:
            self._write(self.waiting)
        self.writer.close()

    def _write(self, rows: list[Row]) -> None:
        import pyarrow as arrow

        self.writer.write_table(arrow.Table.from_pylist(rows, schema=self.schema))


KINDS: dict[Form, type[Answers]] = {"csv": CsvAnswers, "jsonl": JsonlAnswers, "parquet": ParquetAnswers}


def need_pyarrow() -> None:
    """Raise ResourceError where Parquet cannot be written."""
    try:
        import pyarrow.parquet  # noqa: F401 - whether it is there
    except ImportError as error:
        raise ResourceError("--format parquet needs pyarrow", why=str(error), hint="pip install pyarrow") from error


def safe_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def csv_cells(row: Row, names: Sequence[str]) -> list[str]:
    """An image's id and its other columns, as every door writes them."""
    return [safe_cell(printable(row["id"])), *(cell(row[name]) for name in names)]


def cell(value: Any) -> str:
    """A value as text in a table; what a spreadsheet would run is quoted."""
    if isinstance(value, float):
        return f"{value:.{DIGITS}f}"
    if isinstance(value, list):  # the classes in a mask, or the objects in an image
        return safe_cell("; ".join(map(_item, value)))
    return safe_cell(str(value)) if isinstance(value, str) else str(value)


def _item(item: dict[str, Any]) -> str:
    if "share" in item:
        return f"{item['label']} {item['share']:.{DIGITS}f}"
    return f"{item['label']} {item['score']:.{DIGITS}f} at {' '.join(f'{v:g}' for v in item['box'])}"


def unreadable(name: str, error: DataError) -> Row:
    """The row of an image that cannot be read, on one line; where the data lies makes no difference to it."""
    text = f"{error.what}: {error.why}" if error.why else error.what
    return {"id": name, "error": printable(" ".join(text.split()))}

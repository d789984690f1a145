"""The answers to a shard as a file: .csv, .jsonl or .parquet, a row for each image, readable or not.

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
from msresnet.infer.evaluate import safe_cell
from msresnet.results import DIGITS

Row = dict[str, Any]
"""`id`, and either `label`, `probability`, `top` (and `exit`) or `error`."""


class Answers(ABC):
    """A file of answers that is being written.

    Args:
        path: the file, which is overwritten.
        exits: whether the rows say which exit answered.
    """

    ending: ClassVar[str]

    @abstractmethod
    def __init__(self, path: Path, exits: bool) -> None: ...

    @abstractmethod
    def add(self, rows: Sequence[Row]) -> None:
        """Write some rows."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left; no row comes any more."""


class CsvAnswers(Answers):
    """id, label, probability (, exit), error; cells that a spreadsheet would run are quoted."""

    ending = "csv"

    def __init__(self, path: Path, exits: bool) -> None:
        self.file = path.open("w", encoding="utf-8", newline="")
        self.writer, self.exits = csv.writer(self.file, lineterminator="\n"), exits
        self.writer.writerow(["id", "label", "probability", *(["exit"] if exits else []), "error"])

    def add(self, rows: Sequence[Row]) -> None:
        """Write some rows."""
        for row in rows:
            blank = [safe_cell(row["id"]), "", "", *([""] if self.exits else [])]
            cells = blank if "error" in row else csv_cells(row, self.exits)
            self.writer.writerow([*cells, safe_cell(row.get("error", ""))])

    def close(self) -> None:
        """Write what is left."""
        self.file.close()


class JsonlAnswers(Answers):
    """One JSON object a line."""

    ending = "jsonl"

    def __init__(self, path: Path, exits: bool) -> None:
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

    def __init__(self, path: Path, exits: bool) -> None:
        need_pyarrow()
        import pyarrow as arrow
        from pyarrow.parquet import ParquetWriter

        top = arrow.list_(arrow.struct([("label", arrow.string()), ("probability", arrow.float64())]))
        columns = [("id", arrow.string()), ("label", arrow.string()), ("probability", arrow.float64()), ("top", top)]
        columns += [("exit", arrow.int32())] if exits else []
        self.schema = arrow.schema([*columns, ("error", arrow.string())])
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


def csv_cells(row: Row, exits: bool) -> list[str]:
    """id, label, probability (, exit) as every door writes them."""
    cells = [safe_cell(printable(row["id"])), safe_cell(row["label"]), f"{row['probability']:.{DIGITS}f}"]
    return [*cells, *([str(row["exit"])] if exits else [])]


def unreadable(name: str, error: DataError) -> Row:
    """The row of an image that cannot be read, on one line; where the data lies makes no difference to it."""
    text = f"{error.what}: {error.why}" if error.why else error.what
    return {"id": name, "error": printable(" ".join(text.split()))}

"""The answers of an evaluation as a file, a row for each image: .csv, .jsonl or .parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msresnet.data.decode import printable
from msresnet.files import write_atomic, write_text
from msresnet.infer.answers import cell, need_pyarrow
from msresnet.infer.config import Form

Rows = Sequence[dict[str, Any]]


def write_predictions(path: Path, rows: Rows) -> None:
    """Write the rows of `Task.rows` in the form that the file's ending names.

    Raises ResourceError when that fails, for Parquet also where pyarrow is missing.
    """
    if path.suffix == ".parquet":
        need_pyarrow()
        write_atomic(path, lambda part: _parquet(part, rows))
    else:
        write_text(path, as_csv(rows) if path.suffix == ".csv" else as_jsonl(rows))


def check_form(form: Form) -> None:
    """Raise ResourceError where a form cannot be written."""
    if form == "parquet":
        need_pyarrow()


def as_csv(rows: Rows) -> str:
    """Rows as CSV with a header; cells that a spreadsheet would run are quoted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0] if rows else ())
    writer.writerows([cell(value) for value in _plain(row).values()] for row in rows)
    return text.getvalue()


def as_jsonl(rows: Rows) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(_plain(row)) + "\n" for row in rows)


def _parquet(path: Path, rows: Rows) -> None:
    import pyarrow as arrow
    from pyarrow.parquet import write_table

    write_table(arrow.Table.from_pylist([_plain(row) for row in rows]), path)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose texts every format can hold."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in row.items()}

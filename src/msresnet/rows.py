"""Rows as CSV. Names of files and classes may be any text: none is run by a spreadsheet, and all can be printed."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from typing import Any, TextIO

FORMULAS = ("=", "+", "-", "@")
"""What texts begin with that spreadsheets run."""
_NUMBER = re.compile(r"[-+]?([0-9.]+(e[-+]?[0-9]+)?|inf|nan)", re.IGNORECASE)


def csv_text(rows: Iterable[Iterable[Any]], digits: int | None = None) -> str:
    """What `write_csv` writes."""
    text = io.StringIO()
    write_csv(text, rows, digits)
    return text.getvalue()


def write_csv(file: TextIO, rows: Iterable[Iterable[Any]], digits: int | None = None) -> None:
    """Write rows, a header being the first of them, as lines of CSV; what is read from such lines gives them again.

    Args:
        file: opened with newline="".
        rows: cells of any kind. None is an empty cell; a text that a spreadsheet would run gets an apostrophe before
            it, one that is a number does not.
        digits: of floats after the point; None writes as many as tell them apart.
    """
    csv.writer(file, lineterminator="\n").writerows([_cell(value, digits) for value in row] for row in rows)


def escaped(text: str) -> str:
    """Text that can be printed: control characters, and bytes that are not text, are written as escapes."""
    if text.isprintable():
        return text
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _cell(value: Any, digits: int | None) -> Any:
    if isinstance(value, float):
        return value if digits is None else f"{value:.{digits}f}"
    if value is None or isinstance(value, int):
        return value
    text = escaped(str(value))
    return f"'{text}" if text.startswith(FORMULAS) and not _NUMBER.fullmatch(text) else text

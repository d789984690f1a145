"""Where `predict` puts its answers as they come: standard output in one of the formats, or one file."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from msresnet.data.decode import printable
from msresnet.data.sample import Image
from msresnet.errors import DataError
from msresnet.files import PART, check_output, disk_errors, make_folder, write_atomic
from msresnet.infer.answers import Answers, CsvAnswers, JsonlAnswers, Row, open_answers, unreadable
from msresnet.infer.config import Form, PredictConfig
from msresnet.report.annotate import Gallery
from msresnet.results import DIGITS, Results
from msresnet.results.detections import counted


class Writer:
    """Rows, and pictures beside them.

    Args:
        answers: where rows go.
        gallery: where pictures go, if they are wanted.
        unread: whether what could not be read is a row too; on a screen it stands among the errors.
    """

    def __init__(self, answers: Answers, gallery: Gallery | None, unread: bool) -> None:
        self.answers, self.gallery, self.unread = answers, gallery, unread

    def add(self, rows: Sequence[Row]) -> None:
        """Put out some answers."""
        self.answers.add(rows)

    def add_batch(self, rows: Sequence[Row], errors: Sequence[DataError | None]) -> None:
        """Put out the answers of a batch, and where it belongs among them what could not be read."""
        if self.unread:
            left = iter(rows)
            rows = [next(left) if error is None else unreadable(error.where, error) for error in errors]
        self.answers.add(rows)

    def show(self, results: Results, previews: Sequence[Image | None]) -> None:
        """Save the pictures of some answers."""
        if self.gallery is not None:
            self.gallery.add(results, previews)


class Table(Answers):
    """A line for a person."""

    def __init__(self, top: int) -> None:
        self.top = top

    def add(self, rows: Sequence[Row]) -> None:
        """Put out some."""
        for row in rows:
            print(self._masked(row) if "shares" in row else self._boxed(row) if "count" in row else self._line(row))

    def _line(self, row: Row) -> str:
        others = ", ".join(f"{t['label']} {t['probability']:.{DIGITS}f}" for t in row["top"][1 : min(3, self.top)])
        answer = f"{printable(row['id'])}: {row['label']} {row['probability']:.{DIGITS}f}"
        left = f"  at exit {row['exit']}" if "exit" in row else ""
        return answer + (f"  ({others})" if others else "") + left

    def _boxed(self, row: Row) -> str:
        found = ", ".join(f"{item['label']} {item['score']:.2f}" for item in row["detections"][: self.top])
        more = f", {row['count'] - self.top:,} more" if row["count"] > self.top else ""
        return f"{printable(row['id'])}: {counted(row['detections'])}" + (f"  ({found}{more})" if found else "")

    def _masked(self, row: Row) -> str:
        shares = ", ".join(f"{item['label']} {100 * item['share']:.1f} %" for item in row["shares"])
        return f"{printable(row['id'])}: {row['height']}x{row['width']}, {shares}"


class Json(Answers):
    """One array, which is begun at once and closed in the end, whatever happens."""

    def __init__(self) -> None:
        self.begun = False

    def add(self, rows: Sequence[Row]) -> None:
        """Put out some."""
        for row in rows:
            print("," if self.begun else "[", end="\n")
            print(textwrap.indent(json.dumps(row, indent=2, ensure_ascii=True), "  "), end="")
            self.begun = True

    def close(self) -> None:
        """Close the array."""
        print("\n]" if self.begun else "[]")


@contextmanager
def open_writer(config: PredictConfig, names: Sequence[str]) -> Iterator[Writer]:
    """Where answers with these columns are to go. A file appears when it is whole. Raises UsageError, ResourceError."""
    gallery = None if config.save_images is None else Gallery(Path(config.save_images))
    if config.place == "file":
        with _file(Path(config.output or ""), config.form, names) as answers:
            yield Writer(answers, gallery, unread=True)
    else:
        with closing(_screen(config, names)) as answers:
            yield Writer(answers, gallery, unread=False)


def _screen(config: PredictConfig, names: Sequence[str]) -> Answers:
    if config.format == "csv":
        return CsvAnswers(sys.stdout, ("id", *names))
    if config.format == "jsonl":
        return JsonlAnswers(sys.stdout)
    return Json() if config.format == "json" else Table(config.top)


@contextmanager
def _file(path: Path, form: Form, names: Sequence[str]) -> Iterator[Answers]:
    check_output(path, folder=False)
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    try:
        with disk_errors(path), open_answers(part, form, names) as answers:
            yield answers
        write_atomic(path, lambda empty: _move(part, empty))
    finally:
        part.unlink(missing_ok=True)


def _move(part: Path, place: Path) -> None:
    part.replace(place)

"""Rows as CSV: nothing runs in a spreadsheet, everything can be printed, numbers and what is read stay as they are."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msresnet.compare import records
from msresnet.compare.records import Training
from msresnet.rows import csv_text
from msresnet.train.fit import table
from msresnet.tune import trials
from msresnet.tune.trials import Trial

TEXTS = st.text(st.characters(), max_size=12) | st.sampled_from(["=1+1", "-1", "+x", "@a", "\t=1", "\udcff", "a\r\nb"])
NUMBERS = st.integers() | st.floats()


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("=1+1.png", "'=1+1.png"),
        ("-cmd", "'-cmd"),
        ("+1-2", "'+1-2"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "\\t=1"),
        ("a\nb\udcff", "a\\nb\\xff"),
        ("-1", "-1"),
        ("+1e-05", "+1e-05"),
        ("-inf", "-inf"),
        (-1, "-1"),
        (-0.25, "-0.25"),
        (None, ""),
        (True, "True"),
        ("猫, ü", "猫, ü"),
    ],
)
def test_D12_cells(value: Any, written: str) -> None:
    assert read(csv_text([["column"], [value]])) == [["column"], [written]]


@given(st.lists(st.lists(TEXTS | NUMBERS | st.none(), min_size=2, max_size=4), max_size=4))
def test_D12_texts_run_nowhere_and_what_is_read_gives_the_same_lines(rows: list[list[Any]]) -> None:
    text = csv_text(rows)
    text.encode()
    again = read(text)
    assert csv_text(again) == text
    for cell in (cell for row in again for cell in row):
        assert cell.isprintable()
        if cell.startswith(("=", "+", "-", "@")):
            float(cell)


@given(NUMBERS)
def test_numbers_are_read_back_exactly(number: float) -> None:
    ((cell, _),) = read(csv_text([[number, ""]]))
    assert type(number)(cell) == number or math.isnan(number)


def test_digits_are_of_floats_alone() -> None:
    assert csv_text([["a", "b"], [-0.123456, 7], [1.0, -7]], digits=4) == "a,b\n-0.1235,7\n1.0000,-7\n"


def test_D12_why_a_trial_failed_is_no_formula() -> None:
    head, row = read(trials.to_csv([Trial(1, "failed", {"lr": -1e-05, "model": "=x"}, why="-2 of\n\udcff")]))
    found = dict(zip(head, row, strict=True))
    assert (found["lr"], found["model"], found["why"]) == ("-1e-05", "'=x", "'-2 of\\n\\xff")


def test_D12_names_of_contestants_are_no_formulas() -> None:
    head, row = read(records.to_csv([Training("=big", 3, failure="@\udcff")]))
    found = dict(zip(head, row, strict=True))
    assert (found["contestant"], found["seed"], found["failure"]) == ("'=big", "3", "'@\\xff")
    assert found["val_top1"] == ""


def test_a_history_that_is_read_and_continued_keeps_its_lines() -> None:
    first = table([{"epoch": 1, "train_loss": -0.1, "val_loss": -math.inf}, {"epoch": 2, "train_loss": -1e-17}])
    assert first == "epoch,train_loss,val_loss\n1,-0.1,-inf\n2,-1e-17,\n"
    kept: list[dict[str, Any]] = list(csv.DictReader(first.splitlines()))
    assert table([*kept, {"epoch": 3, "train_loss": -2.0}]) == first + "3,-2.0,\n"

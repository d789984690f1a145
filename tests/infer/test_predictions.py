"""The same rows in every form, whatever the ids are made of."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from msresnet.infer.answers import write_predictions

ROWS: list[dict[str, Any]] = [
    {"id": "=1+1.png", "truth": "a", "label": "b", "probability": 0.12345678, "correct": 0},
    {"id": 'a\nb\udcff,".png', "truth": "ü", "label": "ü", "probability": 1.0, "correct": 1},
]


def test_D12_csv_quotes_what_a_spreadsheet_would_run(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", ROWS)
    found = list(csv.DictReader(io.StringIO((tmp_path / "p.csv").read_text(encoding="utf-8"))))
    assert found[0] == {"id": "'=1+1.png", "truth": "a", "label": "b", "probability": "0.1235", "correct": "0"}
    assert found[1]["truth"] == "ü"
    assert "\n" not in found[1]["id"]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_I21_other_forms_keep_numbers_and_printable_ids(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"p.{form}"
    write_predictions(path, ROWS)
    if form == "jsonl":
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        found = parquet.read_table(path).to_pylist()
    assert [row["probability"] for row in found] == [0.12345678, 1.0]
    assert found[0]["id"] == "=1+1.png"
    assert found[1]["id"].isprintable()
    assert list(found[1]) == list(ROWS[1])


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_no_rows_are_a_file_too(form: str, tmp_path: Path) -> None:
    write_predictions(tmp_path / f"p.{form}", [])
    assert (tmp_path / f"p.{form}").exists()

"""What `predict` says of boxes, in every form: the same objects, from a network that finds some."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pyarrow import parquet

from hostile import random_pixels
from msresnet.bundle import Bundle
from msresnet.cli.main import main
from msresnet.data.preprocess import Preprocess
from msresnet.models.factory import create_detector
from msresnet.tasks.detection import DetectionTask
from randomise import randomised


def test_every_form_tells_the_same_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments: dict[str, Any] = {"num_classes": 2, "in_chans": 1, "img_size": [32, 32]}
    network = create_detector("msresnet_micro", **arguments)
    randomised(network, 0)
    preprocess = Preprocess((32, 32), 1, whole=True)
    Bundle(network.eval(), "msresnet_micro", arguments, DetectionTask(["=cat", "dog"]), preprocess).save(tmp_path / "m")
    Image.fromarray(random_pixels(40, 50, seed=1)).save(tmp_path / "x.png")
    asked = ["predict", str(tmp_path / "x.png"), "--model", str(tmp_path / "m"), "--score", "0.001"]
    assert main([*asked, "--format", "jsonl"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["count"] == len(row["detections"]) > 0
    assert main(asked) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{row['id']}: ")
    assert f"{row['detections'][0]['label']} {row['detections'][0]['score']:.2f}" in line
    assert main([*asked, "--format", "csv"]) == 0
    (cells,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert cells["count"] == str(row["count"])
    assert cells["detections"].count(" at ") == row["count"]
    assert not cells["detections"].startswith("=")
    assert main([*asked, "--output", str(tmp_path / "a.parquet")]) == 0
    (kept,) = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert kept["detections"] == row["detections"]

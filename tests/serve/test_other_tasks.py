"""Boxes and masks take the same way as classes: exported, predicted from the file, served, asked by programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hostile import encode, random_pixels
from msresnet.bundle import Bundle
from msresnet.cli.main import main
from msresnet.data.preprocess import Preprocess
from msresnet.models.detector import Detector
from msresnet.models.factory import create_network
from msresnet.tasks.base import Task
from msresnet.tasks.detection import DetectionTask
from msresnet.tasks.postprocess.rules import Rules
from msresnet.tasks.segmentation import SegmentationTask
from randomise import randomised
from serving import Serving, server

triton = pytest.importorskip("tritonclient.http")
SIDE = 32
PLACES = ("cat/0.png", "cat/1.png", "dog/2.png")
"""Images to compare on come with labels; which ones does not matter."""
NAMES = ("cat", "dog")
TASKS: dict[str, Task] = {
    "detection": DetectionTask(NAMES, Rules(least=0.05, most=20, sure=0.2)),
    "segmentation": SegmentationTask(NAMES),
}


@pytest.fixture(scope="module", params=list(TASKS))
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of another task than classification, and images beside it."""
    task = TASKS[request.param]
    arguments: dict[str, Any] = {"num_classes": len(NAMES), "in_chans": 3, "img_size": [SIDE, SIDE]}
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = create_network(task.head, "msresnet_micro", **arguments)
    randomised(network, 0)
    if isinstance(network, Detector):  # weights of chance are sure of nothing
        with torch.no_grad():
            network.head.classifier.bias.zero_()
    folder = tmp_path_factory.mktemp(request.param)
    for seed, place in enumerate(PLACES):
        path = folder / "images" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(random_pixels(40, 50, 3, seed=seed), "PNG"))
    bundle = Bundle(
        network.eval(), "msresnet_micro", arguments, task, Preprocess((SIDE, SIDE), 3, mean=(0.5,) * 3, std=(0.2,) * 3)
    )
    return bundle.save(folder / "m")


def near(found: Any, expected: Any) -> bool:
    """Whether two answers say the same, numbers up to what runtimes round and people never see."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(near(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(near, found, expected))
    if isinstance(expected, float):
        return bool(abs(found - expected) <= 0.011)
    return bool(found == expected)


def told(model: Path, folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    """What `predict` says of the images, without their names."""
    assert main(["predict", str(folder / "images"), "--model", str(model), "--format", "jsonl", *words]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [{key: value for key, value in row.items() if key != "id"} for row in rows]


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_what_is_exported_answers_as_before_in_a_file_and_in_a_server(
    form: str, original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = original.parent
    expected = told(original, folder, capsys)
    assert len(expected) == len(PLACES)
    assert all(row.get("count", 1) for row in expected)
    package = tmp_path / "exported"
    words = ["--format", form, "--data", str(folder / "images"), "--output", str(package)]
    assert main(["export", "--model", str(original), *words]) == 0
    said = json.loads(capsys.readouterr().out)
    assert all(each["difference"] <= 1e-4 * max(1, each["largest"]) for each in said["agreement"].values())
    file = Path(said["file"])
    assert near(told(file, folder, capsys), expected)
    with server(tmp_path, "--model", f"m={file}", "--threads", "1") as serving:
        files = [(folder / "images" / place).read_bytes() for place in PLACES]
        rows = [serving.predict(data).json()["result"] for data in files]
        assert near([{key: value for key, value in row.items() if key != "id"} for row in rows], expected)
        _check_scores(serving, files[0], rows[0])
        client = triton.InferenceServerClient(f"127.0.0.1:{serving.port}")
        tensor = triton.InferInput("images", [len(PLACES)], "BYTES")
        tensor.set_data_from_numpy(np.array(files, object))
        answers = [json.loads(text) for text in client.infer("m", [tensor]).as_numpy("answers")]
        client.close()
        assert near([{k: v for k, v in row.items() if k not in ("id", "image")} for row in answers], expected)


def _check_scores(serving: Serving, data: bytes, row: dict[str, Any]) -> None:
    """A score of its own is for one question, for boxes, and a number from 0 to 1."""
    found = serving.predict(data, params={"score": 0.01})
    if "detections" not in row:
        assert found.status_code == 400
        assert found.json()["why"] == "the model's task is segmentation"
        return
    assert len(found.json()["result"]["detections"]) >= row["count"]
    middle = row["detections"][row["count"] // 2]["score"] + 1e-4
    fewer = serving.predict(data, params={"score": middle}).json()["result"]
    assert fewer["detections"] == [d for d in row["detections"] if d["score"] >= middle]
    assert serving.predict(data).json()["result"] == row
    assert serving.predict(data, params={"score": 1}).json()["result"]["count"] == 0
    assert {serving.predict(data, params={"score": bad}).status_code for bad in ("2", "-1", "nan", "x")} == {400}

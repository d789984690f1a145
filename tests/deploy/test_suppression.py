"""A detector's file with suppression inside gives other programs the boxes that `predict` gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from hostile import encode, random_pixels
from msresnet.boxes import iou
from msresnet.bundle import Bundle
from msresnet.cli.main import main
from msresnet.data.preprocess import Preprocess
from msresnet.deploy.export import export
from msresnet.deploy.suppression import ANSWERS, FILE, rules_of, suppressed
from msresnet.errors import ModelError, UsageError
from msresnet.infer.backends.eager import predictor_of
from msresnet.models.factory import create_detector
from msresnet.results import Detections
from msresnet.tasks.detection import DetectionTask
from msresnet.tasks.postprocess.classification import ClassificationPostprocess
from msresnet.tasks.postprocess.rules import Rules
from randomise import randomised

SIDE = 32
IMAGES = random_pixels(5, 1, SIDE, SIDE, seed=3)
NAMES = ("cat", "dog", "fox")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """A detector with weights of chance and vectors, many of whose boxes overlap or end at the image's edges."""
    arguments: dict[str, Any] = {"num_classes": len(NAMES), "in_chans": 1, "img_size": [SIDE, SIDE], "embedding": 16}
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = create_detector("msresnet_micro", **arguments)
    randomised(network, 0)
    with torch.no_grad():
        network.head.classifier.bias.zero_()
    task = DetectionTask(NAMES, Rules(least=0.3, overlap=0.5, most=30))
    return Bundle(network.eval(), "msresnet_micro", arguments, task, Preprocess((SIDE, SIDE), 1))


def test_another_program_finds_the_same_boxes(bundle: Bundle, tmp_path: Path) -> None:
    package = export(bundle, "onnx", tmp_path / "p", IMAGES, list("abcde"), nms=True)
    assert package.suppressed == tmp_path / "p" / FILE
    session = onnxruntime.InferenceSession(package.suppressed, providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["names"]) == list(NAMES)
    boxes, scores, classes, image = session.run(list(ANSWERS), {"images": IMAGES})
    original = predictor_of(bundle, "cpu", 5)
    frames = original.frames([(SIDE, SIDE)] * len(IMAGES))
    expected: Any = original.trained.postprocess(original.backend(IMAGES)[0], list("abcde"), frames)
    assert isinstance(expected, Detections)
    assert sum(map(len, expected.boxes)) > 20
    assert boxes.min() >= 0
    assert boxes.max() <= SIDE
    for index in range(len(IMAGES)):
        mine, most = image == index, len(expected.boxes[index])
        order = np.flatnonzero(mine)[np.argsort(-scores[mine], kind="stable")][:most]
        np.testing.assert_allclose(scores[order], expected.scores[index], atol=1e-5)
        shared = iou(expected.boxes[index].astype(np.float64), boxes[order].astype(np.float64))
        same = (shared > 0.99) & (expected.classes[index][:, None] == classes[order])
        assert same.any(1).mean() >= 0.99


def test_the_command_writes_it_beside_the_model(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle.save(tmp_path / "m")
    for kind in ("a", "b"):
        (tmp_path / "images" / kind).mkdir(parents=True)
        (tmp_path / "images" / kind / "0.png").write_bytes(encode(random_pixels(40, 50, seed=1), "PNG"))
    words = ["export", "--model", str(tmp_path / "m"), "--data", str(tmp_path / "images"), "--nms"]
    for _ in range(2):  # a second time over the first
        assert main([*words, "--output", str(tmp_path / "p")]) == 0
        said = json.loads(capsys.readouterr().out)
        assert Path(said["detections"]).is_file()
        assert {path.name for path in (tmp_path / "p").iterdir()} == {FILE, "1", "README.md", "config.pbtxt"}
    assert main(["predict", str(tmp_path / "images"), "--model", str(tmp_path / "p"), "-q"]) == 0
    assert main(["predict", str(tmp_path / "images"), "--model", said["detections"], "-q"]) == 4
    assert f"the model beside it: {tmp_path / 'p/1/model.onnx'}" in capsys.readouterr().err


def test_where_it_has_no_place(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle.save(tmp_path / "m")
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "b").mkdir(parents=True)
    for kind in ("a", "b"):
        (tmp_path / "images" / kind / "0.png").write_bytes(encode(random_pixels(40, 50, seed=1), "PNG"))
    words = ["export", "--model", str(tmp_path / "m"), "--data", str(tmp_path / "images"), "--nms"]
    assert main([*words, "--format", "openvino", "--output", str(tmp_path / "p")]) == 2
    assert "--format onnx" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_classes_have_nothing_to_suppress() -> None:
    with pytest.raises(UsageError, match="--nms has no effect here"):
        rules_of(ClassificationPostprocess(["a", "b"]), "onnx")


def test_a_file_that_answers_otherwise_never_appears(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Suppression at another overlap is what is wrong here."""

    def otherwise(proto: Any, names: Any, rules: Rules) -> Any:
        return suppressed(proto, names, replace(rules, overlap=0.01))

    monkeypatch.setattr("msresnet.deploy.export.suppressed", otherwise)
    with pytest.raises(ModelError, match="suppression inside"):
        export(bundle, "onnx", tmp_path / "p", IMAGES, list("abcde"), nms=True)
    assert not list(tmp_path.iterdir())

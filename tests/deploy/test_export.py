"""Packages: what is in them, that they agree, and that nothing else appears."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import msresnet
from msresnet.bundle import Bundle, load_bundle
from msresnet.cli.main import main
from msresnet.data.decode import decode_file
from msresnet.deploy import export as module
from msresnet.deploy.agreement import Agreement
from msresnet.deploy.export import ALONE, FEW, export
from msresnet.errors import ModelError, UsageError
from msresnet.infer.backend import INPUT
from msresnet.infer.backends.opened import open_predictor
from msresnet.nn.folding import fold
from msresnet.results import Classification
from msresnet.tasks.classification import ClassificationTask
from sharding import make_model
from tiny import contents

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 1, 12, 12), dtype=np.uint8)
IDS = list("abcdef")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_model(tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture(scope="module")
def package(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("packages") / "shapes"
    export(bundle, "onnx", place, IMAGES, IDS, max_batch=32)
    return place


def test_the_network_in_the_file_is_the_network(bundle: Bundle, package: Path) -> None:
    """Against torch, with the normalising written out here, at another batch and another size."""
    import onnxruntime

    session = onnxruntime.InferenceSession(package / "1/model.onnx", providers=["CPUExecutionProvider"])
    images = np.random.default_rng(1).integers(0, 256, (3, 1, 17, 21), dtype=np.uint8)
    with torch.no_grad():
        expected = fold(bundle.model)((torch.from_numpy(images).double() / 255 - 0.5).div(0.2).float())
    (found,) = session.run(None, {INPUT: images})
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_a_package_is_what_servers_expect(package: Path) -> None:
    assert sorted(p.relative_to(package).as_posix() for p in package.rglob("*") if p.is_file()) == [
        "1/model.onnx", "README.md", "config.pbtxt",
    ]  # fmt: skip
    text = (package / "config.pbtxt").read_text()
    for line in (
        'name: "shapes"',
        'backend: "onnxruntime"',
        "max_batch_size: 32",
        "dims: [ 1, -1, -1 ]",
        "dims: [ 3 ]",
    ):
        assert line in text
    onnx.checker.check_model(onnx.load(package / "1/model.onnx"), full_check=True)
    assert not [p for p in package.parent.iterdir() if p != package]


def test_a_package_says_nothing_of_the_machine_that_made_it(package: Path) -> None:
    for file in (f for f in package.rglob("*") if f.is_file()):
        assert str(Path(msresnet.__file__).parent).encode() not in file.read_bytes(), file.name


def test_the_cards_own_code_answers_as_predict_does(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = ClassificationTask(bundle.task.class_names, temperature=0.5)
    place = tmp_path / "calibrated"
    export(replace(bundle, task=task), "onnx", place, IMAGES, IDS)
    text = (place / "README.md").read_text()
    assert "`softmax(outputs / 0.5)` are the probabilities" in text
    ramp = np.linspace(0, 255, 60 * 40).reshape(40, 60).astype(np.uint8)
    Image.fromarray(ramp).save(place / "image.png")
    monkeypatch.chdir(place)
    found: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], found)
    predictor = open_predictor(Path("1/model.onnx"))
    at_least = predictor.trained.preprocess.at_least
    expected = predictor.predict([decode_file("image.png", at_least)], ["image.png"])
    assert isinstance(expected, Classification)
    np.testing.assert_allclose(found["probabilities"], expected.probabilities, atol=0.01)


def test_tritons_configuration_parses(package: Path) -> None:
    """With the schema's own parser, where the client is installed."""
    pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] has Triton's schema", exc_type=ImportError)
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    config = text_format.Parse((package / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.name == "shapes"
    assert list(config.input[0].dims) == [1, -1, -1]


def test_torchs_program_runs_in_torch(bundle: Bundle, tmp_path: Path) -> None:
    found = export(bundle, "torch", tmp_path / "p", IMAGES, IDS)
    extra = {"msresnet": ""}
    network = torch.export.load(found.file, extra_files=extra).module()
    with torch.no_grad():
        outputs = network(torch.from_numpy(IMAGES[:1]))
    assert outputs.shape == (1, 3)
    assert json.loads(extra["msresnet"])["task"]["class_names"] == ["=cat", "dog", "fox"]
    assert main(["predict", "x.png", "--model", str(found.file)]) == ModelError.exit_code


def test_an_exported_model_can_be_exported_over(bundle: Bundle, tmp_path: Path) -> None:
    for _ in range(2):
        export(bundle, "onnx", tmp_path / "again", IMAGES, IDS)
    assert [p.name for p in tmp_path.iterdir()] == ["again"]
    (tmp_path / "again/notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt"):
        export(bundle, "onnx", tmp_path / "again", IMAGES, IDS)
    assert open_predictor(tmp_path / "again").trained.architecture == "msresnet_micro"


def test_the_folders_of_other_models_stay(bundle: Bundle, tmp_path: Path) -> None:
    """They have the same names, as their servers want it."""
    for name, file in (("other", "1/model.plan"), ("alike", "1/model.onnx"), ("words", "README.md")):
        place = tmp_path / name
        (place / "1").mkdir(parents=True)
        (place / "README.md").write_text("mine")
        (place / file).write_text("mine")
        before = contents(place)
        with pytest.raises(UsageError, match="nothing there is to be overwritten"):
            export(bundle, "onnx", place, IMAGES, IDS)
        assert contents(place) == before
    export(bundle, "torch", tmp_path / "ours", IMAGES, IDS)
    (tmp_path / "ours/1/model.plan").write_text("mine")
    with pytest.raises(UsageError, match="nothing there is to be overwritten"):
        export(bundle, "torch", tmp_path / "ours", IMAGES, IDS)


def test_a_file_that_answers_otherwise_never_appears(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof is what is in doubt here: it is told that outputs differ, as a faulty runtime's would."""
    monkeypatch.setattr(module, "agreement", lambda *_: Agreement(6, 0.1, 1.0, 1.0))
    with pytest.raises(ModelError, match="answers otherwise"):
        export(bundle, "onnx", tmp_path / "p", IMAGES, IDS)
    assert not list(tmp_path.iterdir())


def test_the_command_says_how_it_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "--data", "digits", "--epochs", "1", "--batch-size", "256", "--output", "runs/d", "-q"]
    assert main(words) == 0
    capsys.readouterr()
    assert main(["export", "--model", "runs/d", "--images", "20"]) == 0
    shown = capsys.readouterr()
    said = json.loads(shown.out)
    assert said["folder"] == "exported/d"
    assert {name: each["images"] for name, each in said["agreement"].items()} == {
        "onnxruntime": 20,
        "openvino": 20,
        ALONE: FEW,
    }
    assert all(each["difference"] < 1e-4 for each in said["agreement"].values())
    assert "outputs differ by at most" in shown.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--images", "0"], 2),
        (["--max-batch", "-1"], 2),
        (["--format", "tensorrt"], 2),
        (["--model", "nowhere"], 4),
    ],
)
def test_bad_requests_are_refused(words: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--data", "digits", *words]) == code
    assert not list(tmp_path.iterdir())


def test_a_bundle_without_its_data_asks_for_images(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path / "m")
    assert main(["export", "--model", str(tmp_path / "m"), "--output", str(tmp_path / "p")]) == 2
    assert not (tmp_path / "p").exists()

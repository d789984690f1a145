"""Explanations of boxes: each finds its own object, whatever else the image shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from msresnet.boxes import iou
from msresnet.bundle import Bundle
from msresnet.cli.main import main
from msresnet.data.preprocess import Preprocess
from msresnet.errors import UsageError
from msresnet.explain.attribution import METHODS, attribute
from msresnet.explain.explanation import Wanted, explain, subjects
from msresnet.infer.backends.eager import predictor_of
from msresnet.models.factory import create_network
from msresnet.results import Detections
from msresnet.tasks.detection import DetectionTask
from msresnet.tasks.postprocess.rules import Rules
from randomise import randomised

SIDE = 64
ARGUMENTS: dict[str, Any] = {"num_classes": 2, "in_chans": 1, "img_size": (SIDE, SIDE), "pyramid_width": 32}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """A detector with random weights, the same in any order of tests, that shows every box which it thinks of."""
    torch.manual_seed(3)
    network = create_network(DetectionTask.head, "msresnet_micro", **ARGUMENTS)
    randomised(network)
    task = DetectionTask(["cat", "dog"], Rules(least=0.01, most=20, sure=0.0))
    return Bundle(network, "msresnet_micro", ARGUMENTS, task, Preprocess((SIDE, SIDE), 1, whole=True))


@pytest.fixture
def model(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, saved; commands run in its folder."""
    monkeypatch.chdir(tmp_path)
    bundle.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def image() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (1, 50, 80)).astype(np.uint8)


@pytest.mark.parametrize("pixels", [False, True])
def test_a_box_is_traced_to_the_place_that_gave_it(bundle: Bundle, image: Any, pixels: bool) -> None:
    """The score at the place is the box's, rounded to whole pixels or not."""
    rules = Rules(least=0.01, most=20, sure=0.0, pixels=pixels)
    bundle = replace(bundle, task=DetectionTask(["cat", "dog"], rules))
    found = predictor_of(bundle, "cpu").predict([image], ["x"])
    assert isinstance(found, Detections)
    assert len(found.boxes[0]) == 20
    x = bundle.preprocess.tensor(torch.from_numpy(bundle.preprocess.image(image))[None])
    with torch.no_grad():
        outputs = bundle.model(x)
    each = subjects(bundle, image, found)
    assert [subject.score for subject in each] == sorted((subject.score for subject in each), reverse=True)
    assert {(s.score, s.target) for s in each} == set(
        zip(found.scores[0].tolist(), found.classes[0].tolist(), strict=True)
    )
    for subject in each:
        logit = bundle.task.per_class(outputs, subject.place)[0, subject.target]
        assert float(logit.sigmoid()) == pytest.approx(subject.score, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_heat_is_that_of_the_box_alone(bundle: Bundle, image: Any, method: str) -> None:
    found = predictor_of(bundle, "cpu").predict([image], ["x"])
    each = subjects(bundle, image, found)
    boxes = np.stack([s.box for s in each if s.box is not None])
    far = int(iou(boxes[:1], boxes)[0].argmin())
    first, second = (explain(bundle, image, found, each[i], Wanted((method,))) for i in (0, far))
    assert first.looks[0].heat.shape == (SIDE, SIDE)
    assert not np.allclose(first.looks[0].heat, second.looks[0].heat, atol=0.05)
    row = first.to_dict()
    assert row["label"] == row["explained"] == bundle.task.class_names[each[0].target]
    assert row["box"] == pytest.approx(boxes[0].tolist(), abs=0.006)
    for operator in {s["operator"] for s in row["scales"]}:
        assert sum(s["share"] for s in row["scales"] if s["operator"] == operator) == pytest.approx(1, abs=1e-3)


def test_grad_cam_of_a_place_weighs_each_value_by_its_own_gradient(bundle: Bundle) -> None:
    """By hand: the sum over channels of maps times their gradients."""
    kept: list[torch.Tensor] = []
    layer = bundle.model.get_submodule(bundle.model.attribution_layer)
    handle = layer.register_forward_hook(lambda _module, _given, output: kept.append(output))
    x, place = torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1)), 7
    logit = bundle.task.per_class(bundle.model(x), place)[0, 1]
    handle.remove()
    (gradient,) = torch.autograd.grad(logit, kept[0])
    expected = (kept[0] * gradient).sum(1).detach()
    found = attribute(bundle, x, torch.tensor([1]), "grad-cam", place=place)
    assert torch.allclose(found, expected, atol=1e-6)
    assert found.abs().max() > 1e-4


@pytest.mark.parametrize("name", ["hrnet_w18_small", "resnet18", "res2net50_26w_4s"])
def test_stages_that_a_detector_leaves_out_explain_nothing(name: str) -> None:
    arguments = {"num_classes": 1, "in_chans": 1, "img_size": (28, 28)}
    network = create_network(DetectionTask.head, name, **arguments)
    task = DetectionTask(["a"], Rules(least=0.001, most=3, sure=0.0))
    made = Bundle(network.eval(), name, arguments, task, Preprocess((28, 28), 1, whole=True))
    image = np.full((1, 28, 28), 99, np.uint8)
    found = predictor_of(made, "cpu").predict([image], ["x"])
    explained = explain(made, image, found, subjects(made, image, found)[0], Wanted(("grad-cam",)))
    assert np.isfinite(explained.looks[0].heat).all()
    assert all(0 <= scale.share <= 1 for scale in explained.scales)
    with pytest.raises(UsageError, match="no stage 9"):
        explain(made, image, found, subjects(made, image, found)[0], Wanted(("grad-cam",), stage=9))
    with pytest.raises(UsageError, match="whole images"):
        explain(made, image, found, subjects(made, image, found)[0], Wanted(scores=True))


def test_the_command(model: Path, image: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(image[0]).save("x.png")
    words = ["explain", "x.png", "--model", str(model), "--method", "grad-cam", "--device", "cpu"]
    assert main([*words, "--objects", "2", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 2
    assert rows == json.loads(Path("explanation.json").read_text())
    with Image.open("explanation.png") as picture:
        assert picture.height > 600
    assert main([*words, "--target", "dog"]) == 0
    assert all(": dog 0." in line for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x.png", "--scores"], "--scores has no effect"),
        (["x.png", "--neighbours", "2"], "--neighbours has no effect"),
        (["x.png", "--objects", "0"], "--objects"),
        (["--split", "test"], "those of a classifier"),
    ],
)
def test_what_has_no_meaning_for_boxes_is_refused(words: list[str], said: str, model: Path, capsys: Any) -> None:
    assert main(["explain", *words, "--model", str(model), "--device", "cpu"]) == 2
    assert said in capsys.readouterr().err


def test_an_image_without_objects_has_nothing_to_explain(
    model: Path, bundle: Bundle, image: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    task = DetectionTask(["cat", "dog"], Rules(sure=1.0))
    Bundle(bundle.model, "msresnet_micro", ARGUMENTS, task, bundle.preprocess).save(model)
    Image.fromarray(image[0]).save("x.png")
    assert main(["explain", "x.png", "--model", str(model), "--device", "cpu", "--format", "json"]) == 0
    shown = capsys.readouterr()
    assert "nothing was found" in shown.err
    assert json.loads(shown.out) == []
    assert not Path("explanation.png").exists()

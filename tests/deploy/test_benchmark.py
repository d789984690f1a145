"""The benchmark: what it measures adds up, and what cannot run is said."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from msresnet.bundle import load_bundle
from msresnet.cli.main import main
from msresnet.deploy.benchmark import run
from msresnet.deploy.benchmark.contestants import Contestant
from msresnet.deploy.benchmark.peak import CHANNELS, DEPTH, _convolutions
from msresnet.deploy.benchmark.run import Measured, measure_all
from msresnet.deploy.benchmark.table import cells, rows
from msresnet.deploy.export import export
from sharding import make_model, png


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("benchmark")
    bundle = load_bundle(make_model(place / "model"))
    export(bundle, "onnx", place / "onnx", np.zeros((2, 1, 12, 12), np.uint8), ["a", "b"])
    return place


def test_figures_are_those_of_the_calls() -> None:
    """Rates by hand: 3 calls of 4 images in 2 s, then 2 calls in 1 s, then 1 in 1 s."""
    one = Contestant("m", "torch", {}, trained=False)
    measured = Measured(one, {"precision": "fp32", "device": "cpu", "macs": 100, "params": 1}, start=1.5)
    measured.calls = {4: [[0.5, 0.5, 1.0], [0.5, 0.5], [1.0]]}
    measured.memory = 3 << 20
    assert measured.rate(4) == 6.0
    assert measured.latency(4, 0.5) == 0.5
    (row,) = rows([measured], [4], {"fp32": 12_000.0})
    assert (row["images_per_second"], row["p99_ms"], row["memory_mib"], row["share_of_peak"]) == (6.0, 1000.0, 3.0, 0.1)
    assert cells(row)[1] == "torch"
    (row,) = rows([measured], [4], {})
    assert row["share_of_peak"] is None
    measured.known["device"] = "cuda"
    (row,) = rows([measured], [4], {"fp32": 12_000.0})
    assert row["share_of_peak"] is None, "the peak is the processor's"
    assert cells(row)[1] == "torch (cuda)"


def test_the_convolutions_of_the_peak_are_right() -> None:
    import onnxruntime

    generator = np.random.default_rng(0)
    weights = generator.normal(0, 1 / np.sqrt(9 * CHANNELS), (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    images = generator.normal(size=(2, CHANNELS, 7, 7)).astype(np.float32)
    outputs = torch.from_numpy(images)
    for _ in range(DEPTH):
        outputs = torch.nn.functional.conv2d(outputs, torch.from_numpy(weights), padding=1)
    expected = outputs.numpy()
    for quantised, tolerance in ((False, 1e-4), (True, 0.05)):
        session = onnxruntime.InferenceSession(_convolutions(quantised, images.shape, weights).SerializeToString())
        (found,) = session.run(None, {"x0": images})
        assert np.sqrt(np.square(found - expected).mean() / np.square(expected).mean()) < tolerance


def test_the_command_measures_every_way(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", str(folder / "model"), str(folder / "onnx"), "--backends", "torch,onnxruntime,openvino"]
    more = ["--rounds", "1", "--seconds", "0.02", "--batches", "2,1", "--threads", "1", "--format", "csv"]
    assert main([*words, *more, "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    found = list(csv.DictReader(shown.splitlines()))
    assert [(Path(r["model"]).name, r["backend"], r["batch"]) for r in found] == [
        (model, backend, batch)
        for model, backends in (("model", ("torch", "onnxruntime", "openvino")), ("onnx", ("onnxruntime", "openvino")))
        for backend in backends
        for batch in ("1", "2")
    ]
    assert all(float(r["images_per_second"]) > 0 and 0 < float(r["start_s"]) < 60 for r in found)
    assert all(float(r["memory_mib"]) > 20 for r in found)
    assert (tmp_path / "out/benchmark.csv").read_text() == shown
    kept = json.loads((tmp_path / "out/benchmark.json").read_text())
    assert kept["peaks"]["fp32"] > 1e8
    assert (tmp_path / "out/benchmark.html").read_text().startswith("<!doctype html>")


def test_untrained_networks_of_ours_and_of_others_race(capsys: pytest.CaptureFixture[str]) -> None:
    if find_spec("timm") is None or find_spec("torchvision") is None:
        pytest.skip("timm or torchvision is not installed")
    others = ["timm:resnet18", "torchvision:resnet18", "timm:nonsense", "torchvision:nonsense"]
    words = ["benchmark", "msresnet10", *others, "--size", "32", "--threads", "1"]
    more = ["--rounds", "1", "--seconds", "0.01", "--batches", "1", "--format", "json"]
    assert main([*words, *more, "--backends", "torch,openvino-int8"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    names = [(row["model"], row["backend"]) for row in found]
    assert names[:2] == [("msresnet10", "torch"), ("msresnet10", "openvino-int8")]
    assert names[2:] == [("timm:resnet18", "torch"), ("torchvision:resnet18", "torch")]
    assert found[0]["score"] is None
    assert "timm has no network 'nonsense'" in shown.err
    assert "torchvision has no network 'nonsense'" in shown.err


@pytest.mark.skipif(find_spec("keras") is None, reason="Keras is not installed")
def test_networks_of_keras_race(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "keras:MobileNet", "keras:Nonsense", "--size", "32", "--rounds", "1", "--seconds", "0.01"]
    assert main([*words, "--batches", "1,2", "--format", "json"]) == 0
    shown = capsys.readouterr()
    assert [row["batch"] for row in json.loads(shown.out)] == [1, 2]
    assert "keras.applications has no 'Nonsense'" in shown.err


def test_accuracy_is_that_of_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", "digits", "--epochs", "1", "--batch-size", "256", "--output", "runs/d", "-q"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--model", "runs/d", "--format", "json"]) == 0
    top1 = json.loads(capsys.readouterr().out)["top1"]
    words = ["benchmark", "runs/d", "--rounds", "1", "--seconds", "0.01", "--batches", "1", "--format", "json"]
    assert main([*words, "--backends", "torch,openvino,openvino-int8"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["score"] for row in found[:2]] == [pytest.approx(top1)] * 2
    assert found[2]["precision"] == "int8"
    assert abs(found[2]["score"] - top1) < 0.1


def test_unreadable_images_are_skipped_where_that_is_asked(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("=cat", "dog", "fox") * 4):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name / f"{number}.png").write_bytes(png(number) if number else b"no image")
    words = ["benchmark", str(folder / "model"), "--data", "data", "--workers", "0", "--backends", "onnxruntime-int8"]
    words += ["--rounds", "1", "--seconds", "0.01", "--batches", "1", "--format", "json"]
    assert main([*words, "--on-bad", "fail"]) == 3
    assert "0.png" in capsys.readouterr().err
    assert main([*words, "--on-bad", "skip"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert 0 <= row["score"] <= 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--backends", "tensorrt"], 2),
        (["--batches", "0"], 2),
        (["--batches", "1,x"], 2),
        (["--seconds", "0"], 2),
        (["--rounds", "0"], 2),
        (["nowhere"], 4),
    ],
)
def test_bad_requests_are_refused(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *words]) == code
    assert not capsys.readouterr().out


def test_a_process_that_cannot_open_its_model_says_why(folder: Path) -> None:
    asked = {"path": str(folder / "gone"), "backend": "torch", "threads": 1}
    found, failures = measure_all([Contestant("gone", "torch", asked, trained=True)], [1], 1, 0.01)
    assert not found
    assert "there is no such model" in failures[0]


def test_a_contestant_that_is_lost_costs_only_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Spied(run.Process):
        def __init__(self, contestant: Contestant) -> None:
            super().__init__(contestant)
            started.append(self.process)

    def tell(line: str) -> None:
        if line == "round 1 of 2":
            started[0].kill()
            started[0].wait()

    monkeypatch.setattr(run, "Process", Spied)
    asked = {"path": str(folder / "model"), "backend": "torch", "threads": 1}
    without = {"backend": "torch", "threads": 1}
    named = [("killed", asked), ("wrong", without), ("sound", asked)]
    chosen = [Contestant(name, "torch", each, trained=True) for name, each in named]
    found, failures = measure_all(chosen, [1], 2, 0.01, tell)
    assert [(each.contestant.model, len(each.calls[1])) for each in found] == [("sound", 2)]
    assert [line.splitlines()[0] for line in failures] == [
        "killed, torch: its process was killed",
        "wrong, torch: its process ended with 1",
    ]
    assert failures[1].splitlines()[1] == "  why: KeyError: 'path'"


def test_where_nothing_was_measured_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "timm:nonsense", "--rounds", "1", "--seconds", "0.01", "--batches", "1"]
    assert main([*words, "-q"]) == 5
    shown = capsys.readouterr()
    assert "timm:nonsense" in shown.err
    assert not shown.out

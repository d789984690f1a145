"""A model on other runtimes: the same answers, no torch, and files that are not what they say."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from scipy.special import softmax

import msresnet
from hostile import random_pixels
from msresnet.bundle import Bundle, load_bundle
from msresnet.cli.main import main
from msresnet.data.preprocess import Preprocess
from msresnet.deploy.export import export
from msresnet.errors import ModelError, UsageError
from msresnet.infer.backends.artefact import read_onnx, stamp
from msresnet.infer.backends.opened import open_predictor, run_bundle
from msresnet.infer.backends.openvino import OpenVino, load_core
from msresnet.infer.config import Engine, Limited, Running
from msresnet.models.factory import create_segmenter
from msresnet.results import DIGITS, Classification, Segmentation
from msresnet.serve.config import ServeConfig
from msresnet.serve.models import opening_of
from msresnet.serve.worker import open_model
from msresnet.tasks.postprocess.classification import ClassificationPostprocess
from msresnet.tasks.segmentation import SegmentationTask
from msresnet.trained import exported_config
from randomise import randomised
from sharding import make_model

RUNTIMES: tuple[Engine, ...] = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its packages, and a few images."""
    place = tmp_path_factory.mktemp("exported")
    bundle = load_bundle(make_model(place / "model"))
    ready = np.random.default_rng(0).integers(0, 256, (5, 1, 12, 12), dtype=np.uint8)
    for form in ("onnx", "openvino"):
        export(bundle, form, place / form, ready, list("abcde"))
    (place / "images").mkdir()
    for seed in range(9):
        Image.fromarray(random_pixels(9 + 4 * seed, 31 - 2 * seed, seed=seed)).save(place / f"images/{seed}.png")
    return place


def answers(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "msresnet", "predict", *words, "--format", "csv", "-q"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_bundle_is_what_its_folder_is_whatever_lies_in_it(folder: Path, tmp_path: Path) -> None:
    both = Path(shutil.copytree(folder / "model", tmp_path / "both"))
    shutil.copytree(folder / "onnx/1", both / "1")
    shutil.copy(folder / "onnx/1/model.onnx", both)
    assert open_predictor(both).backend.name == "torch"
    assert open_predictor(both / "model.onnx").backend.name != "torch"
    (both / "config.json").unlink()
    assert open_predictor(both).backend.name != "torch"


def test_every_door_and_runtime_gives_the_same_answers(folder: Path) -> None:
    plain = answers(folder, "images", "--model", "model")
    assert plain.count("\n") == 10
    assert answers(folder, "onnx/1/model.onnx", "images", "--backend", "onnxruntime") == plain
    assert answers(folder, "onnx/1/model.onnx", "images") == plain
    assert answers(folder, "openvino/1/model.xml", "images") == plain
    assert answers(folder, "images", "--model", "onnx") == plain
    assert answers(folder, "images", "--model", "model", "--backend", "onnxruntime") == plain


def test_openvino_computes_in_bf16_where_the_processor_does(folder: Path) -> None:
    file, images = folder / "onnx/1/model.onnx", np.random.default_rng(1).integers(0, 256, (64, 1, 12, 12), np.uint8)
    exact = open_predictor(file, Running(backend="openvino")).backend(images)[0]
    rounded = open_predictor(file, Running(backend="openvino", precision="bf16")).backend
    assert rounded.precision == "bf16"
    found = rounded(images)[0]
    np.testing.assert_allclose(found, exact, atol=0.03 * np.abs(exact).max())
    if "BF16" in load_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert np.abs(found - exact).max() > 1e-4 * np.abs(exact).max()  # float32 differs by less


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with a C++ compiler")
def test_compiled_code_gives_the_same_answers(folder: Path) -> None:
    plain, found = (
        list(csv.DictReader(answers(folder, "images", "--model", "model", "--backend", backend).splitlines()))
        for backend in ("torch", "compiled")
    )
    assert [row["label"] for row in found] == [row["label"] for row in plain]
    for left, right in zip(plain, found, strict=True):
        assert abs(float(left["probability"]) - float(right["probability"])) <= 2 * 10**-DIGITS


@pytest.mark.parametrize("words", [["onnx/1/model.onnx"], ["openvino/1/model.xml"]])
def test_exported_models_answer_without_torch(folder: Path, words: list[str]) -> None:
    code = (
        "import sys; from msresnet.cli.main import main; code = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    asked = ["predict", *words, "images", "--format", "jsonl"]
    done = subprocess.run([sys.executable, "-c", code, *asked], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 9


@pytest.mark.parametrize("backend", RUNTIMES)
def test_batches_answer_as_single_images_do(folder: Path, backend: Engine) -> None:
    images = np.random.default_rng(1).integers(0, 256, (7, 1, 12, 12), dtype=np.uint8)
    predictor = open_predictor(folder / "onnx", Running(backend=backend, threads=1))
    together = predictor.backend(images)[0]
    alone = np.concatenate([predictor.backend(image[None])[0] for image in images])
    assert np.abs(together - alone).max() <= 1e-5 * max(1, np.abs(together).max())


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_who_asks_for_single_images_gets_the_same_answers_and_all_others_too(folder: Path, form: str) -> None:
    images = np.random.default_rng(3).integers(0, 256, (6, 1, 12, 12), dtype=np.uint8)
    usual, alone = (open_predictor(folder / form, Running(backend="openvino", batch_size=n)).backend for n in (64, 1))
    larger = np.random.default_rng(4).integers(0, 256, (1, 1, 24, 36), dtype=np.uint8)
    for given in (images[:1], images, larger, images[1:2]):
        expected, found = usual(given)[0], alone(given)[0]
        assert np.abs(found - expected).max() <= 1e-5 * max(1, np.abs(expected).max())
    assert isinstance(alone, OpenVino)
    assert isinstance(usual, OpenVino)
    assert set(alone.requests) == {(1, 1, 12, 12), None}  # two networks, however many shapes come
    assert set(usual.requests) == {None}


def test_what_comes_in_another_shape_may_come_from_many_threads(folder: Path) -> None:
    images = np.random.default_rng(5).integers(0, 256, (3, 1, 12, 12), dtype=np.uint8)
    alone = open_predictor(folder / "onnx", Running(backend="openvino", batch_size=1, threads=1)).backend
    usual = open_predictor(folder / "onnx", Running(backend="openvino", threads=1)).backend
    given = [images[: 1 + number % 3] for number in range(48)]
    with ThreadPoolExecutor(8) as pool:
        found = [outputs for outputs, _ in pool.map(alone, given)]
    for part, outputs in zip(given, found, strict=True):
        assert np.allclose(outputs, usual(part)[0], atol=1e-5)


def test_a_shape_that_cannot_be_compiled_for_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = open_predictor(folder / "onnx", Running(backend="openvino", batch_size=1)).backend

    def fails(self: OpenVino, shape: object) -> None:
        raise RuntimeError("no memory is left")

    monkeypatch.setattr(OpenVino, "_compiled", fails)
    with pytest.raises(ModelError, match="no memory is left"):
        alone(np.zeros((2, 1, 12, 12), np.uint8))
    assert len(alone(np.zeros((1, 1, 12, 12), np.uint8))[0]) == 1


@pytest.mark.parametrize(("asked", "compiled"), [(1, [(1, 1, 12, 12)]), (4, [None]), (None, [None])])
def test_a_server_computes_an_image_alone_where_it_would_in_company(
    folder: Path, monkeypatch: pytest.MonkeyPatch, asked: int | None, compiled: list[object]
) -> None:
    """Two compiled networks differ in the last digits, and answers do not depend on the company."""
    shapes, compile_ = list[object](), OpenVino._compiled

    def noted(self: OpenVino, shape: tuple[int, ...] | None) -> Any:
        shapes.append(shape)
        return compile_(self, shape)

    monkeypatch.setattr(OpenVino, "_compiled", noted)
    config = ServeConfig(backend="openvino", batch_size=asked)
    opened = open_model(opening_of(config, str(folder / "onnx"), threads=1))
    opened.compute(np.zeros((1, 1, 12, 12), np.uint8))
    assert shapes == compiled


@pytest.mark.parametrize("backend", RUNTIMES)
def test_threads_may_share_a_predictor(folder: Path, backend: Engine) -> None:
    """A web handler runs in threads: each has to get the answer to its own image."""
    images = np.random.default_rng(2).integers(0, 256, (64, 1, 1, 12, 12), dtype=np.uint8)
    predictor = open_predictor(folder / "onnx", Running(backend=backend, threads=1))
    one_by_one = [predictor.backend(image)[0] for image in images]
    with ThreadPoolExecutor(8) as pool:
        at_once = [outputs for outputs, _ in pool.map(predictor.backend, images)]
    assert np.array_equal(at_once, one_by_one)


@pytest.mark.parametrize("backend", RUNTIMES)
def test_shards_and_evaluations_take_exported_models(folder: Path, backend: Engine, tmp_path: Path) -> None:
    words = ["--device", "cpu", "--format", "csv"]
    for name, model in (("a", ["--model", str(folder / "model")]), ("b", ["--model", str(folder / "onnx")])):
        more = ["--backend", backend] if name == "b" else []
        assert main(["predict", str(folder / "images"), *model, *more, *words, "--output", str(tmp_path / name)]) == 0
    found = [next((tmp_path / name).glob("*.csv")).read_text() for name in "ab"]
    assert found[0] == found[1]


def test_evaluate_measures_an_exported_model(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index, name in enumerate(["=cat", "dog", "fox"]):
        (tmp_path / "set" / name).mkdir(parents=True)
        for seed in range(4):
            picture = Image.fromarray(random_pixels(12, 12, seed=10 * index + seed))
            picture.save(tmp_path / "set" / name / f"{seed}.png")
    figures = []
    for model in ("model", "onnx", "openvino"):
        words = ["evaluate", "--model", str(folder / model), "--data", str(tmp_path / "set"), "--format", "json"]
        assert main([*words, "--output", str(tmp_path / model)]) == 0
        figures.append(json.loads(capsys.readouterr().out))
        assert (tmp_path / model / "report.html").is_file()
    for figure in figures[1:]:
        assert {k: figure[k] for k in ("top1", "n", "params", "macs")} == {
            k: figures[0][k] for k in ("top1", "n", "params", "macs")
        }
        assert figure["loss"] == pytest.approx(figures[0]["loss"], abs=1e-5)


def test_evaluate_predict_python_and_exported_models_say_the_same_of_the_same_files(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, name in enumerate(["=cat", "dog", "fox"]):
        (tmp_path / "set" / name).mkdir(parents=True)
        for seed in range(3):
            picture = Image.fromarray(random_pixels(15 + seed, 12, seed=10 * index + seed))
            picture.save(tmp_path / "set" / name / f"{seed}.png")
    files = [str(path) for path in sorted((tmp_path / "set").glob("*/*.png"))]
    door = msresnet.load(folder / "model")
    assert isinstance(door, msresnet.Classifier)
    answered = [door.predict(name) for name in files]
    python = [(str(one.labels[0]), f"{one.confidences[0]:.{DIGITS}f}") for one in answered]
    assert len(set(python)) > 3, "answers that are all alike would prove nothing"
    for model in ("model", "onnx", "openvino"):
        out = tmp_path / f"out-{model}"
        words = ["--model", str(folder / model), "--format", "json"]
        assert main(["evaluate", *words, "--data", str(tmp_path / "set"), "--output", str(out)]) == 0
        capsys.readouterr()
        with (out / "predictions.csv").open(encoding="utf-8") as file:
            written = list(csv.DictReader(file))
        # A spreadsheet would compute what begins with =, so that is written behind an apostrophe.
        rows = {str(tmp_path / "set" / row["id"].lstrip("'")): (row["label"], row["probability"]) for row in written}
        assert main(["predict", *words, *files]) == 0
        answers = json.loads(capsys.readouterr().out)
        assert [(label.lstrip("'"), share) for label, share in (rows[name] for name in files)] == python
        assert [(answer["label"], f"{answer['probability']:.{DIGITS}f}") for answer in answers] == python


def test_what_only_torch_can_do_is_refused_elsewhere(folder: Path) -> None:
    for how, text in (
        (Limited(tta="flip"), "--tta"),
        (Limited(budget="0.5"), "--budget"),
        (Running(backend="torch"), "--backend torch"),
        (Running(precision="bf16", backend="onnxruntime"), "bf16"),
    ):
        with pytest.raises(UsageError, match=text):
            open_predictor(folder / "onnx", how)
    with pytest.raises(UsageError, match="onnxruntime"):
        open_predictor(folder / "openvino", Running(backend="onnxruntime"))
    with pytest.raises(UsageError, match="threads"):
        Running(threads=0)
    with pytest.raises(UsageError, match="batch-size"):
        Running(batch_size=0)
    assert main(["evaluate", "--model", str(folder / "onnx"), "--data", "digits", "--calibrate"]) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core is all there is to bind to")
def test_openvino_binds_no_thread_to_a_core(folder: Path) -> None:
    """Else several processes of few threads each would all take the first cores."""
    program = """
import os, pathlib, sys, threading, numpy as np
from msresnet.infer.backends.opened import open_predictor
from msresnet.infer.config import Running
backend = open_predictor(sys.argv[1], Running(backend="openvino", threads=1)).backend
images, found = np.zeros((64, 1, 12, 12), np.uint8), set()
work = threading.Thread(target=lambda: [backend(images) for _ in range(100)])
work.start()
while work.is_alive():
    for task in pathlib.Path("/proc/self/task").iterdir():
        try:
            found.add(len(os.sched_getaffinity(int(task.name))))
        except ProcessLookupError:
            pass
print(found)
"""
    command = [sys.executable, "-c", program, str(folder / "onnx")]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str({len(os.sched_getaffinity(0))})


@pytest.mark.parametrize(
    "go",
    [
        pytest.param("while models: models.pop(0)", id="in the order in which they came"),
        pytest.param("work = threading.Thread(target=models.clear); work.start(); work.join()", id="in another thread"),
    ],
)
def test_signals_are_handled_after_models_went(go: str, folder: Path) -> None:
    """OpenVINO would leave no stack to handle them on: a crash."""
    program = f"""
import os, signal, sys, threading
from msresnet.infer.backends.opened import open_predictor
from msresnet.infer.config import Running
from msresnet.runtime import stop_on_signals
models = [open_predictor(sys.argv[1], Running(backend="openvino", threads=1)) for _ in range(3)]
{go}
with stop_on_signals() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    print(stop.code)
"""
    command = [sys.executable, "-X", "faulthandler", "-c", program, str(folder / "onnx")]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout.strip()) == (0, str(128 + signal.SIGTERM))


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_child_opens_a_model_after_its_parent_had_one(folder: Path) -> None:
    program = """
import multiprocessing, sys, numpy as np
from msresnet.infer.backends.opened import open_predictor
from msresnet.infer.config import Running
def answer(_):
    predictor = open_predictor(sys.argv[1], Running(backend="openvino", threads=2))
    return predictor.backend(np.zeros((2, 1, 12, 12), np.uint8))[0].shape
print(answer(0))
print(multiprocessing.get_context("fork").Pool(1).map_async(answer, [0]).get(60)[0])
"""
    command = [sys.executable, "-c", program, str(folder / "onnx")]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout.split("\n")[0] == said.stdout.split("\n")[1] != ""


def test_masks_are_the_same_on_every_runtime() -> None:
    torch.manual_seed(0)
    model = create_segmenter("msresnet_micro", num_classes=3, in_chans=1, img_size=(24, 24))
    randomised(model, 0)
    arguments = {"num_classes": 3, "in_chans": 1, "img_size": [24, 24]}
    preprocess = Preprocess((24, 24), 1, "pad", whole=True)
    bundle = Bundle(model.eval(), "msresnet_micro", arguments, SegmentationTask(["a", "b", "c"]), preprocess)
    images = [np.random.default_rng(s).integers(0, 256, (1, 20 + s, 33), dtype=np.uint8) for s in range(3)]
    expected = run_bundle(bundle).predict(images, list("xyz"))
    for backend in RUNTIMES:
        found = run_bundle(bundle, Running(backend=backend)).predict(images, list("xyz"))
        assert isinstance(found, Segmentation)
        assert [mask.shape for mask in found.masks] == [image.shape[1:] for image in images]
        assert expected.agreement(found).min() > 0.995  # pixels between two classes may fall to either


def test_probabilities_are_scipys() -> None:
    logits = np.random.default_rng(0).normal(0, 30, (4, 3)).astype(np.float32)
    found = ClassificationPostprocess(["a", "b", "c"], temperature=2.5)(logits, list("wxyz"))
    assert isinstance(found, Classification)
    np.testing.assert_allclose(found.probabilities, softmax(logits.astype(np.float64) / 2.5, 1), rtol=1e-12)


def stamped(folder: Path, change: object) -> Path:
    """A copy of the exported file whose graph was changed."""
    proto = onnx.load(folder / "onnx/1/model.onnx")
    change(proto)  # type: ignore[operator]
    path = folder / "changed.onnx"
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_c13_a_truncated_onnx_file(
    folder: Path, share: float, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = (folder / "onnx/1/model.onnx").read_bytes()
    path = tmp_path / "model.onnx"
    path.write_bytes(whole[: int(share * len(whole))])
    assert main(["predict", str(path), str(folder / "images/0.png")]) == ModelError.exit_code
    message = capfd.readouterr().err
    assert str(path) in message
    assert "Traceback" not in message


def test_c12_weights_outside_the_file_are_never_opened(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 4096)
    (tmp_path / "inner").mkdir()

    def outside(location: str) -> Path:
        proto = onnx.load(folder / "onnx/1/model.onnx")
        tensor = proto.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", "4")):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
        stamp(proto, exported_config(load_bundle(folder / "model"), "fp32"))
        path = tmp_path / "inner/model.onnx"
        path.write_bytes(proto.SerializeToString())
        return path

    (tmp_path / "inner/link").symlink_to("../secret")
    (tmp_path / "inner/hard").hardlink_to(tmp_path / "secret")
    for location in ("../secret", str(tmp_path / "secret"), "link", "hard"):
        with pytest.raises(ModelError, match="not all of the model"):
            read_onnx(outside(location))


def test_c03_a_flipped_bit(folder: Path, tmp_path: Path) -> None:
    contents = bytearray((folder / "onnx/1/model.onnx").read_bytes())
    contents[len(contents) // 2] ^= 1
    (tmp_path / "model.onnx").write_bytes(contents)
    with pytest.raises(ModelError, match=r"damaged|no whole"):
        open_predictor(tmp_path / "model.onnx")
    (tmp_path / "model.xml").write_bytes((folder / "openvino/1/model.xml").read_bytes())
    weights = bytearray((folder / "openvino/1/model.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (tmp_path / "model.bin").write_bytes(weights)
    with pytest.raises(ModelError, match="damaged"):
        open_predictor(tmp_path / "model.xml")


def test_files_of_others_and_what_contradicts_itself(folder: Path, tmp_path: Path) -> None:
    values = exported_config(load_bundle(folder / "model"), "fp32")
    proto = onnx.load(folder / "onnx/1/model.onnx")
    path = tmp_path / "model.onnx"
    changes: dict[str, dict[str, object]] = {
        "format 99": {"format_version": 99},
        "contradicts": {"task": {"name": "classification", "class_names": 3}},
        "KeyError": {"task": {"name": "reading", "class_names": ["a"]}},
        "not positive|above 0": {"preprocess": {"size": [12, 12], "channels": 1, "std": [0.0]}},
    }
    for message, change in changes.items():
        path.write_bytes(stamp(proto, values | change).SerializeToString())
        with pytest.raises(ModelError, match=message):
            open_predictor(path)
    colours = {"size": [12, 12], "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3}
    path.write_bytes(stamp(proto, values | {"preprocess": values["preprocess"] | colours}).SerializeToString())
    with pytest.raises(ModelError, match="OpenVINO cannot run the model"):
        open_predictor(path, Running(backend="openvino", batch_size=1))
    for backend in RUNTIMES:
        with pytest.raises(ModelError, match="cannot answer images of 2x3x12x12"):
            open_predictor(path, Running(backend=backend)).backend(np.zeros((2, 3, 12, 12), np.uint8))
    del proto.metadata_props[:]
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="not exported by msresnet"):
        open_predictor(path)
    for name in ("absent.onnx", "absent.xml"):
        with pytest.raises(ModelError, match="no such model"):
            open_predictor(tmp_path / name)
    (tmp_path / "text.xml").write_text("<net/>")
    with pytest.raises(ModelError, match="no whole OpenVINO model"):
        open_predictor(tmp_path / "text.xml")

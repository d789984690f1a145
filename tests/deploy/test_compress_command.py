"""`msresnet compress`: what each result is, what is refused, and that what is refused leaves nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from msresnet.bundle import load_bundle
from msresnet.cli.main import main
from msresnet.deploy.compress import table
from msresnet.deploy.compress.made import files_of
from msresnet.deploy.compress.table import Comparison, Row, check_good
from msresnet.deploy.package import COMPRESS, check_place
from msresnet.errors import QualityGateError
from tiny import contents, pictures, same, train_words, weights

FAST = ("--workers", "0", "--device", "cpu", "--format", "json")


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of each class."""
    return pictures(tmp_path_factory.mktemp("data") / "bars", per_class=40)


@pytest.fixture(scope="module")
def run(forty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "bars"
    torch.manual_seed(0)
    assert main(train_words(forty, folder, "-q", epochs=6, batch=8)) == 0
    return folder


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speeds are measured for a moment only."""
    monkeypatch.setattr(table, "SECONDS", 0.0)


def compress(run: Path, *words: str, output: Path | str = "out") -> int:
    return main(["compress", "--model", str(run), "--output", str(output), "-q", *FAST, *words])


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize(("to", "engines"), [("int8", 2), ("bf16", 3), ("folded", 3)])
def test_packages_hold_what_was_measured(
    run: Path, forty: Path, to: str, engines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    assert compress(run, "--to", to) == 0
    found = printed(capsys)
    assert len([row for row in found["rows"] if row["model"] == "before"]) == engines
    assert sorted(contents(Path("out"))) == ["1/model.onnx", "README.md", "config.pbtxt"]
    file = Path("out/1/model.onnx")
    proto = onnx.load_model(file)
    told = json.loads(next(entry.value for entry in proto.metadata_props if entry.key == "msresnet"))
    assert told["precision"] == {"folded": "fp32"}.get(to, to)
    after = [row for row in found["rows"] if row["model"] == "after"]
    assert told["scores"]["test"]["top1"] == min(row["top1"] for row in after)
    assert all(abs(row["size"] - file.stat().st_size) < 2000 for row in after)
    assert main(["evaluate", "--model", "out", "--data", str(forty), "--format", "json", "-q", "--workers", "0"]) == 0
    assert printed(capsys)["n"] == 80
    assert contents(run) == before


def test_a_pruned_model_is_a_bundle_of_fewer_multiply_adds(
    run: Path, forty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress(run, "--to", "pruned", "--keep", "0.6", "--epochs", "1", "--batch-size", "8") == 0
    found, small, whole = printed(capsys), load_bundle("out"), load_bundle(run)
    assert small.macs <= 0.6 * whole.macs
    assert small.task.class_names == whole.task.class_names
    assert small.preprocess == whole.preprocess
    assert len(small.arguments["inner_widths"]) == 3
    assert {row["params"] for row in found["rows"] if row["model"] == "after"} == {small.params}
    assert small.scores["test"]["measured_by"] == "msresnet compress"
    image = str(next((forty / "lying").glob("*.png")))
    assert main(["predict", "--model", "out", image, "--format", "json"]) == 0


def test_a_student_learns_from_the_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--student", "msresnet_micro", "--student-args", "widths=[8,16,24]", "stem_width=8")
    assert compress(run, "--to", "distilled", *words, "--epochs", "2", "--batch-size", "8") == 0
    found, small = printed(capsys), load_bundle("out")
    assert small.arguments["widths"] == [8, 16, 24]
    assert small.params < 0.2 * load_bundle(run).params
    assert found["to"] == "distilled"


def test_classes_are_matched_by_name(run: Path, tmp_path: Path) -> None:
    """A table names the classes in another order; learning with them in the wrong one would end near chance."""
    bundle = load_bundle(run)
    swapped = pictures(tmp_path / "swapped", per_class=30)
    rows = [f"{p},{p.parent.name}" for name in ("standing", "lying") for p in sorted((swapped / name).glob("*.png"))]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    words = ("--data", str(tmp_path / "table.csv"), "--lr", "0.0001", "--epochs", "1", "--batch-size", "8")
    assert compress(run, "--to", "pruned", "--keep", "0.9", *words, "--fail-under", "top1=0.9") == 0
    assert load_bundle("out").task.class_names == bundle.task.class_names


@pytest.mark.parametrize(
    "words",
    [
        ("--to", "int8", "--fail-under", "loss=0.000001"),
        ("--to", "folded", "--fail-under", "top1=0.5,loss=0"),
    ],
)
def test_what_is_not_good_enough_is_not_written(
    run: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress(run, *words, output="kept/out") == 8
    captured = capsys.readouterr()
    assert json.loads(captured.out)["rows"]  # the figures are shown all the same
    assert "error:" in captured.err
    assert contents(Path("kept")) == {}
    assert list(Path("kept").iterdir()) == []


def test_a_fall_is_judged_where_it_is_largest() -> None:
    rows = [
        Row(model, backend, "int8", 1, 1, 1, 1.0, 1.0, {"n": 500, "top1": top1})
        for model, backend, top1 in (("before", "a", 0.9), ("after", "a", 0.9), ("after", "b", 0.88))
    ]
    found = Comparison("int8", "test", "top1", {"top1": "higher"}, rows, {})
    check_good(found, {"top1": 0.88}, 0.021)
    with pytest.raises(QualityGateError, match=r"0\.0200 less"):
        check_good(found, {}, 0.01)
    with pytest.raises(QualityGateError, match=r"0\.8800, under 0\.89"):
        check_good(found, {"top1": 0.89}, None)


def test_runtimes_that_answer_differently_are_refused_whatever_was_asked() -> None:
    rows = [
        Row(model, backend, "int8", 1, 1, 1, 1.0, 1.0, {"n": 500, "ap": ap})
        for model, backend, ap in (("before", "a", 0.47), ("after", "a", 0.47), ("after", "b", 0.21))
    ]
    with pytest.raises(QualityGateError, match=r"0\.4700 in a int8, 0\.2100 in b int8"):
        check_good(Comparison("int8", "test", "ap", {"ap": "higher"}, rows, {}), {}, None)


def test_one_answer_of_few_images_is_no_reason_to_refuse() -> None:
    rows = [
        Row(model, backend, "int8", 1, 1, 1, 1.0, 1.0, {"n": 16, "top1": right / 16})
        for model, backend, right in (("before", "a", 15), ("after", "a", 15), ("after", "b", 14))
    ]
    check_good(Comparison("int8", "test", "top1", {"top1": "higher"}, rows, {}), {}, None)


def test_an_earlier_result_stays_when_a_new_one_is_refused(run: Path) -> None:
    assert compress(run, "--to", "folded") == 0
    before = contents(Path("out"))
    assert compress(run, "--to", "int8", "--fail-under", "loss=0.000001") == 8
    assert contents(Path("out")) == before


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--keep", "0"), "--keep 0"),
        (("--to", "pruned", "--keep", "1"), "--keep 1"),
        (("--to", "pruned", "--keep", "nan"), "--keep nan"),
        (("--to", "pruned", "--keep", "0.01"), "the least"),
        (("--keep", "0.5"), "--to pruned"),
        (("--to", "distilled"), "--student"),
        (("--to", "distilled", "--student", "msresnet11"), "msresnet10"),
        (("--to", "distilled", "--student", "msresnet_micro", "--student-args", "num_classes=3"), "the data says it"),
        (("--student", "msresnet10"), "--to distilled"),
        (("--epochs", "3"), "pruned and distilled"),
        (("--to", "pruned", "--epochs", "0"), "--epochs 0"),
        (("--to", "pruned", "--lr", "inf"), "--lr inf"),
        (("--to", "pruned", "--calibration", "10"), "int8"),
        (("--calibration", "0"), "--calibration 0"),
        (("--test-fraction", "0.5"), "without --data"),
        (("--max-drop", "-0.1"), "--max-drop -0.1"),
        (("--max-drop", "nan"), "--max-drop nan"),
        (("--to", "pruned", "--teacher-share", "2"), "--teacher-share 2"),
        (("--fail-under", "top9=1"), "top9"),
        (("--fail-under", "miou=0.5"), "miou"),
        (("--fail-under", "top1=98"), "from 0 to 1"),
    ],
)
def test_k_settings_that_cannot_be_are_refused(
    run: Path, words: tuple[str, ...], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress(run, *words) == 2
    captured = capsys.readouterr()
    assert part in captured.err
    assert captured.out == ""
    assert not Path("out").exists()


@pytest.mark.parametrize("words", [("--weight-bits", "6"), ("--to", "int4"), ("--bits", "8")])
def test_k01_unknown_words_leave_with_2(run: Path, words: tuple[str, ...]) -> None:
    assert compress(run, *words) == 2


def test_k06_a_place_that_is_taken_is_refused_before_any_work(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("mine")
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    for place in ("file", "full", "file/below", str(run)):
        assert compress(run, output=place) == 2
        assert "error:" in capsys.readouterr().err
    assert Path("file").read_text() == "mine"
    assert contents(Path("full")) == {"notes.txt": b"mine"}


def test_a_bundle_is_replaced_where_compress_wrote_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trained one has the same files."""
    bundle = load_bundle(run)
    bundle.save(Path("trained"))
    bundle.with_scores({"test": bundle.scores["test"] | {"measured_by": COMPRESS}}).save(Path("result"))
    check_place(Path("result"), files_of("pruned"))
    before = contents(Path())
    assert compress(run, "--to", "pruned", output="trained") == 2
    assert "nothing there is to be overwritten" in capsys.readouterr().err
    for model in ("result", "result/config.json"):
        assert compress(Path(model), "--to", "pruned", output="result") == 2
        assert "--output is the place of --model" in capsys.readouterr().err
    assert contents(Path()) == before


def test_data_of_other_classes_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pictures(tmp_path / "other")
    (root / "lying").rename(root / "slanting")
    assert compress(run, "--data", str(root)) == 3
    assert "slanting" in capsys.readouterr().err


def test_a_model_without_data_asks_for_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = load_bundle(run).save(tmp_path / "bare")
    assert compress(bare) == 2
    assert "--data" in capsys.readouterr().err


def test_c12_c13_what_is_no_bundle_is_never_opened_as_one(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only bundles are compressed: ONNX files, whole, cut or pointing elsewhere, are refused as they are."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.zeros(16, np.float32).tobytes())
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[16])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    folder = tmp_path / "outside"
    folder.mkdir()
    whole = onnx.helper.make_model(graph).SerializeToString()
    for name, data in {"outside.onnx": whole, "cut.onnx": whole[:20], "empty.onnx": b""}.items():
        (folder / name).write_bytes(data)
        assert compress(folder / name, "--data", "digits") == 4
        assert "Traceback" not in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_c01_c02_a_damaged_bundle_is_refused(run: Path, tmp_path: Path, share: float) -> None:
    damaged = load_bundle(run).save(tmp_path / "damaged")
    file = damaged / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert compress(damaged, "--data", "digits") == 4
    assert not Path("out").exists()


def test_c11_a_newer_bundle_is_refused(run: Path, tmp_path: Path) -> None:
    newer = load_bundle(run).save(tmp_path / "newer")
    config = json.loads((newer / "config.json").read_text())
    (newer / "config.json").write_text(json.dumps(config | {"format_version": 99}))
    assert compress(newer, "--data", "digits") == 4


def test_hostile_inner_widths_take_no_memory(run: Path, tmp_path: Path) -> None:
    hostile = load_bundle(run).save(tmp_path / "hostile")
    config = json.loads((hostile / "config.json").read_text())
    for widths in ([10**9] * 3, [16_384] * 3, [8], "8", [[8]], [0, 8, 8], {"a": 1}):
        config["arguments"]["inner_widths"] = widths
        (hostile / "config.json").write_text(json.dumps(config))
        assert compress(hostile, "--data", "digits") == 4


def test_how_long_the_first_training_might_take_says_nothing_about_the_next(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limited = Path(shutil.copytree(run, tmp_path / "limited"))
    settings = limited / "train.yaml"
    text = settings.read_text(encoding="utf-8")
    assert "operations: null" in text
    settings.write_text(text.replace("operations: null", "operations: 1.0"), encoding="utf-8")
    for model, output in ((run, "free"), (limited, "bound")):
        words = ("--to", "pruned", "--keep", "0.6", "--epochs", "2", "--batch-size", "8", "--teacher-share", "0")
        assert compress(model, *words, output=tmp_path / output) == 0
    capsys.readouterr()
    assert same(weights(tmp_path / "free"), weights(tmp_path / "bound"))

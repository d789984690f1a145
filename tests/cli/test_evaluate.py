"""`msresnet evaluate`: calibration that is kept, two models, scales, abstaining, sets that are hard to measure on."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet
from scipy.stats import binomtest
from sklearn.metrics import log_loss

import msresnet
from hostile import spoil
from msresnet.cli.main import main
from msresnet.data.options import DataOptions
from msresnet.data.splits import open_data
from msresnet.results import DIGITS, classified
from msresnet.tensors import load_tensors, save_tensors
from tiny import contents, train_words


@pytest.fixture
def copy(run: Path, here: Path) -> Path:
    """The same model, to be changed."""
    return Path(shutil.copytree(run, here / "copy"))


@pytest.fixture
def mixed(run: Path, bars: Path, here: Path) -> Path:
    """The pictures under the names that the model gives them, a third of them under the other name."""
    model, names = msresnet.load(run), ("lying", "standing")
    assert isinstance(model, msresnet.Classifier)
    for number, picture in enumerate(sorted(bars.rglob("*.png"))):
        answer = model.predict(picture).indices[0]
        folder = here / "mixed" / names[1 - answer if number % 3 == 0 else answer]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, folder / f"{number:02d}.png")
    return here / "mixed"


def measured(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["evaluate", *words, "--format", "json", "-q"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_temperature_is_kept_and_every_door_uses_it(
    copy: Path, mixed: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, files = measured(capsys, "--model", str(copy), "--data", str(mixed)), contents(copy)
    fitted = measured(capsys, "--model", str(copy), "--data", str(mixed), "--calibrate")
    after = measured(capsys, "--model", str(copy), "--data", str(mixed), "--output", "out")
    calibration = fitted["calibration"]

    assert (before["temperature"], after["temperature"]) == (1.0, calibration["temperature"][1])
    assert calibration["loss"] == pytest.approx([before["loss"], after["loss"]])
    assert calibration["ece"] == pytest.approx([before["ece"], after["ece"]])
    assert after["loss"] < before["loss"]
    assert (after["top1"], after["confusion"]) == (before["top1"], before["confusion"])
    assert {name for name, data in contents(copy).items() if files.get(name) != data} == {"config.json"}

    with Path("out/predictions.csv").open(encoding="utf-8") as file:
        rows = {row["id"]: (row["label"], row["probability"]) for row in csv.DictReader(file)}
    names = [str(mixed / name) for name in rows]
    assert main(["predict", "--model", str(copy), "--format", "json", *names]) == 0
    predicted = json.loads(capsys.readouterr().out)
    door = msresnet.load(copy)
    assert isinstance(door, msresnet.Classifier)
    assert [(p["label"], f"{p['probability']:.{DIGITS}f}") for p in predicted] == list(rows.values())
    assert [f"{door.predict(n).confidences[0]:.{DIGITS}f}" for n in names] == [p for _, p in rows.values()]


def test_the_loss_after_calibration_is_scikit_learns(
    copy: Path, mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = measured(capsys, "--model", str(copy), "--data", str(mixed), "--calibrate")
    results = msresnet.load(copy).evaluate(mixed)
    probabilities = classified(results.predictions).probabilities
    assert fitted["loss"] == pytest.approx(log_loss(results.targets, probabilities), rel=1e-6)


def test_calibrated_figures_are_those_of_what_was_asked_to_run_the_network(
    copy: Path, mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = measured(
        capsys, "--model", str(copy), "--data", str(mixed), "--calibrate", "--backend", "onnxruntime", "--threads", "1"
    )
    assert fitted["backend"] == "onnxruntime"
    assert fitted["temperature"] == fitted["calibration"]["temperature"][1]


def test_scores_of_another_temperature_leave_the_bundle(
    copy: Path, mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = msresnet.load(copy).bundle_.scores["test"]
    measured(capsys, "--model", str(copy), "--data", str(mixed), "--calibrate")
    after = msresnet.load(copy).bundle_.scores["test"]
    assert {"loss", "ece"} <= set(before)
    assert after == {name: value for name, value in before.items() if name not in ("loss", "ece")}


def test_no_test_set_is_fitted_on_unasked(
    run: Path, bars: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("test", "train"):
        shutil.copytree(bars, here / "sets" / split)
    copy = shutil.copytree(run, here / "copy")
    before = contents(copy)
    assert main(["evaluate", "--model", str(copy), "--data", "sets", "--calibrate"]) == 2
    answer = capsys.readouterr().err
    assert "no validation set" in answer
    assert "--split train or test" in answer
    assert contents(copy) == before


def test_answers_that_are_all_right_have_no_temperature(
    copy: Path, bars: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for row in _rows(copy, bars, here):
        (here / "right" / row["label"]).mkdir(parents=True, exist_ok=True)
        shutil.copy(bars / row["id"], here / "right" / row["label"] / row["id"].replace("/", "-"))
    before = contents(copy)
    assert main(["evaluate", "--model", str(copy), "--data", "right", "--calibrate", "--split", "train"]) == 3
    assert "every image is answered rightly" in capsys.readouterr().err
    assert contents(copy) == before


def _rows(model: Path, data: Path, here: Path) -> list[dict[str, str]]:
    assert main(["evaluate", "--model", str(model), "--data", str(data), "--output", "seen", "-q"]) == 0
    with (here / "seen" / "predictions.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("value", [0, -1.0, True, "1", None, [1.0]])
def test_a_config_with_no_temperature_at_all(value: object, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config["task"]["temperature"] = value
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert main(["evaluate", "--model", str(copy)]) == 4
    assert "temperature" in capsys.readouterr().err


def test_bundles_of_before_have_none(copy: Path, bars: Path, here: Path) -> None:
    now = _rows(copy, bars, here)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    del config["task"]["temperature"]
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert _rows(copy, bars, here) == now


def test_C08_answers_that_are_no_numbers(copy: Path, bars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors, meta = load_tensors(copy / "model.safetensors")
    tensors["fc.weight"] = torch.full_like(tensors["fc.weight"], 3e38)  # finite, but what it gives is not
    save_tensors(copy / "model.safetensors", tensors, meta)
    for verb in (["evaluate", "--data", str(bars)], ["predict", str(bars / "lying" / "00.png")]):
        assert main([*verb, "--model", str(copy)]) == 4
        answer = capsys.readouterr().err
        assert "not numbers" in answer
        assert "00.png" in answer


def test_two_models_on_the_same_images(
    run: Path, bars: Path, mixed: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(train_words(mixed, here / "other", "-q", epochs=1, batch=8)) == 0
    words = ["--model", str(run), "--data", str(bars), "--baseline", "other"]
    found = measured(capsys, *words, "--object-scale", "0.5,1", "--image-sizes", "12,16")
    alone = measured(capsys, "--model", "other", "--data", str(bars))
    beside, d = found["baseline"], found["baseline"]["difference"]

    assert {name: beside[name] for name in ("top1", "loss", "macro_f1")} == {
        name: alone[name] for name in ("top1", "loss", "macro_f1")
    }
    assert d["only_this"] - d["only_baseline"] == round(24 * (found["top1"] - beside["top1"]))
    differ = d["only_this"] + d["only_baseline"]
    assert d["p"] == pytest.approx(binomtest(d["only_this"], differ).pvalue if differ else 1.0)
    assert found["robustness"]["object_scale"]["rows"][1]["top1"] == found["top1"]
    assert found["robustness"]["object_scale"]["baseline"]["rows"][1]["top1"] == alone["top1"]
    assert [row["size"] for row in found["robustness"]["image_size"]["rows"]] == [12, 16]
    assert main(["evaluate", *words, "--object-scale", "0.5,1"]) == 0
    shown = capsys.readouterr().out
    assert "McNemar's exact test" in shown
    assert "more area" in shown
    assert main(["evaluate", *words, "--object-scale", "0.5,1", "--output", "out", "-q"]) == 0
    report = (here / "out" / "report.html").read_text(encoding="utf-8")
    section = report[report.index(">What size does</h2>") :]
    curve = found["robustness"]["object_scale"]
    for area in (curve["area"], curve["baseline"]["area"]):
        assert f"{100 * area:.2f}" in section


def test_a_baseline_of_other_classes_is_refused(
    run: Path, bars: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for old, new in (("lying", "a"), ("standing", "b")):
        shutil.copytree(bars / old, here / "named" / new)
    assert main(train_words(here / "named", here / "other", "-q", epochs=1, batch=8)) == 0
    assert main(["evaluate", "--model", str(run), "--data", str(bars), "--baseline", "other"]) == 3
    assert "does not know the class lying" in capsys.readouterr().err


def test_abstaining_leaves_the_sure_answers(run: Path, mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = msresnet.load(run).evaluate(mixed)
    predictions = classified(results.predictions)
    bound = float(np.median(predictions.confidences))
    found = measured(capsys, "--model", str(run), "--data", str(mixed), "--abstain-below", repr(bound))["abstain"]
    kept = predictions.confidences >= bound
    right = predictions.indices == results.targets
    assert (found["answered"], found["n"]) == (pytest.approx(kept.mean()), kept.sum())
    assert found["accuracy"] == pytest.approx(right[kept].mean())


def test_nobody_is_sure_enough(run: Path, mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", str(run), "--data", str(mixed), "--abstain-below", "1"]
    assert measured(capsys, *words)["abstain"]["accuracy"] is None
    assert main(["evaluate", *words, "--fail-under", "answered_accuracy=0.5"]) == 8
    assert "answered_accuracy is none" in capsys.readouterr().err


def test_predictions_as_parquet(run: Path, bars: Path, here: Path) -> None:
    words = ["evaluate", "--model", str(run), "--data", str(bars), "--output", "out", "-q"]
    assert main([*words, "--predictions", "parquet"]) == 0
    table = parquet.read_table(here / "out" / "predictions.parquet").to_pylist()
    rows = _rows(run, bars, here)
    assert [(row["id"], row["label"]) for row in table] == [(row["id"], row["label"]) for row in rows]
    assert {type(row["probability"]) for row in table} == {float}
    assert main(words) == 0  # the folder is known as one of this verb's


def test_a_class_without_images_is_told_and_left_out(
    run: Path, bars: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bars / "lying", here / "half" / "lying")
    found = measured(capsys, "--model", str(run), "--data", "half")
    assert found["balanced_accuracy"] == found["top1"] == found["per_class"][0]["recall"]
    assert main(["evaluate", "--model", str(run), "--data", "half"]) == 0
    assert "none of standing" in capsys.readouterr().out


def test_one_image_has_figures_but_few_intervals(
    run: Path, bars: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "one" / "lying").mkdir(parents=True)
    shutil.copy(bars / "lying" / "00.png", here / "one" / "lying" / "00.png")
    words = ["--model", str(run), "--data", "one", "--object-scale", "0.5,1", "--abstain-below", "0.5"]
    found = measured(capsys, *words, "--baseline", str(run), "--output", "out")
    assert (found["n"], found["loss_ci95"], found["ece_ci95"]) == (1, None, None)
    assert found["top1_ci95"][1] - found["top1_ci95"][0] > 0.7
    assert main(["evaluate", *words]) == 0


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--abstain-below", "0"], "a probability"),
        (["--abstain-below", "nan"], "a probability"),
        (["--object-scale", "0.5,-1"], "above 0"),
        (["--image-sizes", "20.5"], "whole pixels"),
        (["--predictions", "parquet"], "--output"),
        (["--calibrate", "--tta", "flip"], "contradict"),
        (["--calibrate", "--model", "hf:user/repo"], "elsewhere"),
        (["--fail-under", "object_scale=0.5"], "--object-scale"),
        (["--fail-under", "accuracy=0.5"], "balanced_accuracy"),
        (["--baseline", "nowhere"], "nowhere"),
    ],
)
def test_what_is_refused_before_anything_is_measured(
    words: list[str], answer: str, run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    assert main(["evaluate", "--model", str(run), *words]) in (2, 4)
    answered = capsys.readouterr()
    assert answer in answered.err
    assert answered.out == ""
    assert contents(run) == before


@pytest.mark.parametrize("text", ['{"loss": 0.1}', "[]", "not JSON"])
def test_figures_of_other_programs_stay(
    text: str, run: Path, bars: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "out").mkdir()
    (here / "out/metrics.json").write_text(text)
    assert main(["evaluate", "--model", str(run), "--data", str(bars), "--output", "out"]) == 2
    assert "nothing there is to be overwritten" in capsys.readouterr().err
    assert contents(here / "out") == {"metrics.json": text.encode()}


def test_figures_of_before_are_replaced(run: Path, bars: Path, here: Path) -> None:
    for _ in range(2):
        assert main(["evaluate", "--model", str(run), "--data", str(bars), "--output", "out", "-q"]) == 0


def test_generated_digits_are_counted_by_their_scale(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = train_words(Path("digits"), here / "run", "-q", "--image-size", "16", epochs=1, batch=256)
    assert main(words) == 0
    found = measured(capsys, "--model", "run", "--data", "scaled-digits", "--batch-size", "500")
    rows = found["scale_bands"]
    assert (found["n"], sum(row["n"] for row in rows)) == (2000, 2000)
    assert [rows[0]["low"], rows[-1]["high"]] == [0.25, 1.0]
    total = sum(row["n"] * row["top1"] for row in rows)
    assert total / 2000 == pytest.approx(found["top1"])


SEEN = "which neither training nor the choice of the model has seen"


def report(*words: str) -> str:
    """The report of an evaluation."""
    assert main(["evaluate", *words, "--output", "report", "-q"]) == 0
    return Path("report", "report.html").read_text(encoding="utf-8")


def test_a_report_says_what_has_seen_the_images_only_where_that_is_known(
    run: Path, bars: Path, copy: Path, here: Path
) -> None:
    assert SEEN in report("--model", str(run))
    assert SEEN not in report("--model", str(run), "--data", str(bars))
    for split in ("train", "test"):
        shutil.copytree(bars, here / "other" / split)
    assert SEEN not in report("--model", str(run), "--data", "other", "--split", "test")
    kept = json.loads((copy / "metrics.json").read_text(encoding="utf-8"))
    (copy / "metrics.json").write_text(json.dumps({k: v for k, v in kept.items() if k != "data_digest"}), "utf-8")
    assert SEEN not in report("--model", str(copy))


def test_a_trainings_report_does_not_call_shared_images_unseen(bars: Path, here: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(bars, here / "shared" / split)
    words = ["train", "--data", "shared", "--output", "out", "--epochs", "1", "--device", "cpu", "--workers", "0", "-q"]
    assert main(words) == 0
    page = Path("out", "report.html").read_text(encoding="utf-8")
    assert SEEN not in page
    assert "test images are also in the training set" in page


def test_a_report_says_that_the_set_has_changed(copy: Path) -> None:
    kept = json.loads((copy / "metrics.json").read_text(encoding="utf-8"))
    kept["data_digest"]["test"] = "another"
    (copy / "metrics.json").write_text(json.dumps(kept), encoding="utf-8")
    found = report("--model", str(copy))
    assert SEEN not in found
    assert "the test set has changed since training" in found


def test_a_report_says_that_something_was_fitted_on_these_images(copy: Path, mixed: Path) -> None:
    found = report("--model", str(copy), "--data", str(mixed), "--calibrate", "--split", "train")
    assert "it was fitted on the images that are measured here" in found


def test_images_that_were_learnt_from_are_known_wherever_they_lie(
    run: Path, bars: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["path,label"]
    for number, path in enumerate(sorted(bars.rglob("*.png"))):
        shutil.copy(path, here / f"{number}.png")
        rows.append(f"{number}.png,{path.parent.name}")
    (here / "all.csv").write_text("\n".join(rows), encoding="utf-8")
    shutil.copytree(bars, here / "moved")
    for data in ("moved", "all.csv"):
        assert main(["evaluate", "--model", str(run), "--data", data]) == 0
        assert "of these images were learnt from in training: without --data" in capsys.readouterr().err
    held_out = open_data(str(bars), DataOptions()).test
    assert held_out is not None
    for name in set(open_data("moved", DataOptions()).train.ids) | {"x"} - set(held_out.ids):
        (here / "moved" / name).unlink(missing_ok=True)
    for words in ([], ["--data", "moved"]):
        assert main(["evaluate", "--model", str(run), *words]) == 0
        assert "were learnt from" not in capsys.readouterr().err


def test_a_class_that_was_added_since_is_left_aside(bars: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Path(shutil.copytree(bars, here / "data"))
    assert main(train_words(data, here / "run", "-q", epochs=1)) == 0
    before = measured(capsys, "--model", "run")
    shutil.copytree(data / "lying", data / "frog")
    shutil.copytree(data / "standing", data / "zebra")
    assert main(["evaluate", "--model", "run", "--format", "json"]) == 0
    told = capsys.readouterr()
    assert "images of frog, zebra are left aside: the model was trained without such a class" in told.err
    assert "has changed since training" not in told.err
    assert json.loads(told.out)["loss"] == before["loss"]
    assert json.loads(told.out)["n"] == before["n"]


def test_unreadable_images_are_told(run: Path, bars: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = shutil.copytree(bars, here / "ruined")
    (data / "lying" / "bad.png").write_bytes(b"no picture")
    words = ["--model", str(run), "--data", str(data), "--on-bad", "skip"]
    assert "1 unreadable images of the given set were skipped" in report(*words)
    assert main(["evaluate", *words]) == 0
    assert "1 unreadable images of the given set were skipped" in capsys.readouterr().err


def test_one_unreadable_image_is_no_ruin_and_more_are_what_the_run_made_of_them(
    bars: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(bars, here / "data"))
    assert main(train_words(data, here / "one", "-q", epochs=1)) == 0
    held_out = open_data(str(data), DataOptions()).test
    assert held_out is not None
    test = list(held_out.ids)
    spoil(data, test[:1])
    assert main(["evaluate", "--model", "one"]) == 0
    spoil(data, test[-2:])  # one of each class stays
    assert main(["evaluate", "--model", "one"]) == 3
    capsys.readouterr()
    assert main(train_words(data, here / "many", "--on-bad", "skip", "-q", epochs=1)) == 0
    assert main(["evaluate", "--model", "many"]) == 0
    assert "3 unreadable images of the test set were skipped" in capsys.readouterr().err
    assert main(["evaluate", "--model", "many", "--on-bad", "fail"]) == 3
    words = ["--rounds", "1", "--seconds", "0.01", "--batches", "1", "--backends", "torch"]
    assert main(["benchmark", "many", *words]) == 0
    assert main(["export", "--model", "many", "--images", "100", "--output", "exported"]) == 0

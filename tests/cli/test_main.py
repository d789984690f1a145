"""Verbs, messages, exit codes; and that every door gives the same answer on the same file."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import msresnet
from msresnet.cli.main import ALIASES, VERBS, main
from msresnet.results import DIGITS
from tiny import contents, train_words, wait_for


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, env=os.environ | environment
    )


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["predict", "-h"], ["--version"]])
def test_help_never_imports_torch(words: list[str]) -> None:
    code = (
        f"import sys; from msresnet.cli.main import main; code = main({words!r}); print('torch' in sys.modules, code)"
    )
    done = python("-c", code)
    assert done.stdout.splitlines()[-1] == "False 0"


@pytest.mark.parametrize(("word", "near"), [("trian", "train"), ("evalute", "evaluate"), ("vall", "val")])
def test_an_unknown_verb_names_the_nearest(word: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    assert near in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["train", "photos"], "try: --data photos or --model photos"),
        (["evaluate", "runs/photos"], "--model runs/photos"),
        (["data", "shw"], "try: msresnet data show"),
        (["evaluate", "--fail-under", "accuracy=0.9"], "try: top1"),
    ],
)
def test_what_was_meant_is_told(words: list[str], hint: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--model", str(run)] if "--fail-under" in words else []
    assert main([*words, *more]) == 2
    assert hint in capsys.readouterr().err


def test_no_verb_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    text = capsys.readouterr().out
    assert all(f"\n  {verb} " in text for verb in VERBS)


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases_lead_to_their_verbs(alias: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([alias, "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert main([ALIASES[alias], "--print-config"]) == 0
    assert capsys.readouterr().out == printed


def swapped(bars: Path, here: Path) -> Path:
    """The pictures under each other's names."""
    (here / "swapped").mkdir()
    (here / "swapped" / "lying").symlink_to(bars / "standing")
    (here / "swapped" / "standing").symlink_to(bars / "lying")
    return here / "swapped"


def broken(words: object, common: object) -> int:
    raise ZeroDivisionError("division by zero")


def test_a_bug_of_ours_shows_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("msresnet.cli.doctor.main", broken)
    assert main(["doctor"]) == 1
    quiet = capsys.readouterr().err
    assert "ZeroDivisionError" in quiet
    assert "--debug" in quiet
    assert "Traceback" not in quiet
    assert main(["doctor", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_debug_keeps_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "epoch=1", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), 5),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes"), 5),
        (OSError(28, "No space left on device"), 5),
        (BrokenPipeError(32, "Broken pipe"), 5),  # of another pipe than standard output
        (KeyboardInterrupt(), 130),
    ],
)
def test_F8_what_the_machine_lacks(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(words: object, common: object) -> int:
        raise error

    monkeypatch.setattr("msresnet.cli.doctor.main", lacking)
    assert main(["doctor"]) == code


def test_a_reader_that_leaves_is_no_error() -> None:
    words = ["models --format json --print-config", "models", "models --format json", "--help"]
    script = " && ".join(f"{sys.executable} -m msresnet {each}" for each in words)
    command = f"set -o pipefail; ({script}) | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0


def test_F6_sigterm_leaves_nothing_half_written(run: Path, here: Path) -> None:
    command = [sys.executable, "-m", "msresnet", "predict", "--model", str(run), "--output", "out/answers.csv", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: (here / "out").is_dir() and any((here / "out").iterdir()))
        process.terminate()
        assert process.wait(60) == 143
    assert list((here / "out").iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_F3_standard_output_on_a_full_disk() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "msresnet", "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 5
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def answers(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    assert main(words) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_every_door_gives_the_same_answer_to_the_last_digit(
    run: Path, bars: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--model", str(run), "--data", str(bars), "--output", "measured", "-q"]) == 0
    capsys.readouterr()
    with (here / "measured" / "predictions.csv").open(encoding="utf-8") as file:
        measured = {row["id"]: (row["label"], row["probability"]) for row in csv.DictReader(file)}
    files = [str(bars / name) for name in measured]
    together = answers(["predict", "--model", str(run), "--format", "csv", *files], capsys)
    alone = [answers(["predict", "--model", str(run), "--format", "csv", file], capsys)[0] for file in files[::4]]
    classifier = msresnet.load(run)
    assert isinstance(classifier, msresnet.Classifier)
    door = [classifier.predict(file) for file in files]

    assert len(measured) == 24
    assert [(a["label"], a["probability"]) for a in together] == list(measured.values())
    assert [(a["label"], a["probability"]) for a in alone] == list(measured.values())[::4]
    assert [(d.labels[0], f"{d.confidences[0]:.{DIGITS}f}") for d in door] == list(measured.values())


def test_evaluate_and_the_run_agree(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert main(["evaluate", "--model", str(run), "--format", "json", "-q"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert {k: measured[k] for k in ("split", "n", "top1", "loss", "ece")} == {
        k: recorded[k] for k in ("split", "n", "top1", "loss", "ece")
    }
    scores = msresnet.load(run).bundle_.scores
    assert scores["test"]["top1"] == measured["top1"]


def test_the_mistakes_are_counted_and_shown(
    run: Path, bars: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--model", str(run), "--data", str(swapped(bars, here)), "-q"]
    assert main([*words, "--format", "json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    right = sum(measured["confusion"][i][i] for i in range(2))
    sure = [item["probability"] for item in measured["worst"]]

    assert measured["split"] == "given"
    assert (sum(map(sum, measured["confusion"])), right / 24) == (24, measured["top1"])
    assert len(sure) == min(10, 24 - right)
    assert sure == sorted(sure, reverse=True)
    assert all(item["truth"] != item["label"] for item in measured["worst"])
    assert main(words) == 0
    assert "most confident mistakes" in capsys.readouterr().out


def test_a_changed_held_out_set_is_told(bars: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Path(shutil.copytree(bars, here / "data"))
    assert main(train_words(data, here / "run", "-q", epochs=1, batch=8)) == 0
    assert main(["evaluate", "--model", "run"]) == 0
    assert "changed since training" not in capsys.readouterr().err

    with (here / "run" / "predictions.csv").open(encoding="utf-8") as file:
        (data / next(csv.DictReader(file))["id"]).unlink()
    assert main(["evaluate", "--model", "run"]) == 0
    assert "changed since training" in capsys.readouterr().err


def test_class_names_are_no_markup(bars: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for old, new in (("lying", "[red]a"), ("standing", "b[x]")):
        shutil.copytree(bars / old, here / "data" / new)
    assert main(["data", "show", "--data", "data", "-q"]) == 0
    assert main(train_words(here / "data", here / "run", "-q", epochs=1, batch=8)) == 0
    shown = capsys.readouterr().out
    assert main(["evaluate", "--model", "run", "-q"]) == 0
    for text in (shown, capsys.readouterr().out):
        assert "[red]a" in text
        assert "b[x]" in text


def test_an_empty_folder_does_not_discard_the_other_answers(
    run: Path, bars: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "empty").mkdir()
    good = bars / "lying" / "00.png"
    assert main(["predict", "--model", str(run), str(good), "empty", "no*.png", "--format", "json"]) == 3
    found = capsys.readouterr()
    assert [row["id"] for row in json.loads(found.out)] == [str(good)]
    assert "where: empty" in found.err
    assert "where: no*.png" in found.err


def test_the_quality_gate(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    top1 = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["top1"]
    assert main(["evaluate", "--model", str(run), "-q", "--fail-under", f"top1={top1}"]) == 0
    assert main(["evaluate", "--model", str(run), "-q", "fail_under=top5=1.0"]) == 0
    capsys.readouterr()
    code = main(["evaluate", "--model", str(run), "-q", "--fail-under", "top1=1.0"])
    assert code == (0 if top1 == 1.0 else 8)


def test_the_gate_fails_with_8(run: Path, bars: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "--model", str(run), "--data", str(swapped(bars, here)), "--fail-under", "top1=0.9"]
    assert main(words) == 8
    assert "under 0.9" in capsys.readouterr().err


def test_unreadable_images_are_named_and_the_rest_is_answered(
    run: Path, bars: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "bad.png").write_bytes(b"")
    good = bars / "lying" / "00.png"
    assert main(["predict", "--model", str(run), "bad.png", str(good), "--format", "json"]) == 3
    found = capsys.readouterr()
    assert [row["id"] for row in json.loads(found.out)] == [str(good)]
    assert "bad.png" in found.err


def test_I21_names_that_are_no_text(run: Path, bars: Path, here: Path) -> None:
    picture = (bars / "lying" / "00.png").read_bytes()
    for name in ("lying", "standing"):
        (here / "data" / name).mkdir(parents=True)
        for raw in (b"\xff.png", b"a\nb.png", b"=1+1.png"):
            (here / "data" / name / os.fsdecode(raw)).write_bytes(picture)
    words = ["predict", "-q", "--model", str(run), "data", "--format"]
    code = (
        f"from msresnet.cli.main import main; print([main({words!r} + [f]) for f in ('table', 'csv', 'json', 'jsonl')])"
    )
    done = python("-c", code)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "[0, 0, 0, 0]"
    assert main(["evaluate", "--model", str(run), "--data", "data", "--output", "out", "-q"]) == 0
    with (here / "out" / "predictions.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 6


def test_a_model_without_its_data_asks_for_some(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    msresnet.load(run).save(here / "bundle")
    assert main(["evaluate", "--model", "bundle"]) == 2
    assert "--data" in capsys.readouterr().err


def test_predicting_writes_nothing(run: Path, bars: Path, here: Path) -> None:
    assert main(["predict", "--model", str(run), str(bars / "lying")]) == 0
    assert contents(here) == {}


def test_a_run_folder_holds_what_it_should(run: Path) -> None:
    names = {p.name for p in run.iterdir()} - {".lock"}
    assert names == {
        "README.md", "checkpoint", "config.json", "environment.json", "history.csv", "log.txt", "metrics.json",
        "model.safetensors", "predictions.csv", "report.html", "train.yaml",
    }  # fmt: skip
    log = (run / "log.txt").read_text(encoding="utf-8")
    assert log.startswith("msresnet train")
    assert "epoch   3" in log


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["resnt50"], "resnet50"),
        (["msres*", "--pretrained"], "has published weights"),
        (["resnet18", "--folded"], "--tree --folded"),
        (["resnet18", "--depth", "2"], "--tree --depth 2"),
        (["resnet18", "--tree", "--format", "json"], "a tree is text"),
        (["res*", "--tree"], "--tree of at most 3"),
        (["article_cnn", "--tree", "--image-size", "8"], "at least 22"),
    ],
)
def test_models_answers_mistakes(words: list[str], answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", *words]) == 2
    assert answer in capsys.readouterr().err


def test_models_in_every_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "res2net50*", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["params"] == 25_699_120
    assert rows[0]["maps"][-1] == [2048, 7, 7]
    assert rows[0]["licence"] == "unknown"
    assert main(["models", "res2net50*", "--format", "csv"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [int(row["macs"]) for row in table] == [row["macs"] for row in rows]
    assert main(["models", "res2net50*"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(rows) + 2
    assert "112 56 28 14 7" in printed[2]
    assert main(["models", "res2net50*", "--pretrained", "--format", "json"]) == 0
    assert {row["model"] for row in rows} - {row["model"] for row in json.loads(capsys.readouterr().out)} == {
        "res2net50_18w_4s"
    }


def test_the_tree_shows_shapes_and_folding(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "msresnet50", "--tree"]) == 0
    text = capsys.readouterr().out
    assert "conv2  3x3 + 1x3 + 3x1 + 1x1 /2  112x28x28" in text
    assert "1 to 5  each Bottleneck  1024x14x14" in text
    assert main(["models", "msresnet50", "--tree", "--folded", "--image-size", "97"]) == 0
    text = capsys.readouterr().out
    assert "conv2  Conv2d 3x3 /2  112x13x13" in text
    assert "BatchNorm" not in text


@pytest.mark.parametrize(
    ("argument", "answer"),
    [
        ("pretrained=x.safetensors", "--weights"),
        ("features_only=true", "leave no classifier"),
        ("num_classes=20", "the data says it"),
        ("img_size=20", "--image-size"),
        ("exits=maybe", "one of True, False"),
    ],
)
def test_arguments_of_models_that_training_does_not_take(
    argument: str, answer: str, bars: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", str(bars), "--model", "resnet18", "--model-args", argument]) == 2
    assert answer in capsys.readouterr().err


def test_a_demo_that_had_little_time_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--time-limit", "1s"]) == 0
    said = capsys.readouterr()
    assert re.search(r"epochs within 1s: \d+ of 60", said.err)
    assert "--time-limit 4s" in said.err
    assert re.search(r"^prediction: .* is a \d with probability", said.out, re.MULTILINE)
    assert Path("runs/demo/report.html").is_file()

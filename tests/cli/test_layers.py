"""Where settings come from, and what is said about wrong ones."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from msresnet.cli.layers import parse, spelled_out
from msresnet.cli.main import Common, main
from msresnet.errors import UsageError
from msresnet.infer.config import EvaluateConfig
from msresnet.train.config import TrainConfig
from msresnet.train.fit import to_yaml
from tiny import contents, train_words


def config(*words: str, file: str | None = None) -> TrainConfig:
    return parse("train", TrainConfig, list(words), Common(config=file)).config


def fails(words: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """The message of a command that is refused at once."""
    assert main(words) == code
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["epochs=10"], ["--epochs", "10"]),
        (["lr=1e-3", "binary=true", "threshold=otsu"], ["--lr", "0.001", "--binary", "--threshold", "otsu"]),
        (["binary=false"], ["--no-binary"]),
        (["image_size=28,32"], ["--image-size", "28", "32"]),
        (["batch-size=32"], ["--batch-size", "32"]),
        (["model_args=widths=[8,16],pool=avg"], ["--model-args", "widths=[8,16]", "pool=avg"]),
        (["data=a,b.csv", "output=true"], ["--data", "a,b.csv", "--output", "true"]),
        (["model=resnet18", "--epochs", "3", "seed=5"], ["--model=resnet18", "--epochs=3", "--seed=5"]),
        (["--output", "epochs=3"], ["--output=epochs=3"]),
    ],
)
def test_key_equals_value_is_the_same_as_flags(one: list[str], other: list[str]) -> None:
    assert config(*one) == config(*other)


def test_descriptions_flow_over_their_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit):
        parse("train", TrainConfig, ["--help"], Common())
    assert "settings given here replace its own." in capsys.readouterr().out  # two lines of the source


def test_a_list_of_texts_goes_on_to_the_next_flag() -> None:
    found = config("--model-args", "operator=plain", "shortcut_levels=3", "drop_rate=0.3", "--epochs", "2", "lr=0.1")
    assert found.model_args == ("operator=plain", "shortcut_levels=3", "drop_rate=0.3")
    assert (found.drop_rate, found.epochs, found.lr) == (0.0, 2, 0.1)


@pytest.mark.parametrize(
    "again", [["--model-args", "stem=deep"], ["--model-args=stem=deep"], ["--model_args", "stem=deep"]]
)
def test_a_list_of_texts_that_is_given_again_goes_on(again: list[str]) -> None:
    found = config("--model-args", "operator=plain", "--epochs", "2", *again, "--lr", "0.1")
    assert found.model_args == ("operator=plain", "stem=deep")
    assert (found.epochs, found.lr) == (2, 0.1)


def test_the_model_arguments_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    words = "train --model msresnet18 --model-args operator=selective shortcut_levels=3 --print-config"
    assert main(words.split()) == 0
    assert "model_args: [operator=selective, shortcut_levels=3]  # flag" in capsys.readouterr().out


def test_a_variable_speaks_to_one_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSRESNET_TRAIN_OUTPUT", "run")
    assert config().output == "run"
    assert parse("evaluate", EvaluateConfig, [], Common()).config.output is None


def test_K01_an_unknown_variable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MSRESNET_TRAIN_EPOCH", "3")
    assert "MSRESNET_TRAIN_EPOCHS" in fails(["train"], capsys)


def test_a_value_may_hold_an_equals_sign() -> None:
    words = ["--fail-under", "top1=0.9"]
    assert parse("evaluate", EvaluateConfig, words, Common()).config.fail_under == "top1=0.9"


@given(st.integers(1, 10**6), st.floats(1e-9, 10), st.booleans())
def test_values_arrive_as_they_were_given(epochs: int, lr: float, resume: bool) -> None:
    found = config(f"epochs={epochs}", f"lr={lr!r}", f"resume={resume}")
    assert (found.epochs, found.lr, found.resume) == (epochs, lr, resume)


def test_default_then_file_then_environment_then_flag(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "a.yaml").write_text("epochs: 3\nlr: 0.3\nseed: 3\nimage_size: [8, 9]\nval_data: null\n", encoding="utf-8")
    monkeypatch.setenv("MSRESNET_TRAIN_LR", "0.2")
    monkeypatch.setenv("MSRESNET_TRAIN_SEED", "2")
    parsed = parse("train", TrainConfig, ["--seed", "1"], Common(config=str(here / "a.yaml")))
    found = parsed.config
    assert (found.batch_size, found.epochs, found.lr, found.seed, found.image_size) == (128, 3, 0.2, 1, (8, 9))
    origin = parsed.origin
    assert (origin["epochs"], origin["lr"], origin["seed"]) == (str(here / "a.yaml"), "environment", "flag")
    assert set(parsed.explicit()) == {"epochs", "lr", "seed", "image_size"}


def test_print_config_shows_where_each_value_is_from(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "a.yaml").write_text("epochs: 3\n", encoding="utf-8")
    monkeypatch.setenv("MSRESNET_TRAIN_LR", "0.2")
    assert main(["train", "--config", "a.yaml", "--print-config", "--image-size", "8", "9"]) == 0
    text = capsys.readouterr().out
    for row in ("epochs: 3  # a.yaml", "lr: 0.2  # environment", "image_size: [8, 9]  # flag", "seed: 0  # default"):
        assert row in text
    assert config(file=_file(here, text)).image_size == (8, 9)


@pytest.mark.usefixtures("here")
def test_null_in_a_file_undoes_what_a_recipe_says(here: Path) -> None:
    recipe = {"epochs": 3, "on_bad": "skip", "train_sizes": [8, 9], "image_size": [9], "threshold": "otsu", "lr": 0.1}
    usual = TrainConfig()
    for asked in (usual, replace(usual, recipe="some"), replace(usual, recipe="some", operations=1e10, threshold="7")):
        (here / "a.yaml").write_text(to_yaml(asked), encoding="utf-8")
        parsed = parse("train", TrainConfig, [], Common(config="a.yaml"), recipes=lambda name: recipe)
        assert parsed.config == asked
        assert parsed.origin.get("epochs") == ("a.yaml" if asked.recipe else None)
    again = parse("train", TrainConfig, ["--recipe", "some"], Common(config="a.yaml"), recipes=lambda name: recipe)
    assert again.config == replace(asked, recipe="some")


def test_print_config_shows_the_model_that_stands_in_the_first_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--top", "2", "model.onnx", "cat.jpg", "--print-config"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[:2] == ["inputs: [cat.jpg]  # flag", "model: model.onnx  # flag"]


def _file(here: Path, text: str) -> str:
    path = here / "printed.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("verb", ["demo", "models", "doctor", "evaluate", "predict", "explain", "data show"])
def test_every_verb_prints_its_config(verb: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb.split(), "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) is None or verb != "doctor"
    assert contents(here) == {}


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["epoch=3"], "epochs"),
        (["--epoch", "3"], "--epochs"),
        (["batchsize=3"], "batch_size"),
        (["--lrr", "1"], "--lr"),
    ],
)
def test_K01_unknown_settings_name_the_nearest(words: list[str], near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert near in fails(["train", *words], capsys)


def test_K01_an_unknown_key_in_a_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "a.yaml").write_text("epoch: 3\n", encoding="utf-8")
    message = fails(["train", "--config", "a.yaml"], capsys)
    assert "a.yaml: epoch" in message
    assert "try: epochs" in message


@pytest.mark.parametrize(
    "words",
    [
        ["--epochs", "ten"], ["--epochs", "1.5"], ["--epochs", "0"], ["--batch-size", "-1"], ["--optimizer", "adam"],
        ["--ema", "1"], ["--warmup", "nan"], ["--flip", "2"], ["--seed", "-1"], ["--workers", "-1"], ["epochs="],
        ["binary=maybe"], ["--image-size", "x"], ["--clip-grad", "0"], ["--val-fraction", "1"],
        ["--batch-size", "1"], ["--data", "absent", "--time-limit", "soon"],
        ["--data", "absent", "--augment", "none", "--flip", "0.5"],
        ["--schedule", "one-cycle", "--warmup", "0.1"],
    ],
)  # fmt: skip
def test_K02_wrong_types_and_bounds(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fails(["train", *words], capsys)


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "--workers", "-1"], ["predict", "--batch-size", "0"], ["predict", "--top", "0"],
        ["evaluate", "--workers", "-1"], ["evaluate", "--batch-size", "0"], ["data", "show", "--count", "0"],
        ["evaluate", "--fail-under", "top1=nan"], ["evaluate", "--fail-under", "top1=90"],
        ["evaluate", "--fail-under", "top9=0.9"], ["-v", "doctor"], ["explain", "--output", "a.jpg"], ["data"],
    ],
)  # fmt: skip
def test_K02_wrong_values_of_other_verbs(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fails(words, capsys)


def test_K02_a_wrong_type_names_its_file_or_variable(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "a.yaml").write_text("epochs: ten\n", encoding="utf-8")
    assert "a.yaml" in fails(["train", "--config", "a.yaml"], capsys)
    monkeypatch.setenv("MSRESNET_TRAIN_EPOCHS", "ten")
    assert "environment: --epochs=ten" in fails(["train"], capsys)


@pytest.mark.parametrize("value", ["0", "-0.1", "inf", "nan", "-inf"])
def test_K03_learning_rates(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "positive and finite" in fails(["train", f"--lr={value}"], capsys)


@pytest.mark.parametrize("text", ["a: !!python/object/apply:os.system [id]", "[1]", "3", "epochs: {a: 1}", "\t: ["])
def test_K04_files_that_hold_no_settings(here: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "a.yaml").write_text(text, encoding="utf-8")
    assert "a.yaml" in fails(["train", "--config", "a.yaml"], capsys)


def test_K05_an_alias_bomb_through_the_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["image_size: &a [1, 1]"]
    rows += [
        f"k{i}: &{b} [{', '.join(['*' + a] * 9)}]" for i, (a, b) in enumerate(zip("abcdefg", "bcdefgh", strict=True))
    ]
    (here / "a.yaml").write_text("\n".join(rows), encoding="utf-8")
    start = time.monotonic()
    fails(["train", "--config", "a.yaml"], capsys)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("words", [["--config"], ["--config", "absent.yaml"], ["--config", "."]])
def test_a_config_file_that_is_not_there(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fails(["train", *words], capsys)


@pytest.mark.parametrize("output", ["file", "file/run", "disk/run"])
def test_K06_outputs_that_cannot_be_written(
    here: Path, bars: Path, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "file").write_bytes(b"mine")
    (here / "disk").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(here / "disk")]
    mounted = shutil.which("mount") and subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        if output.startswith("disk") and not mounted:
            pytest.skip("mounting a read-only disk needs root")
        for words in (train_words(bars, here / output), ["evaluate", "--output", output, "--model", "absent"]):
            assert "--output" in fails(words, capsys)
    finally:
        if mounted:
            subprocess.run(["umount", str(here / "disk")], check=True)
    assert contents(here) == {"file": b"mine"}


@pytest.mark.parametrize("words", [["train"], ["demo"], ["evaluate"]])
def test_files_of_others_are_never_overwritten(
    here: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "README.md").write_bytes(b"mine")
    assert "README.md" in fails([*words, "--output", "."], capsys)
    assert contents(here) == {"README.md": b"mine"}


@pytest.mark.parametrize("text", ["operator=[", "stem=2020-01-01", "operator=.nan", "operator"])
def test_model_arguments_that_are_no_plain_values(
    here: Path, bars: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert text in fails(train_words(bars, here / "run", "--model-args", text), capsys)


@pytest.mark.parametrize(
    "words", [["--val-data", "x"], ["--test-data", "x"], ["--val-fraction", "0.1"], ["--test-fraction", "0.2"]]
)
def test_evaluate_refuses_what_it_would_ignore(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{words[0]} has no effect" in fails(["evaluate", "--data", "digits", *words], capsys)
    assert "--label-column has no effect" in fails(["evaluate", "--label-column", "first"], capsys)


def test_K06_an_output_that_holds_a_run(here: Path, bars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "run").mkdir()
    (here / "run" / "train.yaml").write_text("epochs: 1\n", encoding="utf-8")
    assert "--exist-ok" in fails(train_words(bars, here / "run"), capsys)


def test_K07_an_unknown_model_leaves_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "msresnet18" in fails(["train", "model=msresnet81"], capsys)
    fails(["train", "model=../../x"], capsys)
    assert list(here.iterdir()) == []


def test_K08_images_smaller_than_the_network_takes(here: Path, bars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--image-size" in fails(
        ["train", "--data", str(bars), "--model", "article_cnn", "--image-size", "8"], capsys
    )
    assert not list(here.glob("runs/*"))


def test_K11_a_device_that_is_not_here(bars: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "try: --device" in fails(["train", "--data", str(bars), "--device", "cuda:99"], capsys)
    assert "unknown device" in fails(["train", "--data", str(bars), "--device", "abacus"], capsys)
    assert not list(here.glob("runs/*"))


@given(st.lists(st.text(max_size=8), max_size=4))
def test_F17_any_words_are_flags_or_a_usage_error(words: list[str]) -> None:
    kinds: dict[str, Any] = {"epochs": "int", "data": "str", "image_size": "tuple[int, ...]"}
    with contextlib.suppress(UsageError):
        spelled_out(words, kinds)

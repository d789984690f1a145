"""Searches through the real command, on tiny pictures: what may vary, kills, resumption, pruning, what is written."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import yaml

from msresnet.cli.main import main
from msresnet.cli.tune import with_space
from msresnet.data.splits import open_data
from msresnet.errors import Interrupted, UsageError
from msresnet.models.cost import count_macs
from msresnet.train.begun import DATA
from msresnet.train.config import TrainConfig
from msresnet.train.recipes import RECIPES, Recipe
from msresnet.tune.config import TuneConfig
from msresnet.tune.space import Choice, Dimension, Range, read_space, with_settings
from msresnet.tune.storage import JOURNAL, began_with, open_study
from msresnet.tune.study import _distribution, _importance, tune
from tiny import contents, kill, pictures, plan_for, start, trainer, wait_for

FIXED = ["--model", "msresnet_micro", "--precision", "fp32", "--device", "cpu", "--workers", "0"]
SPACE = ["lr=1e-4:1e-1:log", "batch_size=2,4,8", "label_smoothing=0:0.2"]


@pytest.fixture(scope="module")
def whole(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*words(bars, folder / "out", trials=14), "-q"]) == 0
    return folder / "out"


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """The same search, to go on with or to damage."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def words(data: Path, output: Path, *more: str, trials: int = 3, epochs: int = 1) -> list[str]:
    """The command line of a search of seconds."""
    head = ["tune", "--data", str(data), "--output", str(output), "--trials", str(trials), "--epochs", str(epochs)]
    return [*head, *FIXED, *SPACE, *more]


def rows(folder: Path) -> list[dict[str, str]]:
    """The trials of a search, without what a clock said."""
    with (folder / "trials.csv").open(encoding="utf-8") as file:
        return [{name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def best(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "best.yaml").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


SPACES = [
    ("lr=1e-4:1e-1:log", Range("lr", 1e-4, 1e-1, log=True)),
    ("weight_decay=0:0.1", Range("weight_decay", 0.0, 0.1)),
    ("epochs=5:20:5", Range("epochs", 5, 20, step=5)),
    ("mixup=0:0.4:0.1", Range("mixup", 0.0, 0.4, step=0.1)),
    ("model=resnet18,msresnet18", Choice("model", ("resnet18", "msresnet18"))),
    ("batch_size=64,128", Choice("batch_size", (64, 128))),
    ("clip_grad=none,1", Choice("clip_grad", (None, 1.0))),
    ("image_size=28,32", Choice("image_size", (28, 32))),
    ("binary=true,false", Choice("binary", (True, False))),
    ("model_args.operator=plain,res2net", Choice("model_args.operator", ("plain", "res2net"))),
    ("model_args.shortcut_levels=1:3", Range("model_args.shortcut_levels", 1, 3)),
]


@pytest.mark.parametrize(("word", "dimension"), SPACES)
def test_what_varies_is_what_is_typed(word: str, dimension: Range | Choice) -> None:
    fixed = TrainConfig(threshold="otsu", model_args=("stem=deep", "operator=online"))
    assert read_space([word], fixed) == (dimension,)


@pytest.mark.parametrize(
    ("word", "tried"),
    [
        ("model_args.width=1:4:0.5", {1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0}),
        ("model_args.width=1:4", {1, 2, 3, 4}),
        ("epochs=5:20:5", {5, 10, 15, 20}),
    ],
)
def test_a_range_is_tried_in_steps_that_may_be_fractions(word: str, tried: set[float]) -> None:
    import optuna

    (dimension,) = read_space([word], TrainConfig())
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = [study.ask({dimension.name: _distribution(dimension)}).params[dimension.name] for _ in range(100)]
    assert set(found) == tried
    assert {type(value) for value in found} == {type(min(tried))}


REFUSED = [
    ("lrr=1:2", "try: lr"),
    ("lr=1e-1:1e-4:log", "not below"),
    ("lr=0:1:log", "above 0"),
    ("lr=1e-4:fast", "it takes auto or a number"),
    ("lr=1:2:3:4", "low:high"),
    ("lr=-1:1", "positive"),
    ("label_smoothing=0:2", "below 1"),
    ("epochs=1:9:20", "no step"),
    ("epochs=1.5:3", "whole number"),
    ("optimizer=adamw,lion", "adamw or sgd"),
    ("batch_size=auto:64", "not a number"),
    ("seed=1,2", "the same for all"),
    ("data=a,b", "the same for all"),
    ("model_args=operator=plain,res2net", "model_args.operator"),
    ("lr", "not a range"),
    ("lr=", "not a range"),
]


@pytest.mark.parametrize(("word", "message"), REFUSED)
def test_K01_K02_K03_a_wrong_range_is_refused_before_anything_trains(word: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_space([word], TrainConfig())
    assert message in str(caught.value)


def test_wrong_searches_leave_no_trace(bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, message in [
        (["model=resnet18,resnet19"], "resnet18"),
        (["lr=1:2"], "given twice"),
        (["schedule=cosine,one-cycle", "--warmup", "0.2"], "one-cycle"),
        (["--trials", "0"], "at least 1"),
        (["--resume"], "goes on by itself"),
        (["--val-fraction", "0"], "no validation set"),
        (["balance=none,loss"], "some are scored by balanced accuracy and some by top-1"),
        (["--data", "absent"], "no data"),
    ]:
        assert main([*words(bars, tmp_path / "out"), *more]) in (2, 3)
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert main(["tune", "--data", str(bars)]) == 2
    assert "nothing to search" in capsys.readouterr().err


def test_words_that_vary_are_told_from_those_that_do_not() -> None:
    given = ["--data", "x", "lr=1e-4:1:log", "epochs=3", "--weights", "hf:a/b", "model=a,b", "time_limit=1h30m"]
    assert with_space(given) == [
        *["--data", "x", "epochs=3", "--weights", "hf:a/b", "time_limit=1h30m"],
        *["--space", "lr=1e-4:1:log", "model=a,b"],
    ]
    assert with_space(["--space", "lr=1:2", "batch_size=2,4", "--seed", "1", "mixup=0:1"]) == [
        *["--seed", "1", "--space", "lr=1:2", "batch_size=2,4", "mixup=0:1"],
    ]
    assert with_space(["--model-args", "operator=a", "groups=1,2"]) == ["--model-args", "operator=a", "groups=1,2"]
    assert with_space(["val_data=a,b", "weights=hf:a/b"]) == ["val_data=a,b", "weights=hf:a/b"]


def test_a_models_arguments_join_those_that_are_fixed() -> None:
    fixed = TrainConfig(model_args=("stem=deep", "operator=online"))
    chosen = with_settings(fixed, {"model_args.operator": "plain", "model_args.exits": True, "lr": 0.1})
    assert chosen.model_args == ("stem=deep", "operator=plain", "exits=true")
    assert (chosen.lr, with_settings(fixed, {"image_size": 32}).image_size) == (0.1, (32,))


def test_the_best_settings_are_the_best_and_train_takes_them(whole: Path, bars: Path, tmp_path: Path) -> None:
    finished = [row for row in rows(whole) if row["state"] == "finished"]
    top = max(finished, key=lambda row: (float(row["score"]), -float(row["loss"])))
    settings = best(whole)
    assert len(rows(whole)) == 14
    assert (settings["lr"], settings["batch_size"]) == (float(top["lr"]), int(top["batch_size"]))
    assert all(1e-4 <= float(row["lr"]) <= 1e-1 and row["batch_size"] in ("2", "4", "8") for row in rows(whole))
    assert main(["train", "--config", str(whole / "best.yaml"), "--output", str(tmp_path / "run"), "-q"]) == 0
    with (tmp_path / "run" / "history.csv").open(encoding="utf-8") as file:
        history = list(csv.DictReader(file))
    assert max(float(row["val_top1"]) for row in history) == float(top["score"])
    assert (whole / "tuning.png").read_bytes().startswith(b"\x89PNG")
    assert f"{100 * float(top['score']):.2f}" in (whole / "tuning.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("more", [["--balance", "sample"], ["balance=loss,sample"]])
def test_classes_that_count_alike_do_so_in_the_scores(
    bars: Path, tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(bars, tmp_path / "out", *more, trials=1)) == 0
    assert "val balanced accuracy" in capsys.readouterr().out
    page = (tmp_path / "out" / "tuning.html").read_text(encoding="utf-8")
    assert "validation balanced accuracy of the best" in page
    assert "top-1" not in page


def test_what_beat_a_recipe_is_not_undone_by_it(
    bars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(RECIPES, "small", Recipe("small", {"schedule": "linear", "ema": 0.9}, ""))
    command = ["tune", "--data", str(bars), "--output", "out", "--trials", "1", "--epochs", "1", *FIXED]
    assert main([*command, "--recipe", "small", "--space", "schedule=cosine", "-q"]) == 0
    capsys.readouterr()
    assert main(["train", "--config", "out/best.yaml", "--print-config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["schedule"], shown["ema"]) == ("cosine", 0.9)


def test_F5_killed_in_mid_search_and_continued_as_if_it_had_not_been(whole: Path, bars: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "msresnet", *words(bars, out, trials=14)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: (out / "trials.csv").is_file() and len(rows(out)) >= 4)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert len(rows(out)) < 14
    assert main([*words(bars, out, trials=14), "-q"]) == 0
    assert rows(out) == rows(whole)
    assert best(out) == best(whole)


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_what_is_cut_short_does_not_depend_on_kills(
    pruner: Literal["median", "hyperband"], bars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    reports = [0]

    def pretended(config: TrainConfig, splits: Any, observer: Any, **_: Any) -> Any:
        for epoch in range(1, 10):
            reports[0] += 1
            if reports[0] in killed:
                raise Killed
            score = (1 - abs(float(config.lr or 0) - 0.3)) * (1 - 0.5**epoch) * config.ema
            observer.epoch({"epoch": epoch, "seconds": 1.0, "val_top1": score, "val_loss": 1 - score})
        return SimpleNamespace(notes=[], late=[])

    monkeypatch.setattr("msresnet.tune.study.fit", pretended)
    config = TuneConfig(data=str(bars), space=("lr=0.1:1", "ema=0.5:0.9"), trials=25, epochs=9, pruner=pruner)
    found = {}
    for name, killed in (("whole", ()), ("killed", (3, 20, 21, 50, 70))):
        reports[0] = 0
        (tmp_path / name).mkdir()
        for _ in killed:
            with pytest.raises(Killed):
                tune(config, folder=tmp_path / name)
        found[name] = [trial.to_dict() for trial in tune(config, folder=tmp_path / name).trials]
    assert found["killed"] == found["whole"]
    assert {trial["state"] for trial in found["whole"]} == {"finished", "cut short"}


def test_F1_half_a_line_and_a_lock_left_behind(copy: Path, bars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = rows(copy)
    with (copy / JOURNAL).open("ab") as file:
        file.write(b'{"op_code": 4, "worker')
    (copy / f"{JOURNAL}.lock").symlink_to(copy / JOURNAL)
    assert main(words(bars, copy, trials=15)) == 0
    assert "finished already: 14 of 15" in capsys.readouterr().err
    assert rows(copy)[:14] == before


def test_a_damaged_journal_is_named(copy: Path, bars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (copy / JOURNAL).read_bytes().splitlines(keepends=True)
    (copy / JOURNAL).write_bytes(b"".join([*lines[:5], b"no json\n", *lines[5:]]))
    assert main(words(bars, copy)) == 2
    assert JOURNAL in capsys.readouterr().err


def test_F6_stopped_by_sigterm(bars: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(words(bars, out, trials=5000), tmp_path / "err")
    wait_for(lambda: (out / "trials.csv").is_file() and len(rows(out)) >= 2)
    assert kill(process, signal.SIGTERM) == 128 + signal.SIGTERM
    message = (tmp_path / "err").read_text(encoding="utf-8")
    assert "finished trials are kept" in message
    assert "Traceback" not in message
    kept = rows(out)
    assert main([*words(bars, out, trials=len(kept) + 1), "-q"]) == 0
    assert rows(out)[:-1] == kept


def test_F6_a_signal_in_python_is_an_interruption(bars: Path) -> None:
    class Presses:
        def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            signal.raise_signal(signal.SIGINT)

        def epoch(self, row: dict[str, Any]) -> None:
            raise AssertionError("an epoch after the signal")

    config = TuneConfig(data=str(bars), space=("lr=1e-3:1e-2",), epochs=1, batch_size=8, device="cpu", workers=0)
    with pytest.raises(Interrupted) as caught:
        tune(config, observer=Presses())
    assert caught.value.exit_code == 130


def test_K09_other_settings_are_refused_with_the_difference(
    copy: Path, bars: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(copy)
    for more, message in [
        (["--ema", "0"], "ema: 0.998 before, 0.0 now"),
        (["mixup=0:1"], "space:"),
        (["--seed", "1"], "seed: 0 before, 1 now"),
    ]:
        assert main([*words(bars, copy), *more]) == 2
        assert message in capsys.readouterr().err
        assert contents(copy) == before


def test_other_training_images_are_refused(bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        shutil.copytree(bars, tmp_path / "data" / split)
    assert main([*words(tmp_path / "data", tmp_path / "out", trials=1), "-q"]) == 0
    before = contents(tmp_path / "out")
    shutil.copy(tmp_path / "data/train/lying/00.png", tmp_path / "data/train/lying/01.png")
    assert main([*words(tmp_path / "data", tmp_path / "out", trials=2), "-q"]) == 3
    assert "the training data is not what the search began with" in capsys.readouterr().err
    assert contents(tmp_path / "out") == before


def test_weights_and_teachers_that_may_be_chosen_belong_to_a_search(bars: Path, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    one, two, three = (str(tmp_path / f"{name}.safetensors") for name in ("one", "two", "three"))
    config, space = TuneConfig(weights=one), (Choice("teacher", (None, two, three)),)
    train = open_data(str(bars), config).train
    found = began_with(config, space, train)
    assert found.keys() == {DATA, one, two, three}
    Path(three).write_bytes(b"four")
    assert {name for name, digest in began_with(config, space, train).items() if digest != found[name]} == {three}


def test_what_a_trial_says_is_told_once_and_kept(
    bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bars, tmp_path / "data" / "train")
    pictures(tmp_path / "data" / "val", per_class=3)  # the first of them are those of the training set
    leak = "of the 6 val images are also in the training set"
    for trials in (2, 2):  # finished trials say it as well
        assert main(words(tmp_path / "data", tmp_path / "out", trials=trials)) == 0
        assert capsys.readouterr().err.count(leak) == 1
        assert leak in (tmp_path / "out" / "tuning.html").read_text(encoding="utf-8")


def test_the_test_set_is_not_touched(bars: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        shutil.copytree(bars, tmp_path / "data" / split)
    for name in ("lying", "standing"):
        (tmp_path / "data" / "test" / name).mkdir(parents=True)
        (tmp_path / "data" / "test" / name / "a.png").write_bytes(b"no picture")
    assert main([*words(tmp_path / "data", tmp_path / "out", trials=1), "-q"]) == 0
    assert main(["train", "--config", str(tmp_path / "out" / "best.yaml"), "--output", "run", "-q"]) == 3


@pytest.mark.parametrize("limit", ["epochs", "operations"])
def test_a_hopeless_trial_is_cut_short(limit: str, bars: Path, tmp_path: Path) -> None:
    import optuna

    tmp_path.joinpath("out").mkdir()
    config = TuneConfig(
        data=str(bars), space=("lr=1e-9:2e-9",), trials=7, epochs=6, batch_size=8, device="cpu", workers=0,
        model="msresnet_micro", precision="fp32",
    )  # fmt: skip
    if limit == "operations":
        spent = trainer(plan_for(bars, epochs=6))
        spent.run()
        config = replace(config, epochs=None, operations=3.0 * count_macs(spent.network) * spent.state.seen)
    study = open_study(tmp_path / "out")
    attributes = {"state": "finished", "why": "", "epochs": 6, "seconds": 1.0, "score": 1.0, "loss": 0.0}
    for _ in range(6):  # better than any can be
        trial = optuna.create_trial(
            value=1.0,
            params={"lr": 1.5e-9},
            distributions={"lr": optuna.distributions.FloatDistribution(1e-9, 2e-9)},
            intermediate_values=dict.fromkeys(range(1, 21), 1.0),
            user_attrs=attributes,
        )
        study.add_trial(trial)
    last = tune(config, folder=tmp_path / "out").trials[-1]
    assert (last.number, last.state) == (7, "cut short")
    assert 2 <= last.epochs < 6  # after 30 % of the training


def test_F7_a_diverged_trial_is_told_to_the_sampler(bars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["tune", "--data", str(bars), "--epochs", "1", *FIXED, "--batch-size", "2"]
    assert main([*command, "--output", "out", "--trials", "8", "lr=0.004,1e30", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    states = {trial["state"] for trial in found["trials"]}
    assert states == {"finished", "diverged"}
    assert found["best"]["settings"] == {"lr": 0.004}
    assert main([*command, "--output", "all", "--trials", "2", "lr=1e30,1e31"]) == 2
    assert "no trial ended with a model" in capsys.readouterr().err


def test_a_choice_that_cannot_be_built_is_one_failed_trial(bars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["tune", "--data", str(bars), "--output", "out", "--trials", "6", "--epochs", "1", *FIXED]
    assert main([*command, "model_args.operator=plain,absent", "--format", "csv"]) == 0
    states = [
        (row["model_args.operator"], row["state"]) for row in csv.DictReader(capsys.readouterr().out.splitlines())
    ]
    assert set(states) == {("plain", "finished"), ("absent", "failed")}


def test_choices_that_contradict_each_other_are_one_failed_trial(bars: Path) -> None:
    command = ["tune", "--data", str(bars), "--output", "out", "--trials", "5", "--epochs", "1", *FIXED]
    assert main([*command, "augment=auto,none", "flip=none,0.5", "-q"]) == 0
    found = {(row["augment"], row["flip"], row["state"]) for row in rows(Path("out"))}
    assert ("none", "0.5", "failed") in found
    assert "finished" in {state for *_, state in found}


def test_a_missing_extra_is_one_pip_line(bars: Path) -> None:
    command = words(bars, Path("out"))
    code = (
        "import sys; sys.modules['optuna'] = None\nfrom msresnet.cli.main import main\n"
        + f"sys.exit(main({command!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert 'pip install "msresnet[tune]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_the_validation_set_alone_chooses(bars: Path) -> None:
    config = TuneConfig(
        data=str(bars), space=("lr=1e-3,1e-2",), epochs=1, batch_size=8, device="cpu", workers=0, trials=1
    )
    splits = open_data(config.data, config)
    assert splits.test is not None
    found = tune(config, splits)
    assert found.best.score in {n / len(splits.val or ()) for n in range(len(splits.val or ()) + 1)}
    assert found.scales == {"lr": "list"}


def studied(finished: int, values: Sequence[float] = (0.1, 0.01, 0.001)) -> dict[str, float]:
    """The importance after trials of which those that diverged do worst where `lr` is large."""
    import optuna

    study = optuna.create_study(direction="maximize")
    space: dict[str, Dimension] = {
        "lr": Range("lr", 1e-4, 1.0, log=True),
        "epochs": Range("epochs", 1, 9),
        "model": Choice("model", ("a", "b")),
    }
    spaces = {name: _distribution(dimension) for name, dimension in space.items()}
    ended = [("finished", values[n % len(values)], 1 + n % 9, (1 + n % 9) / 10) for n in range(finished)]
    ended += [("diverged", 1.0, epochs, 0.0) for epochs in range(1, 10)]
    for state, lr, epochs, score in ended:
        params = {"lr": lr, "epochs": epochs, "model": "a"}
        attributes = {"state": state}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=spaces, value=score, user_attrs=attributes)
        )
    return _importance(study)


def test_what_matters_is_said_after_enough_trials() -> None:
    assert studied(9) == {}
    found = studied(12)
    assert found.keys() == {"lr", "epochs"}
    assert found["epochs"] > 0.8


def test_what_had_one_value_matters_not() -> None:
    assert studied(12, values=(0.1,)).keys() == {"epochs"}

"""Comparisons through the real command, on tiny pictures: grammar, budgets, resumption, failures, what is written."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msresnet.cli.main import main
from msresnet.compare import speed
from msresnet.compare.config import CompareConfig
from msresnet.compare.contestants import contestants
from msresnet.compare.run import compare
from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import Image, Source
from msresnet.errors import Interrupted, UsageError
from msresnet.train.recipes import RECIPES
from msresnet.train.settings import DATA
from tiny import contents, kill, pictures, same, start, wait_for, weights

FAST = ("--epochs", "1", "--batch-size", "8", "--precision", "fp32", "--device", "cpu", "--workers", "0")
MICRO = "msresnet_micro"


@pytest.fixture(scope="module", autouse=True)
def _hasty() -> Iterator[None]:
    """Speed is measured once, and for no time: no test looks at how fast anything is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "ROUNDS", 1)
        patch.setattr(speed, "LEAST_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def finished(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two contestants that are the same, one that is not, over two seeds."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(words(bars, folder / "out", MICRO, f"twin: {MICRO}", f"<b>slow: {MICRO} lr=1e-9")) == 0
    return folder / "out"


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The same comparison, to go on with or to damage."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def words(data: Path, output: Path, *people: str, seeds: int = 2) -> list[str]:
    """The command line of a comparison of seconds."""
    return ["compare", *people, "--data", str(data), "--output", str(output), "--seeds", str(seeds), *FAST]


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


GRAMMAR = [
    ("resnet18", "resnet18", {"model": "resnet18"}),
    ("resnet18 lr=0.01", "resnet18 lr=0.01", {"model": "resnet18", "lr": 0.01}),
    ("wide: model=resnet18 lr=0.01", "wide", {"model": "resnet18", "lr": 0.01}),
    ("a b:resnet18", "a b", {"model": "resnet18"}),
    ("slow: lr=1e-3 batch_size=32", "slow", {"lr": 1e-3, "batch_size": 32}),
    ("x: model_args=operator=res2net,stem=deep", "x", {"model_args": ("operator=res2net", "stem=deep")}),
    ("resnet18 weights=hf:a/b", "resnet18 weights=hf:a/b", {"model": "resnet18", "weights": "hf:a/b"}),
    ("p: image_size=32,48 binary=true clip_grad=none", "p", {"image_size": (32, 48), "binary": True}),
    ("q: augment=none", "q", {"augment": "none"}),
    ("base:", "base", {"model": "auto", "threshold": "otsu"}),
]


@pytest.mark.parametrize(("text", "name", "settings"), GRAMMAR)
def test_a_contestant_is_what_it_says(text: str, name: str, settings: dict[str, Any]) -> None:
    found = contestants(CompareConfig(contestants=(text,), threshold="otsu"))[0]
    assert found.name == name
    assert {key: getattr(found.config, key) for key in settings} == settings


REFUSED = [
    ("resnet19", "resnet18"),
    ("x: model=resnet19", "resnet18"),
    ("resnet18 lrr=0.1", "try: lr"),
    ("resnet18 lr=fast", "it takes auto or a number"),
    ("resnet18 lr=-1", "positive"),
    ("resnet18 workers=few", "it takes a whole number"),
    ("resnet18 schedule=cosin", "cosine or one-cycle"),
    ("resnet18 epochs=3", "the same for all"),
    ("resnet18 seed=3", "the same for all"),
    ("resnet18 data=mnist", "the same for all"),
    ("resnet18 resnet34", "not a setting"),
    ("resnet18 schedule=one-cycle warmup=0.2", "one-cycle"),
    ("lr=0.1", "has no name"),
    ("x: 'open", "cannot be read"),
    (" ", "says nothing"),
    ("a\x07: resnet18", "cannot be printed"),
    ("absent.yaml", "cannot read"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_K01_K02_K03_K07_a_wrong_contestant_is_refused_before_anything_trains(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        contestants(CompareConfig(contestants=("resnet18", text)))
    assert message in str(caught.value)


def test_wrong_comparisons_are_refused(bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for people, extra, message in [
        ([], [], "nobody to compare"),
        ([MICRO, MICRO], [], "two contestants are called"),
        (["a b", "a-b"], [], "not a model"),
        ([f"a b: {MICRO}", f"a-b: {MICRO}"], [], "two contestants are called"),
        ([MICRO], ["--baseline", "micro"], f"try: {MICRO}"),
        ([MICRO], ["--seconds", "5"], "one budget"),
        ([MICRO], ["--operations", "1e12"], "one budget"),
        ([MICRO], ["--time-limit", "5s"], "--seconds says"),
        ([MICRO], ["--resume"], "goes on by itself"),
        ([MICRO], ["--seeds", "0"], "at least 1"),
        ([MICRO], ["--data", "absent"], "no data"),
    ]:
        assert main([*words(bars, tmp_path / "out", *people), *extra]) in (2, 3)
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_a_file_and_a_recipe_bring_their_settings_but_not_their_budget(bars: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.yaml").write_text(
        f"data: {bars}\nmodel: {MICRO}\nlr: 1e-3\nepochs: 90\noutput: x\nmodel_args: [stem=small]\nclip_grad: null\n",
        encoding="utf-8",
    )
    recipe = next(iter(RECIPES.values()))
    people = ("run/train.yaml", f"{recipe.name} batch_size=16")
    first, second = contestants(CompareConfig(contestants=people, data=str(bars), seconds=5, batch_size=64))
    assert (first.name, first.config.lr, first.config.model_args) == ("run", 1e-3, ("stem=small",))
    assert (first.config.epochs, first.config.time_limit, first.config.output) == (None, "5s", None)
    assert any("epochs" in note and "left" in note for note in first.notes)
    apart = {"epochs", "time_limit", "operations", "batch_size", *DATA}
    expected = {key: value for key, value in recipe.settings.items() if key not in apart}
    assert second.config.val_fraction is None  # what is held out is the comparison's
    assert any("val_fraction" in note and "left" in note for note in second.notes)
    assert {key: getattr(second.config, key) for key in expected} == expected
    assert (second.config.batch_size, second.config.time_limit) == (16, "5s")
    assert any("batch_size 16 in place of 64" in note for note in second.notes)
    with pytest.raises(UsageError, match="of another data"):
        contestants(CompareConfig(contestants=("run/train.yaml",), data="digits"))


def test_twins_do_not_differ_and_everything_is_counted(finished: Path, bars: Path) -> None:
    result = read(finished)
    people = {row["name"]: row for row in result["contestants"]}
    twins = [row for row in result["trainings"] if row["contestant"] in (MICRO, "twin")]
    assert people[MICRO]["test"] == people["twin"]["test"]
    assert [row["test_top1"] for row in twins[:2]] == [row["test_top1"] for row in twins[2:]]
    contest = next(row for row in result["contests"] if row["name"] in (MICRO, "twin"))
    if result["reference"] in (MICRO, "twin"):
        assert (contest["mean"], contest["p"], contest["verdict"]) == (0, 1, "no difference shown")
    assert result["comparisons_corrected_for"] == 3
    assert all(row["params"] == people[MICRO]["params"] > 0 for row in people.values())
    assert all(row["inference"]["1"] > 0 < row["inference"]["64"] for row in people.values())
    assert all(row["seconds"] > 0 and row["epochs"] == 1 for row in result["trainings"])


def test_the_kept_model_gives_the_recorded_answers(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = next(row for row in read(finished)["trainings"] if row["contestant"] == "twin" and row["seed"] == 0)
    for split in ("test", "val"):
        command = ["evaluate", "--model", str(finished / "models" / "twin"), "--split", split, "--format", "json", "-q"]
        assert main(command) == 0
        assert json.loads(capsys.readouterr().out)["top1"] == recorded[f"{split}_top1"]


def test_the_kept_settings_train_the_kept_model(finished: Path, tmp_path: Path) -> None:
    settings = finished / "models" / "twin" / "train.yaml"
    assert main(["train", "--config", str(settings), "--output", str(tmp_path / "again"), "-q"]) == 0
    assert same(weights(tmp_path / "again"), weights(finished / "models" / "twin"))


def test_seeds_take_turns(finished: Path) -> None:
    lines = [line for line in (finished / "log.txt").read_text(encoding="utf-8").splitlines() if ", seed" in line]
    assert [line.partition(": val")[0].split()[-1] for line in lines] == ["0", "0", "0", "1", "1", "1"]


def test_what_is_written_is_whole_and_offline(finished: Path) -> None:
    page = (finished / "comparison.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;slow" in page
    assert "<b>slow" not in page
    assert not re.search(r"(src|href|url)[=(](?!['\"]?(data:|#))", page)
    text = (finished / "comparison.md").read_text(encoding="utf-8")
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) == 2 * (2 + 3)
    assert "msresnet compare" in text
    assert (finished / "comparison.png").read_bytes().startswith(b"\x89PNG")
    with (finished / "results.csv").open(encoding="utf-8") as file:
        assert [(row["contestant"], row["seed"]) for row in csv.DictReader(file)][:3] == [
            (MICRO, "0"),
            (MICRO, "1"),
            ("twin", "0"),
        ]


def test_going_on_trains_only_what_is_missing(copy: Path, bars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(copy / "trainings")
    people = (MICRO, f"twin: {MICRO}", f"<b>slow: {MICRO} lr=1e-9")
    assert main([*words(bars, copy, *people), "--format", "csv"]) == 0
    found = capsys.readouterr()
    assert "finished already: 6 of 6" in found.err
    assert contents(copy / "trainings") == before
    assert found.out == (copy / "results.csv").read_text(encoding="utf-8")
    assert len(list(csv.DictReader(io.StringIO(found.out)))) == 6

    assert main(words(bars, copy, people[0], people[1], seeds=3)) == 0
    after = contents(copy / "trainings")
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {f"{MICRO}-seed-2.json", "twin-seed-2.json"}


def test_K09_other_settings_are_refused_with_the_difference(
    copy: Path, bars: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(copy)
    for people, extra, message in [
        (f"twin: {MICRO} lr=0.5", [], "lr: None before, 0.5 now"),
        (f"twin: {MICRO}", ["--label-smoothing", "0.2"], "label_smoothing: None before, 0.2 now"),
        (f"twin: {MICRO}", ["--epochs", "2"], "epochs: 1 before, 2 now"),
    ]:
        assert main([*words(bars, copy, people), *extra]) == 2
        assert message in capsys.readouterr().err
        assert contents(copy) == before


def test_a_damaged_record_is_named(copy: Path, bars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "trainings" / "twin-seed-0.json").write_text('{"contestant": "twin"', encoding="utf-8")
    assert main(words(bars, copy, f"twin: {MICRO}")) == 2
    assert "twin-seed-0.json" in capsys.readouterr().err


def test_what_a_training_says_is_told_and_kept(bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        shutil.copytree(bars, tmp_path / "data" / split)
    pictures(tmp_path / "data" / "test", per_class=3)  # the first of them are those of the training set
    leak = "of the 6 test images are also in the training set"
    people = (f"found: {MICRO} lr=auto", f"given: {MICRO} lr=0.01")
    for _ in range(2):  # finished trainings say it as well
        assert main(words(tmp_path / "data", tmp_path / "out", *people, seeds=1)) == 0
        lines = capsys.readouterr().err.splitlines()
        assert sum(leak in line for line in lines) == 1
        assert any("found: lr " in line for line in lines)
        assert any("given: adamw, learning rate up to 0.01" in line for line in lines)
        for name in ("comparison.md", "comparison.html", "results.json"):
            assert leak in (tmp_path / "out" / name).read_text(encoding="utf-8")
        page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
        assert "neither training nor" not in page
        assert "are also in the training set: accuracies flatter" in page


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("val/lying/new.png", "the val set has changed between trainings"),
        ("train/lying/new.png", "the training data is not what the comparison began with"),
        ("train/lying/01.png", "the training data is not what the comparison began with"),
    ],
)
def test_changed_images_are_refused(
    place: str, message: str, bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for split in ("train", "val"):
        shutil.copytree(bars, data / split)
    assert main([*words(data, tmp_path / "out", MICRO, seeds=1), "-q"]) == 0
    before = contents(tmp_path / "out" / "trainings")
    shutil.copy(data / "train" / "lying" / "00.png", data / place)
    assert main([*words(data, tmp_path / "out", MICRO), "-q"]) == 3
    assert message in capsys.readouterr().err
    after = contents(tmp_path / "out" / "trainings")
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("setting", ["weights", "teacher"])
def test_changed_weights_and_teachers_are_refused(
    setting: str, finished: Path, bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = finished / "models" / "twin", finished / "models" / "b-slow"
    given = Path(shutil.copytree(first, tmp_path / "given"))
    person = f"from: {MICRO} {setting}={given}"
    assert main([*words(bars, tmp_path / "out", person, seeds=1), "-q"]) == 0
    shutil.copy(other / "model.safetensors", given)
    assert main([*words(bars, tmp_path / "out", person), "-q"]) == 4
    assert f"{given} is not what the comparison began with" in capsys.readouterr().err
    shutil.rmtree(given)  # what is finished needs it no more
    assert main([*words(bars, tmp_path / "out", person, seeds=1), "-q"]) == 0


def test_F7_a_contestant_that_fails_stops_no_other(
    bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = (f"explodes: {MICRO} lr=1e30 batch_size=2", f"broken: {MICRO} model_args=operator=absent", MICRO)
    assert main([*words(bars, tmp_path / "out", *people, seeds=1), "--format", "json"]) in (2, 6)
    found = capsys.readouterr()
    rows = {row["name"]: row for row in json.loads(found.out)["contestants"]}
    assert rows[MICRO]["seeds"] == 1
    assert "absent" in rows["broken"]["failures"]["0"]
    assert rows["explodes"]["failures"]["0"]
    lines = found.err.splitlines()
    refused = next(i for i, line in enumerate(lines) if "broken cannot take part" in line)
    assert refused < next(i for i, line in enumerate(lines) if ", seed 0: val" in line)
    assert "Traceback" not in found.err
    assert main(words(bars, tmp_path / "out", *people, seeds=1)) in (2, 6)  # what failed is tried again
    assert "failed: unknown operator" in capsys.readouterr().out


def test_nothing_to_compare_when_all_fail(bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(bars, tmp_path / "out", f"broken: {MICRO} model_args=operator=absent")) == 2
    assert "no training ended" in capsys.readouterr().err


def test_one_seed_never_speaks_of_seeds(copy: Path, bars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people = (MICRO, f"<b>slow: {MICRO} lr=1e-9")
    assert main([*words(bars, copy, *people, seeds=1), "--baseline", MICRO]) == 0
    found = capsys.readouterr()
    assert "one seed alone" in found.out
    assert "baseline" in found.out
    assert "another seed may turn it round" in found.err
    assert "significant" not in found.out + found.err


def test_the_test_set_is_not_touched_while_choosing(
    bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        shutil.copytree(bars, tmp_path / "data" / split)
    for name in ("lying", "standing"):
        (tmp_path / "data" / "test" / name).mkdir(parents=True)
        (tmp_path / "data" / "test" / name / "a.png").write_bytes(b"no picture")
    assert main([*words(tmp_path / "data", tmp_path / "val", MICRO, seeds=1), "--split", "val"]) == 0
    assert "flattered" in capsys.readouterr().err
    assert read(tmp_path / "val")["trainings"][0]["test_top1"] is None
    assert main(words(tmp_path / "data", tmp_path / "test", MICRO, seeds=1)) == 3

    shutil.rmtree(tmp_path / "data" / "test")
    shutil.copytree(bars, tmp_path / "data" / "test")
    assert main([*words(tmp_path / "data", tmp_path / "val", MICRO, seeds=1), "--split", "test"]) == 0
    assert read(tmp_path / "val")["trainings"][0]["test_top1"] is not None


def test_without_a_test_set_the_verdict_says_val(
    bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        shutil.copytree(bars, tmp_path / "data" / split)
    config = CompareConfig(
        contestants=(MICRO,), data=str(tmp_path / "data"), epochs=1, seeds=1, batch_size=8, device="cpu", workers=0
    )
    found = compare(config).outcome
    assert (found.split, found.standings[0].test) == ("val", None)
    with pytest.raises(UsageError, match="no test set"):
        compare(CompareConfig(contestants=(MICRO,), data=str(tmp_path / "data"), split="test"))


def test_F6_stopped_by_sigterm_and_continued(bars: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = words(bars, out, MICRO, f"twin: {MICRO}", seeds=200)
    process = start(command, tmp_path / "err")
    wait_for(lambda: len(list((out / "trainings").glob("*.json"))) >= 3)
    assert kill(process, signal.SIGTERM) == 128 + signal.SIGTERM
    message = (tmp_path / "err").read_text(encoding="utf-8")
    assert "finished trainings are kept" in message
    assert "Traceback" not in message
    kept = contents(out / "trainings")
    assert main([*words(bars, out, MICRO, f"twin: {MICRO}", seeds=3), "-q"]) == 0
    after = contents(out / "trainings")
    assert {name: after[name] for name in kept} == kept


def test_images_are_decoded_once_for_all_that_see_them_alike(bars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    read_image = Preprocess.read

    def counted(self: Preprocess, source: Source, index: int) -> Image:
        decoded.append(index)
        return read_image(self, source, index)

    monkeypatch.setattr(Preprocess, "read", counted)
    compare(CompareConfig(contestants=(MICRO,), data=str(bars), epochs=1, seeds=1, device="cpu", workers=0))
    once = len(decoded)
    people = (MICRO, f"twin: {MICRO} lr=0.1")
    compare(CompareConfig(contestants=people, data=str(bars), epochs=1, seeds=2, device="cpu", workers=0))
    assert len(decoded) == 2 * once
    people = (MICRO, f"small: {MICRO} image_size=16")
    compare(CompareConfig(contestants=people, data=str(bars), epochs=1, seeds=1, device="cpu", workers=0))
    assert len(decoded) > 3 * once


def test_a_signal_in_python_is_an_interruption(bars: Path) -> None:
    class Presses:
        def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            signal.raise_signal(signal.SIGINT)

        def epoch(self, row: dict[str, Any]) -> None:
            raise AssertionError("a step after the signal")

    config = CompareConfig(contestants=(MICRO,), data=str(bars), epochs=1, batch_size=8, device="cpu", workers=0)
    with pytest.raises(Interrupted) as caught:
        compare(config, observer=Presses())
    assert caught.value.exit_code == 130


def test_settings_come_from_a_file(bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("all.yaml").write_text(f"contestants: [{MICRO}, 'twin: {MICRO} lr=0.1']\nseeds: 4\n", encoding="utf-8")
    assert main(["compare", "--config", "all.yaml", "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert "seeds: 4  # all.yaml" in printed
    assert "twin" in printed
    assert next(line for line in printed.splitlines() if line.startswith("contestants")).endswith("# all.yaml")


def test_equal_seconds_are_a_time_limit_for_each() -> None:
    found = contestants(CompareConfig(contestants=("resnet18", "slow: lr=0.1"), seconds=7.5))
    assert {person.config.time_limit for person in found} == {"7.5s"}
    assert contestants(CompareConfig(contestants=("resnet18",)))[0].config.time_limit == "60s"


def test_equal_operations_are_a_limit_for_each() -> None:
    config = CompareConfig(contestants=("resnet18", "slow: lr=0.1"), operations=5e13)
    for person in contestants(config):
        assert (person.config.operations, person.config.time_limit, person.config.epochs) == (5e13, None, None)
    assert config.budget_words() == "50 trillion multiply-adds of the network as used each"


@pytest.mark.parametrize("verb", ["compare", "tune"])
def test_help_does_not_wait_for_torch(verb: str) -> None:
    code = (
        f"import sys; from msresnet.cli.main import main\nassert main([{verb!r}, '--help']) == 0\n"
        "heavy = {'torch', 'numpy', 'scipy', 'sklearn', 'matplotlib', 'optuna', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_long_name_has_a_file_of_its_own(bars: Path) -> None:
    long = "n" * 150
    found = contestants(CompareConfig(contestants=(f"{long}a: {MICRO}", f"{long}b: {MICRO}"), data=str(bars), epochs=1))
    slugs = {contestant.slug for contestant in found}
    assert len(slugs) == 2
    assert all(slug.startswith("n" * 100) and len(slug) < 120 for slug in slugs)


def test_images_that_cannot_be_read_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pictures(tmp_path / "data")
    (data / "lying" / "bad.png").write_bytes(b"no picture")
    assert main([*words(data, tmp_path / "out", MICRO, seeds=1), "--on-bad", "skip"]) == 0
    assert capsys.readouterr().err.count("1 unreadable images of the") == 1
    assert "1 unreadable images of the" in (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")

"""Stopping and going on: by kill -9, by signals, with other settings, with other data, in a folder that is taken."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hostile
from msresnet.bundle import Bundle
from msresnet.cli import pipeline
from msresnet.cli.main import main
from msresnet.errors import Interrupted, ResourceError
from msresnet.files import lock
from msresnet.runtime import stop_on_signals
from msresnet.train import fit as fit_module
from msresnet.train.checkpoint import checkpoints
from msresnet.train.observer import Silent
from tiny import CONTEXT, PATIENCE, config, contents, kill, lines, losses, same, start, train_words, wait_for, weights


@pytest.fixture(scope="module")
def whole(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        assert main(train_words(bars, folder, "-q")) == 0
    return folder


@pytest.fixture
def copy(whole: Path, here: Path) -> Path:
    """The same run, to be damaged."""
    return Path(shutil.copytree(whole, here / "run"))


def assert_equal_runs(left: Path, right: Path) -> None:
    assert same(weights(left), weights(right))
    assert losses(left) == losses(right)


def test_F5_killed_in_mid_epoch_through_the_real_command(
    bars: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, whole = here / "run", here / "whole"
    assert main(train_words(bars, whole, "-q", epochs=30)) == 0
    command = [sys.executable, "-m", "msresnet", *train_words(bars, run, "-q", epochs=30)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: len(checkpoints(run / "checkpoint")) >= 2)
        time.sleep(0.02)  # for some steps after it
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (run / "model.safetensors").exists()

    assert main(["train", "--resume", "--output", str(run)]) == 0
    assert "continuing after epoch" in capsys.readouterr().err
    assert_equal_runs(run, whole)


def test_F6_a_signal_after_the_last_step_is_not_swallowed(
    bars: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def late(*arguments: Any) -> Bundle:
        os.kill(os.getpid(), signal.SIGTERM)
        return bundle(*arguments)

    bundle = fit_module._bundle
    monkeypatch.setattr(fit_module, "_bundle", late)
    assert main(train_words(bars, here / "run", epochs=1)) == 128 + signal.SIGTERM
    assert "the model is saved" in capsys.readouterr().err
    assert (here / "run" / "model.safetensors").exists()
    assert not (here / "run" / "metrics.json").exists()


def test_without_a_folder_signals_stay_as_they_are(bars: Path) -> None:
    class Presses(Silent):
        def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit_module.fit(config(bars), observer=Presses())


def test_K12_the_folder_is_held_until_all_is_measured(bars: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(*arguments: Any) -> Any:
        with pytest.raises(ResourceError, match="another run"), lock(here / "run"):
            pass
        return measure(*arguments)

    measure = pipeline.measure
    monkeypatch.setattr(pipeline, "measure", held)
    assert main(train_words(bars, here / "run", "-q", epochs=1)) == 0


def test_a_new_run_in_an_old_folder_begins_without_its_products(copy: Path, bars: Path) -> None:
    assert main(train_words(bars, copy, "--exist-ok", "-q", "--lr", "1e30")) == 6
    assert not {"model.safetensors", "config.json", "README.md", "metrics.json", "report.html"} & set(contents(copy))


def test_F5_F6_stopped_by_sigterm_and_continued_from_latest(
    bars: Path, whole: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = start(train_words(bars, None, "-q"), here / "err")
    run = here / "runs" / "bars-msresnet_micro"
    wait_for(lambda: lines(run / "history.csv") >= 2)
    before = time.monotonic()

    assert kill(process, signal.SIGTERM) == 128 + signal.SIGTERM
    assert time.monotonic() - before < 10
    assert "everything is saved" in (here / "err").read_text(encoding="utf-8")
    assert (here / "runs" / "latest").resolve() == run.resolve()
    assert main(["train", "--resume"]) == 0
    assert "continuing after epoch" in capsys.readouterr().err
    assert_equal_runs(run, whole)


def test_F6_sigint_saves_and_leaves_with_130(bars: Path, here: Path) -> None:
    run = here / "run"
    process = start(train_words(bars, run, epochs=10_000), here / "err")
    wait_for(lambda: lines(run / "history.csv") >= 2)
    before = time.monotonic()

    assert kill(process, signal.SIGINT) == 128 + signal.SIGINT
    assert time.monotonic() - before < 10
    assert checkpoints(run / "checkpoint")
    assert "Traceback" not in (here / "err").read_text(encoding="utf-8")


def test_F6_the_second_sigint_leaves_at_once() -> None:
    ready, child = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_deaf, args=(child,))
    process.start()
    assert ready.poll(PATIENCE)
    ready.recv()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    assert ready.poll(PATIENCE)
    assert ready.recv() == "asked"
    assert process.is_alive()

    assert kill(process, signal.SIGINT) == 128 + signal.SIGINT


def _deaf(parent: Connection) -> None:
    """A training that never looks whether it should stop."""
    with stop_on_signals() as request:
        parent.send("ready")
        wait_for(lambda: request.code != 0)
        parent.send("asked")
        time.sleep(PATIENCE)


def test_K12_two_runs_in_one_folder(bars: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = here / "run"
    process = start(train_words(bars, run, epochs=10_000), here / "err")
    wait_for(lambda: lines(run / "history.csv") >= 2)
    log, latest = (run / "log.txt").read_bytes(), (here / "runs" / "latest").resolve()

    assert main(train_words(bars, run, "--exist-ok")) == 5
    assert str(run) in capsys.readouterr().err
    assert (run / "log.txt").read_bytes().startswith(log)
    assert (here / "runs" / "latest").resolve() == latest
    assert kill(process, signal.SIGKILL) == -signal.SIGKILL


def test_the_second_of_two_started_at_once_takes_the_next_number(bars: Path, here: Path) -> None:
    first = here / "runs" / "bars-msresnet_micro"
    with lock(first):  # all that a run does until its data are read
        assert main(train_words(bars, None, "-q", epochs=1)) == 0
    assert not first.exists()
    assert (here / "runs" / "bars-msresnet_micro-2" / "metrics.json").is_file()


def test_a_history_has_as_many_fields_in_each_line_wherever_it_was_stopped(bars: Path, here: Path) -> None:
    class Leaves(Silent):
        def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    run = here / "run"
    settings = config(bars, epochs=5, validate_every=2)
    run.mkdir()
    with pytest.raises(Interrupted):
        fit_module.fit(settings, folder=run, observer=Leaves())
    fit_module.fit(replace(settings, resume=True), folder=run)
    with (run / "history.csv").open(encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert {len(row) for row in rows} == {len(head)}
    scored = [(row[head.index("epoch")], row[head.index("val_top1")] != "") for row in rows]
    assert scored == [("1", False), ("2", True), ("3", False), ("4", True), ("5", True)]


def test_K09_other_settings_on_resume(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(copy)
    assert main(["train", "--resume", "--output", str(copy), "--lr", "0.1", "--epochs", "9"]) == 2
    message = capsys.readouterr().err
    assert "lr: None before, 0.1 now" in message
    assert "epochs: 4 before, 9 now" in message
    assert contents(copy) == before


def test_resuming_a_finished_run_measures_again(copy: Path, whole: Path) -> None:
    for name in ("metrics.json", "model.safetensors", "report.html", "history.csv"):
        (copy / name).unlink()
    assert main(["train", "--resume", "--output", str(copy), "-q"]) == 0
    assert_equal_runs(copy, whole)
    old, new = (json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in (whole, copy))
    assert (old["top1"], old["loss"]) == (new["top1"], new["loss"])
    assert (copy / "train.yaml").read_bytes() == (whole / "train.yaml").read_bytes()


def test_changed_data_is_refused(copy: Path, bars: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Path(shutil.copytree(bars, here / "other"))
    for path in (data / "lying").iterdir():
        Image.fromarray(np.full((12, 12), 7, dtype=np.uint8)).save(path)
    settings = (copy / "train.yaml").read_text(encoding="utf-8").replace(str(bars), str(data))
    (copy / "train.yaml").write_text(settings, encoding="utf-8")
    before = contents(copy)

    assert main(["train", "--resume", "--output", str(copy)]) == 4
    assert "not what the run began with" in capsys.readouterr().err
    assert contents(copy) == before


@pytest.mark.parametrize(("before", "now"), [("ram", "none"), ("none", "ram")])
def test_an_unreadable_image_and_another_cache_are_no_other_data(
    before: str, now: str, bars: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(bars, here / "other"))
    hostile.spoil(data, ["lying/03.png"])
    words = ["--val-fraction", "0", "--test-fraction", "0", "--on-bad", "skip"]
    assert main(train_words(data, here / "run", *words, "--cache", before, "-q", epochs=1)) == 0
    again = ["train", "--resume", "--output", str(here / "run"), "-q", "--cache"]
    capsys.readouterr()
    assert main([*again, now]) == 4
    assert f"--cache {before} as before" in capsys.readouterr().err
    assert main([*again, before]) == 0


def test_a_run_without_a_checkpoint_begins_again(copy: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copy / "checkpoint")
    assert main(["train", "--resume", "--output", str(copy)]) == 0
    assert "from the beginning" in capsys.readouterr().err
    assert_equal_runs(copy, whole)


def test_F1_what_a_killed_writer_left_is_removed(copy: Path) -> None:
    left = copy / "checkpoint" / ".epoch-00003-step-0000000.safetensors.abc.msresnet-part"
    left.write_bytes(b"half")
    assert main(["train", "--resume", "--output", str(copy), "-q"]) == 0
    assert not list(copy.rglob("*.msresnet-part"))


@pytest.mark.parametrize("words", [["--resume"], ["--resume", "--output", "nothing"]])
def test_nothing_to_resume(here: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words]) == 2
    assert "there is no run to continue" in capsys.readouterr().err


def test_settings_that_were_edited_to_nonsense(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "train.yaml").write_text("epochs: many\n", encoding="utf-8")
    assert main(["train", "--resume", "--output", str(copy)]) == 2
    assert "train.yaml" in capsys.readouterr().err


def test_a_refused_run_leaves_the_earlier_one_untouched(copy: Path, here: Path, bars: Path) -> None:
    before, latest = contents(copy), list((here / "runs").glob("*")) if (here / "runs").exists() else []
    assert main(train_words(bars / "absent", copy, "--exist-ok")) == 3
    assert main(train_words(bars, copy, "--exist-ok", "--time-limit", "soon")) == 2
    assert contents(copy) == before
    assert (list((here / "runs").glob("*")) if (here / "runs").exists() else []) == latest


def test_F10_a_tiny_shared_memory_is_enough(bars: Path, here: Path) -> None:
    words = train_words(bars, here / "run", "-q", epochs=1)
    small = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$0" -m msresnet "$@"'
    command = ["unshare", "--mount", "sh", "-c", small, sys.executable, *words, "--workers", "2"]
    if shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("a /dev/shm of its own needs root")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (here / "run" / "metrics.json").is_file()

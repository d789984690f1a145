"""Several processes, started as a launcher starts them: the same training, and what happens when one is lost."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from msresnet.cli.main import main
from msresnet.errors import UsageError
from msresnet.runtime import StopRequest
from msresnet.train.checkpoint import checkpoints, newest_checkpoint
from msresnet.train.launch import launch, read_devices
from msresnet.train.loop import Trainer
from msresnet.train.observer import Silent
from peers import codes, command, peers
from tiny import kill, lines, losses, plan_for, same, train_words, wait_for, weights


def gradients(bars: str, place: str, settings: dict[str, Any]) -> None:
    """Take one step and keep the gradients of this process, its indices, and the running statistics."""
    torch.set_default_dtype(torch.float64)  # so that no difference is that of an order of summation
    try:
        _gradients(bars, place, settings)
    finally:
        torch.set_default_dtype(torch.float32)


def _gradients(bars: str, place: str, settings: dict[str, Any]) -> None:
    plan = plan_for(Path(bars), **settings)
    training = Trainer(plan, None, Silent(), StopRequest())
    seen = []
    training.model.train()
    given = next(training.inputs.epoch(training.state))
    training.update(given)
    seen.append(given.batch.indices)
    found = {f"gradient/{n}": p.grad for n, p in training.network.named_parameters() if p.grad is not None}
    found |= {f"buffer/{n}": b.float() for n, b in training.network.named_buffers()}
    rank = os.environ.get("RANK", "alone")
    save_file({n: t.contiguous() for n, t in found.items()} | {"seen": torch.cat(seen)}, Path(place) / f"{rank}.st")
    training.processes.close()


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"batch_size": 16},
    "mixed": {"batch_size": 16, "mixup": 0.3, "cutmix": 1.0, "erase": 0.5, "policy": 0.5, "flip": 0.5},
    "uneven": {"batch_size": 14, "balance": "loss"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_X1_gradients_of_two_are_those_of_one(bars: Path, tmp_path: Path, name: str) -> None:
    settings = SETTINGS[name] | {"sync_bn": "on"}
    gradients(str(bars), str(tmp_path), settings)
    with peers(gradients, 2, str(bars), str(tmp_path), settings) as processes:
        assert codes(processes) == [0, 0]
    alone, first, second = (load_file(tmp_path / f"{n}.st") for n in ("alone", "0", "1"))
    assert torch.equal(torch.cat((first.pop("seen"), second.pop("seen"))), alone.pop("seen"))
    assert first.keys() == alone.keys() == second.keys()
    for key, expected in alone.items():
        assert torch.equal(first[key], second[key]), key
        assert (first[key] - expected).abs().max() <= 1e-6, key


def run(folder: Path, words: list[str], world: int) -> list[int | None]:
    """A training of several processes; the exit codes."""
    with peers(command, world, words, str(folder)) as processes:
        return codes(processes)


def test_X1_two_runs_of_two_are_identical_and_stopped_ones_continue(bars: Path, here: Path) -> None:
    words = {n: train_words(bars, here / n, "-q", epochs=12) for n in ("whole", "killed")}
    assert run(here, words["whole"], 2) == [0, 0]
    with peers(command, 2, words["killed"], str(here)) as processes:
        wait_for(lambda: len(checkpoints(here / "killed" / "checkpoint")) >= 2)
        for process in processes:
            process.kill()
        codes(processes)
    assert not (here / "killed" / "metrics.json").exists()
    assert run(here, ["train", "--resume", "--output", str(here / "killed"), "-q"], 2) == [0, 0]  # F5
    assert same(weights(here / "whole"), weights(here / "killed"))
    assert losses(here / "whole") == losses(here / "killed")


def test_X5_one_two_and_one_process_see_every_sample_once_an_epoch(bars: Path, here: Path) -> None:
    words = train_words(bars, here / "run", "-q", epochs=400)
    for world, resume in ((1, False), (2, True), (1, True)):
        given = ["train", "--resume", "--output", str(here / "run"), "-q"] if resume else words
        done = lines(here / "run" / "history.csv")
        with peers(command, world, given, str(here)) as processes:
            wait_for(lambda: lines(here / "run" / "history.csv") > done + 2)  # noqa: B023 - called at once
            for process in processes:
                os.kill(process.pid or 0, signal.SIGTERM)
            assert codes(processes) == [143] * world
    _, state, _ = newest_checkpoint(here / "run" / "checkpoint")
    images = plan_for(bars, batch_size=2).train
    assert state["position"] == state["images"] == 2 * state["step"]
    assert state["seen"] == state["epoch"] * (len(images) // 2 * 2) + state["position"]


@pytest.mark.parametrize("images", [5, 3])
def test_X6_fewer_samples_than_processes_and_uneven_parts(bars: Path, here: Path, images: int) -> None:
    small = here / "small"
    for name in ("lying", "standing"):
        (small / name).mkdir(parents=True)
        for number in range(images):
            shutil.copy(bars / name / f"{number:02d}.png", small / name)
    words = train_words(small, here / "three", "-q", "--val-fraction", "0.4", "--test-fraction", "0")
    assert run(here, words, 3) == [0, 0, 0]
    counted = [line.split(",")[4] for line in (here / "three" / "history.csv").read_text().splitlines()[1:]]
    whole = len(plan_for(small, val_fraction=0.4, test_fraction=0.0).sets["val"])
    assert all(abs(float(score) * whole - round(float(score) * whole)) < 1e-6 for score in counted)


def test_X3_a_killed_process_ends_the_others_with_7(bars: Path, here: Path) -> None:
    words = train_words(bars, here / "run", "-q", epochs=100_000)
    with peers(command, 2, words, str(here)) as processes:
        wait_for(lambda: len(checkpoints(here / "run" / "checkpoint")) >= 2)
        assert kill(processes[1], signal.SIGKILL) == -9
        assert codes(processes[:1], 30) == [7]
    message = (here / "process-0.txt").read_text()
    assert message.startswith("process 0: error: another process of this training is gone")
    assert "--resume" in message
    assert "Traceback" not in message
    assert newest_checkpoint(here / "run" / "checkpoint")[2] == []


def test_divided_weights_train_and_continue_as_whole_ones(bars: Path, here: Path) -> None:
    words = {n: train_words(bars, here / n, "-q", *more, epochs=6, batch=8) for n, more in DIVIDED.items()}
    assert run(here, words["divided"], 2) == [0, 0]
    assert run(here, words["whole"], 2) == [0, 0]
    left, right = weights(here / "divided"), weights(here / "whole")
    assert left.keys() == right.keys()
    assert all(torch.allclose(left[n], right[n], atol=1e-4) for n in left)  # the order of sums differs
    with peers(command, 2, words["stopped"], str(here)) as processes:
        wait_for(lambda: len(checkpoints(here / "stopped" / "checkpoint")) >= 1)
        for process in processes:
            process.kill()
        codes(processes)
    assert run(here, ["train", "--resume", "--output", str(here / "stopped"), "-q"], 2) == [0, 0]
    assert same(weights(here / "stopped"), left)


def ranks_weights(bars: str, place: str) -> None:
    """Train within a time limit, with all that depends on time, and keep this process's weights."""
    plan = plan_for(Path(bars), epochs=None, time_limit="3s", batch_size=8, train_sizes=(12, 24), finish=0.3)
    training = Trainer(plan, None, Silent(), StopRequest())
    training.run()
    kept = {n: t.contiguous() for n, t in training.network.state_dict().items() if "running" not in n}
    save_file(kept | {"seen": torch.tensor(training.state.seen)}, Path(place) / f"{os.environ['RANK']}.st")
    training.processes.close()


def test_processes_agree_on_a_time_limit(bars: Path, tmp_path: Path) -> None:
    with peers(ranks_weights, 2, str(bars), str(tmp_path)) as processes:
        assert codes(processes) == [0, 0]
    first, second = (load_file(tmp_path / f"{rank}.st") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


DIVIDED = {"divided": ["--shard"], "whole": [], "stopped": ["--shard"]}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(made, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_X7_a_full_disk_of_the_first_ends_all_with_5(bars: Path, here: Path, disk: Path) -> None:
    (disk / "ballast").write_bytes(bytes(19 << 20))
    assert run(here, train_words(bars, disk / "run", "-q"), 2) == [5, 5]
    assert all("disk is full" in (here / f"process-{rank}.txt").read_text() for rank in range(2))
    (disk / "ballast").unlink()
    assert run(here, ["train", "--resume", "--output", str(disk / "run"), "-q"], 2) == [0, 0]


def test_devices_starts_the_processes_itself(
    bars: Path, here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    words = [w for w in train_words(bars, here / "run") if w not in ("--device", "cpu", "--device=cpu")]
    assert main([*words, "--devices", "cpu:2"]) == 0
    shown = capfd.readouterr()
    assert "2 processes" in shown.err
    assert shown.out.count("test top-1") == 1
    assert main([*words, "--devices", "cpu:2"]) == 2  # taken: both processes say so, the code is theirs
    assert main([*words, "--devices", "nine"]) == 2
    assert "--devices 0,1" in capfd.readouterr().err


@pytest.mark.parametrize("text", ["", "cpu", "cpu:0", "cpu:-1", "cpu:x", "0,0", "3", "0,4", "gpu", "all:2", "1.5"])
def test_devices_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read_devices(text, 2)


def test_devices_are_read_as_written() -> None:
    assert read_devices("1,0", 2).gpus == (1, 0)
    assert read_devices("all", 2).gpus == (0, 1)
    assert read_devices("cpu:3", 0).count == 3
    with pytest.raises(UsageError, match="there is no GPU"):
        read_devices("all", 0)


@pytest.mark.parametrize("what", ["signal", "error"])
def test_nothing_is_left_of_a_start_that_was_disturbed(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original, started = subprocess.Popen, list[subprocess.Popen[bytes]]()

    def start(command: list[str], **settings: Any) -> subprocess.Popen[bytes]:
        if what == "error" and started:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        started.append(original(["sleep", "60"], **settings))
        if what == "signal":
            os.kill(os.getpid(), signal.SIGINT)
        return started[-1]

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(subprocess, "Popen", start)
    try:
        if what == "signal":
            assert launch(["train"], read_devices("cpu:2", 0)) == 130
        else:
            with pytest.raises(OSError, match="temporarily"):
                launch(["train"], read_devices("cpu:2", 0))
        assert [process.returncode for process in started] == [-signal.SIGKILL]
    finally:
        for process in started:
            process.kill()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers

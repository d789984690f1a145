"""Checkpoints: whole or refused, never lost to a kill, a full disk or a flipped bit."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from torch import Tensor

from msresnet.cli.main import main
from msresnet.errors import ModelError, ResourceError
from msresnet.train.checkpoint import checkpoints, newest_checkpoint, save_checkpoint
from msresnet.train.fit import fit
from msresnet.train.observer import Silent
from tiny import CONTEXT, PATIENCE, config, contents, kill, losses, same, train_words, weights

COUNT = 20_000


def tensors_of(epoch: int, count: int = COUNT) -> dict[str, Tensor]:
    """Tensors that tell which epoch they are of."""
    return {"model/a": torch.full((count,), float(epoch)), "model/b": torch.arange(6).reshape(2, 3) + epoch}


def save(folder: Path, epoch: int, step: int = 0, count: int = COUNT) -> Path:
    return save_checkpoint(folder, tensors_of(epoch, count), {"epoch": epoch, "step": step, "loss": 0.1 + 0.2})


def test_round_trip_is_exact(tmp_path: Path) -> None:
    save(tmp_path, 3, 17)
    tensors, state, problems = newest_checkpoint(tmp_path)
    assert same(tensors, tensors_of(3))
    assert state == {"epoch": 3, "step": 17, "loss": 0.1 + 0.2}
    assert problems == []


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    paths = [save(tmp_path, epoch) for epoch in range(5)]
    assert checkpoints(tmp_path) == [paths[4], paths[3]]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_newest_gives_way_to_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    newest.write_bytes(newest.read_bytes()[:-100])
    tensors, state, problems = newest_checkpoint(tmp_path)
    assert state["epoch"] == 1
    assert same(tensors, tensors_of(1))
    assert newest.name in problems[0]


def test_a_run_that_went_back_is_not_shadowed_by_what_it_went_back_from(tmp_path: Path) -> None:
    save(tmp_path, 1)
    damaged = save(tmp_path, 2)
    damaged.write_bytes(b"")
    again = save(tmp_path, 1, 5)
    assert checkpoints(tmp_path)[0] == again
    assert not damaged.exists()
    assert newest_checkpoint(tmp_path)[1]["step"] == 5


def test_C01_zero_bytes(tmp_path: Path) -> None:
    save(tmp_path, 1).write_bytes(b"")
    with pytest.raises(ModelError, match="empty") as caught:
        newest_checkpoint(tmp_path)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("percent", [10, 50, 99])
def test_C02_truncated(tmp_path: Path, percent: int) -> None:
    path = save(tmp_path, 1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * percent // 100])
    with pytest.raises(ModelError, match=path.name):
        newest_checkpoint(tmp_path)


def test_C03_one_flipped_bit(tmp_path: Path) -> None:
    path = save(tmp_path, 1, count=200)
    whole, rng = path.read_bytes(), random.Random(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    places = [rng.randrange(8 * header) for _ in range(150)] + [rng.randrange(8 * len(whole)) for _ in range(150)]
    refused = 0
    for place in places:
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            tensors, state, _ = newest_checkpoint(tmp_path)
        except ModelError:
            refused += 1
            continue
        # A flip in the header's padding changes nothing; whatever loads must be what was saved.
        assert same(tensors, tensors_of(1, 200))
        assert state["loss"] == 0.1 + 0.2
    assert refused > 0.9 * len(places)


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the folder holds none"):
        newest_checkpoint(tmp_path)


def _save_for_ever(folder: str, first: int, parent: Connection) -> None:
    for epoch in range(first, first + 1_000_000):
        save(Path(folder), epoch)
        parent.send(epoch)


def killed_at_random_moments(folder: Path, times: int) -> None:
    """Kill a process that saves, again and again; the newest checkpoint is never older than the last reported one."""
    rng, reported = random.Random(0), 0
    for _ in range(times):
        ours, theirs = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=_save_for_ever, args=(str(folder), reported + 1, theirs))
        process.start()
        theirs.close()
        assert ours.poll(PATIENCE)
        reported = ours.recv()
        time.sleep(rng.uniform(0, 0.03))
        assert kill(process, signal.SIGKILL) == -signal.SIGKILL
        try:
            while ours.poll():
                reported = ours.recv()
        except EOFError:  # all was read
            pass
        tensors, state, problems = newest_checkpoint(folder)
        assert state["epoch"] >= reported
        assert same(tensors, tensors_of(state["epoch"]))
        assert problems == []
        reported = state["epoch"]


def test_F1_killed_15_times(tmp_path: Path) -> None:
    killed_at_random_moments(tmp_path, 15)


@pytest.mark.slow
def test_F1_killed_200_times(tmp_path: Path) -> None:
    killed_at_random_moments(tmp_path, 200)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    yield from _disk(tmp_path, 4)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB."""
    yield from _disk(tmp_path, 24)


def _disk(tmp_path: Path, megabytes: int) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_F3_a_full_disk_names_both_numbers_and_keeps_the_old(small_disk: Path) -> None:
    quarter = (1 << 20) * 3 // 2 // 4  # numbers of 4 bytes: 1.5 MB a checkpoint, so that two fit and a third does not
    save(small_disk / "checkpoint", 1, count=quarter)
    save(small_disk / "checkpoint", 2, count=quarter)
    before = contents(small_disk)
    with pytest.raises(ResourceError, match="disk is full") as caught:
        save(small_disk / "checkpoint", 3, count=quarter)

    needed, free = (int(n.replace(",", "")) for n in re.findall(r"([\d,]{4,})", caught.value.why))
    assert needed > free > 0
    assert contents(small_disk) == before
    checkpoints(small_disk / "checkpoint")[1].unlink()
    save(small_disk / "checkpoint", 3, count=quarter)
    assert newest_checkpoint(small_disk / "checkpoint")[1]["epoch"] == 3


def test_F3_the_disk_fills_up_while_a_file_is_written(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(small_disk, 1)
    before = path.read_bytes()
    monkeypatch.setattr("msresnet.files.check_space", lambda folder, needed: None)  # as if another took the space since
    with pytest.raises(ResourceError, match="disk is full"):
        save(small_disk, 2, count=2_000_000)
    assert contents(small_disk) == {path.name: before}


def test_F3_through_the_command_line(
    disk: Path, bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, ballast = disk / "run", disk / "ballast"
    ballast.write_bytes(bytes(19 << 20))
    assert main(train_words(bars, run, "-q")) == 5
    message = capsys.readouterr().err
    assert re.search(r"[\d,]+ bytes are needed, [\d,]+ are free", message)
    assert "--resume" in message
    assert "Traceback" not in message
    assert not list(run.rglob("*.msresnet-part"))
    assert newest_checkpoint(run / "checkpoint")[2] == []

    ballast.unlink()
    assert main(["train", "--resume", "--output", str(run), "-q"]) == 0
    assert main(train_words(bars, tmp_path / "whole", "-q")) == 0
    assert same(weights(run), weights(tmp_path / "whole"))
    assert losses(run) == losses(tmp_path / "whole")


def test_K06_a_read_only_disk(disk: Path, bars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = disk / "run"
    assert main(train_words(bars, run, "-q")) == 0
    before = contents(run)
    _read_only(disk)
    assert main(["train", "--resume", "--output", str(run), "-q"]) == 2
    assert "Read-only" in capsys.readouterr().err
    assert contents(run) == before


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_F4_a_disk_that_fails_in_mid_run(
    tmp_path: Path, bars: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    class Breaks(Silent):
        def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            if (epoch, step) == (2, 1):
                monkeypatch.setattr("msresnet.files.os.fsync", fail)

    with pytest.raises(ResourceError, match=os.strerror(number)) as caught:
        fit(config(bars, epochs=4), folder=tmp_path / "run", observer=Breaks())
    assert caught.value.exit_code == 5
    assert newest_checkpoint(tmp_path / "run" / "checkpoint")[1]["epoch"] == 2
    assert not list(tmp_path.rglob("*.msresnet-part"))


def _read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

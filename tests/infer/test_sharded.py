"""Any number of processes over one folder of answers: whole or absent, the same bytes, whoever is killed."""

from __future__ import annotations

import contextlib
import fcntl
import io
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msresnet.bundle import load_bundle
from msresnet.cli.main import main
from msresnet.infer.config import PredictConfig
from msresnet.infer.sharded import Worker, beginning, work
from msresnet.infer.shards import TarShard, find_shards
from msresnet.runtime import StopRequest
from sharding import make_model, make_shards, packed, png, predict, rows, words
from tiny import contents, kill, start, wait_for


def killed_at_random(command: list[str], output: Path, alone: Path, rounds: int) -> int:
    """Start two processes and kill each at a random time in its work, so many times over; how many of the kills hit.

    Whatever file is there at any time is as in `alone`.
    """
    rng, busy, hits = np.random.default_rng(0), output / ".msresnet" / "busy", 0
    for _ in range(rounds):
        begin = time.time_ns()
        running = [start(command, output.with_name("errors")) for _ in range(2)]
        wait_for(lambda b=begin, r=running: began(busy, b) or all(p.exitcode is not None for p in r))  # type: ignore[misc]
        for process in running:
            time.sleep(rng.uniform(0, 0.15))
            if process.exitcode is None:
                hits += kill(process, signal.SIGKILL) == -signal.SIGKILL
        assert all(path.read_bytes() == (alone / path.name).read_bytes() for path in output.glob("*.csv"))
    return hits


def began(busy: Path, since: int) -> bool:
    """Whether a process has taken a shard since a time in nanoseconds; what was killed before left such files too."""
    with contextlib.suppress(FileNotFoundError):
        return busy.is_dir() and any(path.stat().st_mtime_ns > since for path in busy.iterdir())
    return False


def check_kills(folder: Path, model: Path, rounds: int, shards: int, images: int) -> None:
    inputs = make_shards(folder / "data", shards, images)
    assert predict(inputs, model, folder / "alone", "-q") == 0
    command = words(inputs, model, folder / "killed", "-q")
    assert killed_at_random(command, folder / "killed", folder / "alone", rounds) >= rounds
    assert main(command) == 0
    assert contents(folder / "killed") == contents(folder / "alone")


def test_x08_a_few_kills_change_no_byte(model: Path, here: Path) -> None:
    check_kills(here, model, rounds=3, shards=40, images=30)


@pytest.mark.slow
def test_x08_fifty_kills_change_no_byte(model: Path, here: Path) -> None:
    check_kills(here, model, rounds=25, shards=300, images=30)


HOLDER = """
import sys, time
from msresnet.infer.ledger import Ledger
from pathlib import Path
import json
ledger = Ledger(Path(sys.argv[1]), json.loads(sys.argv[2]), "csv")
with ledger.hold("part-01") as ours:
    (ledger.folder / ".part-01.csv.abc.msresnet-part").write_text("half")
    print("held" if ours else "busy", flush=True)
    time.sleep(600)
"""


def test_a_shard_that_another_process_is_at_is_left_alone_until_that_dies(
    model: Path, shards: list[str], undisturbed: Path, here: Path, capsys: Any
) -> None:
    settings = (undisturbed / ".msresnet" / "settings.json").read_text(encoding="utf-8")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(here / "out"), settings], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert predict(shards, model, here / "out") == 0
        assert "3 of 4 shards are whole" in (text := capsys.readouterr().err)
        assert "1 are with other processes" in text
        assert not (here / "out" / "part-01.csv").exists()
    finally:
        holder.kill()
        holder.communicate()
    assert predict(shards, model, here / "out", "-q") == 0
    assert contents(here / "out") == contents(undisturbed)


def test_a_process_that_ends_later_takes_over_from_one_that_died(model: Path, shards: list[str], here: Path) -> None:
    """What was busy at first is looked at again before a process leaves."""
    worker = Worker(load_bundle(model), PredictConfig(output=str(here / "out"), device="cpu"), StopRequest())
    held = (here / "out" / ".msresnet" / "busy" / "part-00").open("w")
    fcntl.flock(held, fcntl.LOCK_EX)
    found = find_shards(shards, io.BytesIO())
    tally = work(worker, found, lambda outcome, tally: held.close())
    assert [outcome.state for outcome in tally.outcomes.values()] == ["answered"] * 4
    assert next(iter(tally.outcomes)) == "part-00"


def test_another_model_or_other_settings_are_refused_with_the_difference(
    model: Path, shards: list[str], undisturbed: Path, here: Path, capsys: Any
) -> None:
    shutil.copytree(undisturbed, here / "out")
    other = make_model(here / "other", seed=1)
    assert predict(shards, other, here / "out") == 2
    message = capsys.readouterr().err
    assert f"digest: {json.loads((here / 'out/.msresnet/settings.json').read_text())['digest']} there" in message
    assert f"({model} there, {other} now)" in message
    assert predict(shards, model, here / "out", "--tta", "flip", "--format", "jsonl") == 2
    message = capsys.readouterr().err
    assert "format: csv there, jsonl now; top: None there, 5 now; tta: none there, flip now" in message
    assert contents(here / "out") == contents(undisturbed)
    shutil.copytree(model, here / "copied")
    assert predict(shards, here / "copied", here / "out", "-q") == 0


def test_what_changed_since_is_answered_again(model: Path, undisturbed: Path, shards: list[str], here: Path) -> None:
    shutil.copytree(Path(shards[0]).parent, here / "data")
    inputs = [str(here / "data" / Path(shard).name) for shard in shards]
    assert predict(inputs, model, here / "out", "-q") == 0
    (here / "out" / "part-00.csv").unlink()
    (here / "out" / "part-01.csv").write_text("cut off", encoding="utf-8")
    (here / "out" / ".msresnet" / "done" / "part-02.json").write_text("{}", encoding="utf-8")
    packed(Path(inputs[3]), {"new.png": png(5)})
    assert predict(inputs, model, here / "out", "-q") == 0
    for number in range(3):
        name = f"part-{number:02d}.csv"
        assert (here / "out" / name).read_bytes() == (undisturbed / name).read_bytes()
    assert [row["id"] for row in rows(here / "out" / "part-03.csv")] == ["part-03.tar/new.png"]


def test_a_folder_that_gained_an_image_is_answered_again(model: Path, here: Path) -> None:
    (here / "photos").mkdir()
    for seed, count in ((1, 1), (2, 2)):
        (here / "photos" / f"{seed}.png").write_bytes(png(seed))
        assert predict(["photos"], model, here / "out", "-q") == 0
        assert len(rows(here / "out" / "photos.csv")) == count


def test_a_damaged_shard_stops_no_other(
    model: Path, shards: list[str], undisturbed: Path, here: Path, capsys: Any
) -> None:
    shutil.copytree(Path(shards[0]).parent, here / "data")
    inputs = [str(here / "data" / Path(shard).name) for shard in shards]
    whole = Path(inputs[1]).read_bytes()
    Path(inputs[1]).write_bytes(whole[: len(whole) // 3])
    assert predict(inputs, model, here / "out") == 3
    message = capsys.readouterr().err
    assert "error: part-01: the file is not a whole tar file" in message
    assert "3 of 4 shards are whole" in message
    assert sorted(p.name for p in (here / "out").glob("*")) == [
        ".msresnet",
        "part-00.csv",
        "part-02.csv",
        "part-03.csv",
    ]
    Path(inputs[1]).write_bytes(whole)
    assert predict(inputs, model, here / "out", "-q") == 0
    assert (here / "out" / "part-01.csv").read_bytes() == (undisturbed / "part-01.csv").read_bytes()


def test_a_shard_that_changes_while_it_is_read_is_not_answered(model: Path, here: Path) -> None:
    packed(here / "a.tar", {f"{i}.png": png(i) for i in range(5)})
    config = PredictConfig(output=str(here / "out"), device="cpu", batch_size=2, workers=0)
    worker = Worker(load_bundle(model), config, StopRequest())
    stamps = itertools.count()

    class Changing(TarShard):
        def stamp(self) -> str:
            return str(next(stamps))

    outcome = worker.do(Changing("a", here / "a.tar"))
    assert outcome.state == "failed"
    assert "changed while it was read" in outcome.error
    assert not (here / "out" / "a.csv").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_whole_answers_only(
    number: signal.Signals, code: int, model: Path, here: Path, undisturbed: Path
) -> None:
    inputs = make_shards(here / "data", 3, 300)
    process = start(words(inputs, model, here / "out"), here / "errors")
    wait_for(lambda: (here / "out" / "part-00.csv").exists())
    found = kill(process, number)
    there = sorted(p.name for p in (here / "out").iterdir() if p.name != ".msresnet")
    assert found == code or (found == 0 and len(there) == 3)  # a fast machine is through before it is asked
    assert all(name.endswith(".csv") and len(rows(here / "out" / name)) == 300 for name in there)
    assert list((here / "out" / ".msresnet" / "busy").iterdir()) == []
    if found == code:
        assert "the same command continues" in (here / "errors").read_text(encoding="utf-8")


def test_f03_a_full_disk_loses_nothing(model: Path, here: Path) -> None:
    shards = make_shards(here / "data", 2, 60)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # files that grow beyond this fail, as on a full disk
    try:
        assert predict(shards, model, here / "out", "-q") == 5
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(p.name for p in (here / "out").iterdir()) == [".msresnet"]
    assert predict(shards, model, here / "out", "-q") == 0
    assert predict(shards, model, here / "again", "-q") == 0
    assert contents(here / "out") == contents(here / "again")


@given(st.integers(0, 50), st.integers(1, 9), st.integers(1, 4))
def test_every_process_sees_every_shard_and_begins_elsewhere(count: int, world: int, array: int) -> None:
    found = [TarShard(str(i), Path(f"/{i}.tar")) for i in range(count)]
    by_rank = [beginning(found, {"RANK": str(r), "WORLD_SIZE": str(world)}) for r in range(world)]
    by_array = [
        beginning(found, {
            "SLURM_ARRAY_TASK_ID": str(10 + 2 * a), "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_STEP": "2",
            "SLURM_ARRAY_TASK_MAX": str(8 + 2 * array), "SLURM_PROCID": str(p), "SLURM_NTASKS": str(world),
        })
        for a in range(array) for p in range(world)
    ]  # fmt: skip
    for orders in (by_rank, by_array):
        assert all(sorted(order, key=lambda s: int(s.name)) == found for order in orders)
        if count >= len(orders):
            assert len({order[0].name for order in orders}) == len(orders)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "3", "WORLD_SIZE": "2"},
        {"RANK": "first", "WORLD_SIZE": "2"},
        {"SLURM_ARRAY_TASK_ID": "-1"},
        {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "3"},
        {"SLURM_PROCID": "", "SLURM_NTASKS": "4"},
    ],
)
def test_a_launcher_that_says_nothing_sensible_is_no_matter(environment: dict[str, str]) -> None:
    found = [TarShard(str(i), Path(f"/{i}.tar")) for i in range(7)]
    assert beginning(found, environment) == found


def test_a_folder_of_others_is_refused(model: Path, shards: list[str], here: Path, capsys: Any) -> None:
    (here / "out").mkdir()
    (here / "out" / "thesis.csv").write_text("mine")
    assert predict(shards, model, here / "out") == 2
    assert "holds files that are not of such a command" in capsys.readouterr().err
    assert contents(here / "out") == {"thesis.csv": b"mine"}
    (here / "file").write_text("")
    assert predict(shards, model, here / "file") == 2


def of_ray() -> list[int]:
    """The processes of Ray's workers that this one started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, parent = (folder / "cmdline").read_bytes(), int(folder.name)
            while parent not in (0, 1, os.getpid()):
                parent = int((Path("/proc") / str(parent) / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid() and command.startswith(b"ray::RemoteWorker"):
            found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_x08_ray_gives_the_same_bytes_and_outlives_a_lost_process(
    model: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason='needs pip install "msresnet[ray]"')
    from msresnet.infer.on_ray import work_on_ray

    inputs = make_shards(here / "data", 8, 200)
    assert predict(inputs, model, here / "plain", "-q") == 0
    assert predict(inputs, model, here / "ray", "-q", "--engine", "ray") == 0
    assert contents(here / "ray") == contents(here / "plain")

    killed: list[int] = []

    def note(*_: Any) -> None:
        if not killed:
            killed.extend(of_ray()[:1])
            os.kill(killed[0], signal.SIGKILL)

    found = find_shards(inputs, io.BytesIO())
    config = PredictConfig(model=str(model), output=str(here / "lost"), device="cpu")
    tally = work_on_ray(load_bundle(model), config, found, note)
    assert tally.finished == 8
    assert predict(inputs, model, here / "lost", "-q") == 0
    assert contents(here / "lost") == contents(here / "plain")
    assert predict(inputs, make_model(here / "other", seed=1), here / "ray", "-q", "--engine", "ray") == 2


def test_without_ray_its_one_pip_line_is_printed(
    model: Path, shards: list[str], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it was not installed
    assert predict(shards, model, here / "out", "--engine", "ray") == 5
    assert 'pip install "msresnet[ray]"' in capsys.readouterr().err

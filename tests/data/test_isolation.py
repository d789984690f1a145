"""Work in processes that hang, crash, eat memory or are killed: only the item that did so is lost."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from msresnet.data.isolation import Bounds, Lost, isolated

LONG, SHORT = Bounds(seconds=30.0, memory=256 << 20), Bounds(seconds=2.0, memory=256 << 20)


def square(item: int) -> int:
    return item * item


def loop() -> None:
    while True:
        pass


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fault() -> None:
    ctypes.string_at(0)


def leave() -> None:
    os._exit(3)


def eat() -> None:
    kept = []
    while True:
        kept.append(bytearray(16 << 20))


def err() -> None:
    raise KeyError("no such record")


# (what an item does, what is said of it)
DEEDS: list[tuple[Callable[[], None], str]] = [
    (loop, "not done after 2 seconds"),
    (stop, "not done after 2 seconds"),
    (kill, "killed"),
    (fault, "crashes the decoder (SIGSEGV)"),
    (os.abort, "crashes the decoder (SIGABRT)"),
    (leave, "its process ended"),
    (eat, "more than 0.25 GiB of memory"),
    (err, "KeyError: 'no such record'"),
]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 7, 300])
def test_results_are_those_of_the_work_whatever_the_number_of_processes(count: int, workers: int) -> None:
    items = list(range(5, 5 + count))
    found = list(isolated(square, items, workers))
    assert sorted(found) == [(item, item * item) for item in items]
    assert multiprocessing.active_children() == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("deed", "reason"), DEEDS, ids=[deed.__name__ for deed, _ in DEEDS])
def test_F9_only_the_guilty_item_is_lost(
    deed: Callable[[], None], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def work(item: int) -> int:
        if item in (3, 100, 101):
            deed()
        return item * item

    found = dict(isolated(work, range(200), 2, SHORT if deed in (loop, stop) else LONG))
    lost = {item: result for item, result in found.items() if isinstance(result, Lost)}
    assert sorted(found) == list(range(200))
    assert sorted(lost) == [3, 100, 101]
    assert [result.reason for result in lost.values() if reason not in result.reason] == []
    assert all(found[item] == item * item for item in set(range(200)) - lost.keys())
    assert multiprocessing.active_children() == []
    assert capfd.readouterr() == ("", "")


def test_F9_a_process_that_was_killed_from_outside_loses_nothing(tmp_path: Path) -> None:
    def work(item: int) -> int:
        mark = tmp_path / str(item)
        if item % 40 == 7 and not mark.exists():
            mark.touch()
            kill()
        return item * item

    assert sorted(isolated(work, range(200), 2)) == [(item, item * item) for item in range(200)]


@pytest.mark.timeout(60)
def test_every_item_may_be_bad() -> None:
    def work(item: int) -> None:
        kill()

    found = dict(isolated(work, range(30), 2))
    assert sorted(found) == list(range(30))
    assert all(isinstance(result, Lost) for result in found.values())


def test_who_leaves_early_leaves_no_process_behind() -> None:
    results = isolated(square, range(1000), 2)
    next(results)
    assert multiprocessing.active_children()
    results.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


ORPHANS = """
import sys, time
from msresnet.data.isolation import Bounds, isolated

def work(item):
    if item == 1:
        while True:
            pass
    return item

for item, result in isolated(work, range(2), 2, Bounds(seconds=2.0)):
    print(item, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.timeout(60)
def test_F9_processes_outlive_a_killed_parent_by_seconds_only(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "0\n"
        tasks = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text(encoding="ascii").split()
        assert len(tasks) == 2
        parent.kill()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{task}").exists() for task in tasks) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [task for task in tasks if Path(f"/proc/{task}/statm").exists() and state(task) != "Z"]
    assert left == []


def state(task: str) -> str:
    """The state of a process, a letter; Z has ended."""
    return Path(f"/proc/{task}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]

"""Several processes on this machine, started by one command; torchrun and accelerate's launcher do the same for many.

The processes find each other through the variables that torchrun sets: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

from msresnet.errors import PeerLostError, UsageError
from msresnet.machine import cores

LEAVE_WITHIN = 30.0
"""Seconds that the others get to end by themselves after one has failed."""
LOOK_EVERY = 0.05
EXAMPLE = "--devices 0,1 or all for GPUs, cpu:2 for processes on the CPU"


@dataclass(frozen=True)
class Devices:
    """What `--devices` names: GPUs by number, or a number of processes on the CPU."""

    kind: str
    gpus: tuple[int, ...]
    count: int


def read_devices(text: str, available: int) -> Devices:
    """The devices in '0,1', 'all' or 'cpu:2', of `available` GPUs. Raises UsageError."""
    kind, _, number = text.partition(":")
    if kind == "cpu" and number.isdecimal() and 0 < int(number) <= 1024:
        return Devices("cpu", (), int(number))
    names = range(available) if text == "all" else text.split(",")
    if not names or not all(str(name).strip().isdecimal() for name in names):
        why = "there is no GPU here" if text == "all" else "no numbers of GPUs"
        raise UsageError(f"--devices {text}", why=why, hint=EXAMPLE)
    gpus = tuple(int(name) for name in names)
    if max(gpus) >= available or len(set(gpus)) < len(gpus):
        raise UsageError(f"--devices {text}", why=f"torch sees {available} GPUs, each can be named once", hint=EXAMPLE)
    return Devices("cuda", gpus, len(gpus))


def launched() -> bool:
    """Whether this process is one that a launcher started."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(words: Sequence[str], devices: Devices) -> int:
    """Run `msresnet WORDS` in one process for each device; returns the exit code.

    Signals are passed on. When a process fails, the others are given time to end, then they are ended; the code is that
    of the failure itself, not of the processes that lost their peer. Raises PeerLostError for one that was killed.
    Whatever happens, no process is left behind.
    """
    port = _free_port()
    children: list[subprocess.Popen[bytes]] = []
    asked: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    before = [signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        for rank in range(devices.count):
            child = subprocess.Popen(
                [sys.executable, "-m", "msresnet", *words],
                env=_environment(rank, devices, port),
                start_new_session=True,  # a terminal's Ctrl-C reaches them once, through us
            )
            children.append(child)
            if asked:  # one that was just being started was not told, and nothing is trained yet
                return 128 + asked[0]
        codes = _wait(children)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
    return _one_code(codes)


def _environment(rank: int, devices: Devices, port: int) -> dict[str, str]:
    own = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": devices.count,
        "LOCAL_WORLD_SIZE": devices.count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    if devices.gpus:
        own["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, devices.gpus))
    elif "OMP_NUM_THREADS" not in os.environ:
        own["OMP_NUM_THREADS"] = max(1, cores() // devices.count)
    return os.environ | {name: str(value) for name, value in own.items()}


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """The exit codes; after the first failure the others have a limited time."""
    deadline = None
    while any(child.poll() is None for child in children):
        if deadline is None and any(child.returncode for child in children):
            deadline = time.monotonic() + LEAVE_WITHIN
        if deadline is not None and time.monotonic() > deadline:
            for child in children:
                if child.poll() is None:
                    child.kill()
        time.sleep(LOOK_EVERY)
    return [child.returncode for child in children]


def _one_code(codes: Sequence[int]) -> int:
    """The code that says most: a failure of its own before a lost peer."""
    own = [code for code in codes if code > 0 and code != PeerLostError.exit_code]
    if own:
        return own[0]
    killed = next((rank for rank, code in enumerate(codes) if code < 0), None)
    if killed is not None:
        why = f"signal {-codes[killed]}; for lack of memory the system kills too"
        raise PeerLostError(f"process {killed} of {len(codes)} was killed", why=why, hint="--resume continues the run")
    return max(codes)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

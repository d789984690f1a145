"""Trainings of several processes, as a launcher starts them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from msresnet.cli.main import main
from tiny import CONTEXT, PATIENCE


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def peers(function: Callable[..., None], world: int, *arguments: Any) -> Iterator[list[ForkServerProcess]]:
    """Processes that call `function(*arguments)` with the variables of a launcher; those that are left are killed."""
    port = free_port()
    processes = [
        CONTEXT.Process(target=_as_peer, args=(rank, world, port, function, arguments)) for rank in range(world)
    ]
    for process in processes:
        process.start()
    try:
        yield processes
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()


def codes(processes: Sequence[ForkServerProcess], patience: float = PATIENCE) -> list[int | None]:
    """The exit codes, None for what has not ended in time."""
    for process in processes:
        process.join(patience)
    return [process.exitcode for process in processes]


def _as_peer(rank: int, world: int, port: int, function: Callable[..., None], arguments: Sequence[Any]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    function(*arguments)


def command(words: Sequence[str], folder: str) -> None:
    """Run a command line in a folder; each process's messages go to a file of its own there."""
    os.chdir(folder)
    log = Path(f"process-{os.environ['RANK']}.txt").open("w", encoding="utf-8", buffering=1)  # noqa: SIM115 - to the end
    os.dup2(log.fileno(), 2)
    os._exit(main(list(words)))

"""Several trainings at a time, each in a process of its own on cores of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

import torch

J = TypeVar("J")
R = TypeVar("R")


def in_lanes(work: Callable[[J], R], jobs: Sequence[J], lanes: int, threads: int) -> Iterator[tuple[J, R]]:
    """(job, outcome) of each job, as they end; with one lane in order and in this process.

    Raises whatever a job raises.

    Args:
        work: a function of a module, for it has to reach the processes.
        lanes: how many processes; job by job goes to the next that is free.
        threads: cores of each. The lanes begin with the first core this process may use.
    """
    if lanes == 1:
        yield from ((job, work(job)) for job in jobs)
        return
    cores = sorted(os.sched_getaffinity(0))
    if lanes * threads > len(cores):
        raise SystemExit(f"{lanes} lanes of {threads} cores, but there are {len(cores)} cores: --lanes, --threads")
    context = multiprocessing.get_context("spawn")
    places = context.Queue()
    for lane in range(lanes):
        places.put(cores[lane * threads : (lane + 1) * threads])
    with ProcessPoolExecutor(lanes, context, _settle, (places,)) as pool:
        waiting = {pool.submit(work, job): job for job in jobs}
        for done in as_completed(waiting):
            yield waiting[done], done.result()


def _settle(places: Any) -> None:
    """Keep a new process to its cores."""
    cores = places.get()
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))

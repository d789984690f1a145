"""Who computes what: requests one by one go to one worker, others come in when that computes, and when it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from msresnet.infer.backend import Outputs
from msresnet.serve.batching import Batcher
from msresnet.serve.failures import Refusal
from msresnet.serve.metrics import Metrics
from msresnet.serve.team import Team
from msresnet.serve.worker import Started
from msresnet.serve.workers import Images, Worker, WorkerDied

STARTED = Started({}, "none", "fp32", "for a test", 1, "as asked", exported=True)


class Counting(Worker):
    """Answers when it may, and counts; it starts again when it may, too."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.may, self.gone, self.starts = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        self.may.set()

    async def start(self) -> Started:
        await self.starts.wait()
        self.gone.clear()
        return STARTED

    async def compute(self, images: Images) -> Outputs:
        self.batches.append(len(images))
        await self.may.wait()
        if self.gone.is_set():
            raise WorkerDied("for a test")
        if self.error is not None:
            raise self.error
        return np.zeros((len(images), 1), np.float32)

    async def ended(self) -> None:
        await self.gone.wait()

    async def stop(self) -> None:
        """Nothing is left to end."""


async def ask(batcher: Batcher, images: int = 1) -> None:
    with batcher.room(images):
        await batcher.compute([np.zeros((1, 2, 2), np.uint8)] * images)


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.001)


def run(size: int, count: int, work: Callable[[list[Counting], Batcher, Team], Awaitable[None]]) -> None:
    """Let so many workers do something in batches of up to `size`."""

    async def whole() -> None:
        workers, batcher = [Counting() for _ in range(count)], Batcher(size, 0.0, 100, 10)
        team = Team("m", workers, batcher, Metrics(), lambda started: True)
        await work(workers, batcher, team)
        await team.stop()

    asyncio.run(asyncio.wait_for(whole(), 20))


@pytest.mark.parametrize("size", [1, 4])
def test_one_by_one_go_to_one_worker_and_the_other_helps(size: int) -> None:
    async def work(workers: list[Counting], batcher: Batcher, team: Team) -> None:
        first, second = workers
        for _ in range(5):
            await ask(batcher)
        assert (first.batches, second.batches) == ([1] * 5, [])
        first.may.clear()
        waits = asyncio.create_task(ask(batcher))
        await until(lambda: len(first.batches) == 6)
        await ask(batcher, size)  # not behind the one that computes, though the batch is full
        assert (first.batches, second.batches) == ([1] * 6, [size])
        first.may.set()
        await waits

    run(size, 2, work)


def test_the_other_goes_on_alone_until_the_first_is_back() -> None:
    async def work(workers: list[Counting], batcher: Batcher, team: Team) -> None:
        first, second = workers
        first.may.clear()
        waits = asyncio.create_task(ask(batcher))
        await until(lambda: first.batches == [1])
        first.gone.set()
        first.may.set()
        with pytest.raises(Refusal, match="the worker died while it computed this"):
            await waits
        await ask(batcher)  # at once
        await ask(batcher)
        assert team.alive == 1
        assert (first.batches, second.batches) == ([1], [1, 1])
        first.starts.set()
        await until(lambda: team.alive == 2)
        await ask(batcher)
        assert (first.batches, second.batches) == ([1, 1], [1, 1])

    run(4, 2, work)


def test_what_nobody_foresaw_costs_one_batch() -> None:
    async def work(workers: list[Counting], batcher: Batcher, team: Team) -> None:
        (only,) = workers
        for error in (MemoryError(), KeyError("x")):
            only.error = error
            with pytest.raises(Refusal):
                await ask(batcher)
        only.error = None
        await ask(batcher)
        assert only.batches == [1, 1, 1]

    run(4, 1, work)


def test_those_that_compute_are_handed_full_batches_only() -> None:
    async def work(workers: list[Counting], batcher: Batcher, team: Team) -> None:
        (only,) = workers
        only.may.clear()
        asked = [asyncio.create_task(ask(batcher))]
        await until(lambda: only.batches == [1])
        asked += [asyncio.create_task(ask(batcher)) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert only.batches == [1]  # the three others wait for company
        asked.append(asyncio.create_task(ask(batcher)))
        await until(lambda: only.batches == [1, 4])
        only.may.set()
        await asyncio.gather(*asked)

    run(4, 1, work)

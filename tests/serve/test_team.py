"""Who computes what: requests one by one go to one worker, others come in when that computes, and when it is gone."""

from __future__ import annotations

import asyncio

import numpy as np

from msresnet.infer.backend import Outputs
from msresnet.serve.batching import Batcher
from msresnet.serve.metrics import Metrics
from msresnet.serve.team import Team
from msresnet.serve.workers import Images, Started, Worker, WorkerDied

STARTED = Started({}, "none", "fp32", "for a test", 1, "as asked", exported=True)


class Counting(Worker):
    """Answers when it may, and counts."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.may, self.gone = asyncio.Event(), asyncio.Event()
        self.may.set()

    async def start(self) -> Started:
        return STARTED

    async def compute(self, images: Images) -> Outputs:
        self.batches.append(len(images))
        await self.may.wait()
        if self.gone.is_set():
            raise WorkerDied("for a test")
        return np.zeros((len(images), 1), np.float32)

    async def ended(self) -> None:
        await self.gone.wait()

    async def stop(self) -> None:
        """Nothing is left to end."""


async def ask(batcher: Batcher) -> None:
    with batcher.room(1):
        await batcher.compute([np.zeros((1, 2, 2), np.uint8)])


def test_one_by_one_go_to_one_worker_and_the_other_helps() -> None:
    async def work() -> None:
        workers, batcher = [Counting(), Counting()], Batcher(4, 0.0, 100, 10, workers=2)
        first, second = workers
        team = Team("m", workers, batcher, Metrics(), lambda started: True)
        for _ in range(5):
            await ask(batcher)
        assert (first.batches, second.batches) == ([1] * 5, [])
        first.may.clear()
        waits = asyncio.create_task(ask(batcher))
        while len(first.batches) == 5:
            await asyncio.sleep(0)
        await ask(batcher)  # not behind the one that computes
        assert (first.batches, second.batches) == ([1] * 6, [1])
        first.gone.set()
        first.may.set()
        await asyncio.gather(waits, return_exceptions=True)
        await ask(batcher)
        await team.stop()

    asyncio.run(asyncio.wait_for(work(), 20))


def test_one_that_computes_is_handed_full_batches_only() -> None:
    async def work() -> None:
        only, batcher = Counting(), Batcher(4, 0.0, 100, 10)
        team = Team("m", [only], batcher, Metrics(), lambda started: True)
        only.may.clear()
        asked = [asyncio.create_task(ask(batcher))]
        while not only.batches:
            await asyncio.sleep(0)
        asked += [asyncio.create_task(ask(batcher)) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert only.batches == [1]  # the three others wait for company
        asked.append(asyncio.create_task(ask(batcher)))
        while len(only.batches) == 1:
            await asyncio.sleep(0)
        assert only.batches == [1, 4]
        only.may.set()
        await asyncio.gather(*asked)
        await team.stop()

    asyncio.run(asyncio.wait_for(work(), 20))

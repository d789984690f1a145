"""The workers of a model: each is handed batch after batch, and started again when it dies."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from msresnet.errors import ModelError
from msresnet.serve.batching import Answer, Batcher, Job
from msresnet.serve.failures import BUSY, Refusal, refusal
from msresnet.serve.metrics import Metrics
from msresnet.serve.worker import Started, failure
from msresnet.serve.workers import Worker, WorkerDied

PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a worker that died is started again, and longer ones when that fails."""
AHEAD = 2
"""Batches that a worker has at a time: while it computes one, the next is on its way."""


class _Lane:
    """A worker, the batches that it has, when it answered the last, and whether it lives."""

    def __init__(self, worker: Worker) -> None:
        self.worker, self.held, self.freed, self.lives = worker, 0, 0.0, True


class Team:
    """Workers of one model.

    Args:
        name: of the model.
        workers: that are started already.
        batcher: the queue.
        metrics: where batches are counted.
        fits: whether what a worker says when it starts again is still the model that is served.
    """

    def __init__(
        self,
        name: str,
        workers: Sequence[Worker],
        batcher: Batcher,
        metrics: Metrics,
        fits: Callable[[Started], bool],
    ) -> None:
        self.name, self.workers, self.batcher, self.metrics, self.fits = name, workers, batcher, metrics, fits
        self._lanes = [_Lane(worker) for worker in workers]
        self._tasks = [asyncio.create_task(self._work(lane)) for lane in self._lanes]

    @property
    def alive(self) -> int:
        """The workers that can compute."""
        return sum(lane.lives for lane in self._lanes)

    async def stop(self) -> None:
        """End the workers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in self.workers))

    async def _work(self, lane: _Lane) -> None:
        """Keep one worker busy, and start it again when it dies."""
        while True:
            lane.lives = True
            self.batcher.look_again()
            ended = asyncio.create_task(lane.worker.ended())
            try:
                # Both find out about its death, by what they wait for.
                ends = await asyncio.gather(*(self._batches(lane, ended) for _ in range(AHEAD)), return_exceptions=True)
            finally:
                ended.cancel()
                self._lost(lane)
            for end in ends:
                if isinstance(end, BaseException) and not isinstance(end, WorkerDied):
                    raise end
            self.metrics.replaced.labels(self.name).inc()
            await self._revive(lane)

    async def _batches(self, lane: _Lane, ended: asyncio.Task[None]) -> None:
        """Hand over batches. Raises WorkerDied."""
        while True:
            batch = await self._next(lane, ended)
            try:
                await self._compute(lane, batch)
            except WorkerDied:
                self._lost(lane)
                _refuse(batch, Refusal(BUSY, "the worker died while it computed this", retry_after=1))
                raise
            except Exception as error:  # whatever it is, the worker goes on
                _refuse(batch, refusal(failure(error)))
            finally:
                lane.held -= 1
                _refuse(batch, Refusal(BUSY, "the server is stopping", retry_after=1))  # those without an answer yet

    async def _next(self, lane: _Lane, ended: asyncio.Task[None]) -> list[Job]:
        """The next batch for a worker. Raises WorkerDied when it has none to wait for."""

        async def wanted() -> list[Job]:
            batch = await self.batcher.take(lambda full: self._may(lane, full))
            lane.held += 1
            self.batcher.look_again()
            return batch

        taking = asyncio.create_task(wanted())
        try:
            await asyncio.wait((taking, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not taking.done():
                taking.cancel()
        if not taking.done():
            raise WorkerDied("it is gone")
        return taking.result()

    def _may(self, lane: _Lane, full: bool) -> bool:
        """Whether a worker may take what waits: the first that is free, or any where none is and the batch is full.

        So requests one by one find one worker's weights in the caches; and while all compute, others may come for
        company.
        """
        first = next((one for one in self._lanes if one.lives and one.held == 0), None)
        return lane.lives and (first is lane or (full and first is None))

    def _lost(self, lane: _Lane) -> None:
        lane.lives = False
        self.batcher.look_again()

    async def _compute(self, lane: _Lane, batch: Sequence[Job]) -> None:
        sent = time.monotonic()
        outputs = await lane.worker.compute(np.stack([job.image for job in batch]))
        start, lane.freed = max(sent, lane.freed), time.monotonic()
        seconds = lane.freed - start
        self.batcher.done(len(batch), seconds, sum(one.held > 0 for one in self._lanes))
        self.metrics.computed(self.name, len(batch), seconds)
        for job, output in zip(batch, outputs, strict=True):
            if not job.answer.done():
                job.answer.set_result(Answer(output, start - job.arrived, seconds, len(batch)))

    async def _revive(self, lane: _Lane) -> None:
        """Start a worker again, however often that takes."""
        for attempt in range(sys.maxsize):
            await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
            try:
                if not self.fits(await lane.worker.start()):
                    raise ModelError("its files are of another model than is served")
            except Exception as error:  # whatever it is, a later attempt may do better
                print(f"error: a worker of {self.name} does not start: {error}", file=sys.stderr)
            else:
                print(f"· a worker of {self.name} died and was replaced", file=sys.stderr)
                return


def _refuse(batch: Sequence[Job], why: Refusal) -> None:
    for job in batch:
        if not job.answer.done():
            job.answer.set_exception(why)

"""Images of many requests computed together: one bounded queue for each model.

A worker that is free takes what waits, up to a batch; while there is less, it waits a moment for those that are being
decoded. All of it lives in one event loop. C channels, H and W pixels.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from msresnet.data.sample import Image
from msresnet.infer.backend import Outputs
from msresnet.serve.failures import BUSY, Refusal

LONGEST_WAIT = 30
"""Seconds that Retry-After says at most."""
MEMORY = 0.9
"""Share of the old that each batch leaves in the estimate of an image's time."""


class Answer(NamedTuple):
    """What an image got: its outputs (...), the seconds it waited and was computed, and the images of its batch."""

    outputs: Outputs
    waited: float
    computed: float
    batch: int


@dataclass
class Job:
    """An image (C, H, W) that waits for its answer."""

    image: Image
    answer: asyncio.Future[Answer]
    arrived: float = field(default_factory=time.monotonic)


class Batcher:
    """Hands images to workers in batches.

    Args:
        size: images in a batch, at most.
        delay: seconds that an image waits for company.
        room: images that may be here at a time, from before they are decoded until they are answered.
        patience: seconds after which an answer comes too late.
    """

    def __init__(self, size: int, delay: float, room: int, patience: float) -> None:
        self.size, self.delay, self.capacity, self.patience = size, delay, room, patience
        self.held = self._coming = 0
        self.seconds = 0.0
        self._jobs: deque[Job] = deque()
        self._arrival, self._empty = asyncio.Event(), asyncio.Event()
        self._collecting = asyncio.Lock()
        self._empty.set()

    @contextmanager
    def room(self, images: int) -> Iterator[None]:
        """Hold places while a request is answered, however that ends. Raises Refusal 503 when there are too few."""
        late = self.held * self.seconds > self.patience
        if self.held + images > self.capacity or late:
            raise Refusal(BUSY, "too many images are waiting", retry_after=self._retry_after())
        self.held += images
        self._empty.clear()
        try:
            yield
        finally:
            self.held -= images
            if self.held == 0:
                self._empty.set()

    @contextmanager
    def coming(self, images: int) -> Iterator[None]:
        """While images are being decoded: whoever waits already may wait for them, too."""
        self._coming += images
        try:
            yield
        finally:
            self._coming -= images
            self.look_again()

    async def compute(self, images: Sequence[Image]) -> list[Answer]:
        """The answers for images (C, H, W) that hold places; whoever stops waiting takes them out of the queue."""
        loop = asyncio.get_running_loop()
        jobs = [Job(image, loop.create_future()) for image in images]
        self._jobs.extend(jobs)
        self._arrival.set()
        try:
            return list(await asyncio.gather(*(job.answer for job in jobs)))
        finally:
            for job in jobs:
                job.answer.cancel()

    async def take(self, may: Callable[[bool], bool] = lambda full: True) -> list[Job]:
        """The next batch, once `may` says yes to whether a full one waits."""
        while True:
            while not self._is_for(may):
                await self._arrived()
            async with self._collecting:
                if self._is_for(may):  # still: another may have taken it meanwhile
                    await self._company(self._jobs[0].arrived + self.delay)
                    if batch := self._next():
                        return batch

    def done(self, images: int, seconds: float, together: int = 1) -> None:
        """Learn from a batch how long an image takes; `together` workers were computing."""
        each = seconds / images / together
        self.seconds = each if self.seconds == 0 else MEMORY * self.seconds + (1 - MEMORY) * each
        self.look_again()

    def look_again(self) -> None:
        """Let those who wait for a worker see what has changed with the others."""
        self._arrival.set()

    async def emptied(self) -> None:
        """Wait until nobody holds a place."""
        await self._empty.wait()

    def _is_for(self, may: Callable[[bool], bool]) -> bool:
        return bool(self._jobs) and may(len(self._jobs) >= self.size)

    async def _arrived(self) -> None:
        self._arrival.clear()
        await self._arrival.wait()

    async def _company(self, end: float) -> None:
        """Wait until a batch is full, nothing is being decoded any more, or the time has come."""
        while len(self._jobs) < self.size and self._coming and (left := end - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._arrived()
            except TimeoutError:
                return

    def _next(self) -> list[Job]:
        """Up to a batch of images that somebody still waits for."""
        batch: list[Job] = []
        while self._jobs and len(batch) < self.size:
            job = self._jobs.popleft()
            if not job.answer.done():
                batch.append(job)
        return batch

    def _retry_after(self) -> int:
        return max(1, min(LONGEST_WAIT, math.ceil(self.held * self.seconds)))

"""One model as it is served: what it says of itself, its queue, and the workers that compute.

N images, C channels, H and W pixels.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from msresnet.data.resize import Frame
from msresnet.data.sample import Image
from msresnet.errors import ModelError, MsresnetError
from msresnet.infer.backend import OUTPUT, Outputs
from msresnet.infer.predictor import check_numbers
from msresnet.results import Results
from msresnet.serve.batching import Answer, Batcher, Job
from msresnet.serve.failures import BUSY, Refusal, refusal
from msresnet.serve.metrics import Metrics
from msresnet.serve.workers import Started, Worker, WorkerDied
from msresnet.trained import Exported

VERSION = "1"
"""Of every model: a folder holds one, and loading it anew replaces it."""
PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a worker that died is started again, and longer ones when that fails."""


PARTS = ("config.json", "model.safetensors")
"""What makes a bundle; a run's folder holds more, which changes all the time."""
Signature = tuple[tuple[str, int, int, int], ...]
SMALL = 100_000
"""Outputs that become results at once; more of them go to a thread, so that others are answered meanwhile."""


class Ready(NamedTuple):
    """An image (C, H, W) as the network takes it, and where the picture lies in it."""

    image: Image
    frame: Frame


class Answers(NamedTuple):
    """Results for some images, the network's own outputs (N, ...), and what each image's computation took."""

    results: Results
    outputs: Outputs
    each: Sequence[Answer] = ()

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """All that can be said of the images as arrays (N, ...); `answers` is what people read, as JSON."""
        rows = np.array([json.dumps(row) for row in self.results.to_dict()], object)
        return {OUTPUT: self.outputs} | self.results.arrays() | {"answers": rows}


class Served:
    """A model, its queue and its workers.

    Args:
        name: in addresses.
        path: where it was loaded from.
        workers: that are started already.
        started: what they said.
        sample: the answers about one black image: what answers look like.
        files: of which the workers' networks are.
        batcher: the queue.
        metrics: where batches are counted.
        changed: called when a new worker found another model than the others have.
    """

    def __init__(
        self,
        name: str,
        path: str,
        *,
        workers: Sequence[Worker],
        started: Started,
        sample: Answers,
        files: Signature,
        batcher: Batcher,
        metrics: Metrics,
        changed: Callable[[str], None],
    ) -> None:
        self.name, self.path, self.workers, self.started, self.sample = name, path, workers, started, sample
        self.trained = Exported(started.values)
        self.files, self.batcher, self.metrics, self.changed = files, batcher, metrics, changed
        self.alive = len(workers)
        self._tasks = [asyncio.create_task(self._work(worker)) for worker in workers]

    @property
    def ready(self) -> bool:
        """Whether somebody computes."""
        return self.alive > 0

    async def answer(self, ready: Sequence[Ready], ids: Sequence[str]) -> Answers:
        """Results for images that hold places in the queue.

        Raises Refusal where they cannot be computed, ModelError for outputs that are no numbers.
        """
        each = await self.batcher.compute([one.image for one in ready])
        outputs = np.stack([answer.outputs for answer in each])
        check_numbers(outputs, ids, self.name)
        frames = [one.frame for one in ready] if self.trained.postprocess.whole else None
        decode = partial(self.trained.postprocess, outputs, ids, frames)
        if outputs.size <= SMALL:
            results = decode()
        else:
            results = await asyncio.get_running_loop().run_in_executor(None, decode)
        return Answers(self.trained.postprocess.shown(results), outputs, each)

    def describe(self) -> dict[str, Any]:
        """What a client may know of it."""
        trained = self.trained
        height, width = trained.preprocess.size
        return {
            "name": self.name,
            "version": VERSION,
            "ready": self.ready,
            "task": trained.postprocess.task,
            "architecture": trained.architecture,
            "class_names": list(trained.postprocess.class_names),
            "input": {"height": height, "width": width, "channels": trained.preprocess.channels},
            "preprocess": trained.preprocess.describe(),
            "scores": trained.scores,
            "licence": trained.licence,
            "params": trained.params,
            "macs": trained.macs,
            "backend": self.started.backend,
            "precision": self.started.precision,
            "reason": self.started.reason,
            "batch_size": self.batcher.size,
            "can_explain": not self.started.exported,
        }

    async def retire(self) -> None:
        """Answer what was accepted, then end the workers."""
        await self.batcher.emptied()
        await self.stop()

    async def stop(self) -> None:
        """End the workers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in self.workers))

    async def _work(self, worker: Worker) -> None:
        """Compute batch after batch with one worker, and start it again when it dies."""
        while True:
            ended = asyncio.create_task(worker.ended())
            try:
                await self._batches(worker, ended)
            except WorkerDied:
                self.metrics.replaced.labels(self.name).inc()
                await self._revive(worker)
            finally:
                ended.cancel()

    async def _batches(self, worker: Worker, ended: asyncio.Task[None]) -> None:
        """Compute until the worker dies: then raises WorkerDied."""
        while True:
            taking = asyncio.create_task(self.batcher.take())
            try:
                await asyncio.wait((taking, ended), return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not taking.done():
                    taking.cancel()
            if not taking.done():
                raise WorkerDied("it is gone")
            batch = taking.result()
            try:
                await self._compute(worker, batch)
            except WorkerDied:
                _refuse(batch, Refusal(BUSY, "the worker died while it computed this", retry_after=1))
                raise
            except MsresnetError as error:
                _refuse(batch, refusal(error))
            finally:
                _refuse(batch, Refusal(BUSY, "the server is stopping", retry_after=1))  # those without an answer yet

    async def _compute(self, worker: Worker, batch: Sequence[Job]) -> None:
        start = time.monotonic()
        outputs = await worker.compute(np.stack([job.image for job in batch]))
        seconds = time.monotonic() - start
        self.batcher.done(len(batch), seconds)
        self.metrics.computed(self.name, len(batch), seconds)
        for job, output in zip(batch, outputs, strict=True):
            if not job.answer.done():
                job.answer.set_result(Answer(output, start - job.arrived, seconds, len(batch)))

    async def _revive(self, worker: Worker) -> None:
        """Start a worker again, however often that takes."""
        self.alive -= 1
        for attempt in range(sys.maxsize):
            await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
            try:
                started = await worker.start()
                if started.values != self.started.values or signature(self.path) != self.files:
                    self.changed(self.name)  # the files are of another model now; this one's days are over
                    raise ModelError("the files hold another model than is served", where=self.path)
            except MsresnetError as error:
                print(f"error: a worker of {self.name} does not start: {error}", file=sys.stderr)
            else:
                print(f"· a worker of {self.name} died and was replaced", file=sys.stderr)
                self.alive += 1
                return


async def first_answers(worker: Worker, trained: Exported) -> Answers:
    """Answers about one black image. Raises MsresnetError when the model's own parts do not fit each other."""
    try:
        outputs = await worker.compute(np.zeros((1, trained.preprocess.channels, *trained.preprocess.size), np.uint8))
        check_numbers(outputs, ["a black image"], trained.architecture)
        return Answers(trained.postprocess(outputs, ["image"]), outputs)
    except (ValueError, IndexError, WorkerDied) as error:
        raise ModelError("the model's outputs are not what its task needs", why=str(error)) from error


def _refuse(batch: Sequence[Job], why: Refusal) -> None:
    for job in batch:
        if not job.answer.done():
            job.answer.set_exception(why)


def signature(path: str) -> Signature:
    """What changes when a model's files do: their names, sizes, times and places on the disk."""
    place = Path(path)
    if place.is_dir():
        files = [place / part for part in PARTS if (place / part).is_file()] or sorted(place.rglob("*"))
    else:
        files = [place, place.with_suffix(".bin")]
    found = []
    for file in files:
        try:
            status = file.stat()
        except OSError:  # it is being replaced, or there is none
            continue
        found.append((str(file), status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(found)

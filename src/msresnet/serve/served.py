"""One model as it is served: what it says of itself, its queue, and the workers that compute.

N images, C channels, H and W pixels.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from msresnet.data.resize import Frame
from msresnet.data.sample import Image
from msresnet.errors import ModelError
from msresnet.hub import CONFIG, WEIGHTS
from msresnet.infer.backend import OUTPUT, Outputs
from msresnet.infer.predictor import check_numbers
from msresnet.results import Results
from msresnet.serve.batching import Answer, Batcher
from msresnet.serve.metrics import Metrics
from msresnet.serve.team import Team
from msresnet.serve.worker import Started
from msresnet.serve.workers import Worker, WorkerDied
from msresnet.trained import Exported

VERSION = "1"
"""Of every model: a folder holds one, and reloading it replaces it."""
PARTS = (CONFIG, WEIGHTS)
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


class Loaded(NamedTuple):
    """A model that has computed once.

    Args:
        path: where it was loaded from.
        files: what the files there were like.
        workers: that have it.
        started: what they said.
        sample: the answers about one black image: what answers look like.
    """

    path: str
    files: Signature
    workers: Sequence[Worker]
    started: Started
    sample: Answers


class Served:
    """A model, its queue and its workers.

    Args:
        name: in addresses.
        loaded: the model.
        batcher: the queue.
        metrics: where batches are counted.
        changed: called when a new worker, or an explanation, found another model than the others have.
    """

    def __init__(
        self, name: str, loaded: Loaded, batcher: Batcher, metrics: Metrics, changed: Callable[[str], None]
    ) -> None:
        self.name, self.loaded, self.batcher, self.changed = name, loaded, batcher, changed
        self.path, self.started, self.trained = loaded.path, loaded.started, Exported(loaded.started.values)
        self.team = Team(name, loaded.workers, batcher, metrics, self._fits)

    @property
    def ready(self) -> bool:
        """Whether somebody computes."""
        return self.team.alive > 0

    async def answer(self, ready: Sequence[Ready], ids: Sequence[str], score: float | None = None) -> Answers:
        """Results for images that hold places in the queue; of boxes those from a score on, where one is given.

        Raises Refusal where they cannot be computed, ModelError for outputs that are not numbers.
        """
        each = await self.batcher.compute([one.image for one in ready])
        outputs = np.stack([answer.outputs for answer in each])
        check_numbers(outputs, ids, self.name)
        postprocess = self.trained.postprocess if score is None else self.trained.postprocess.from_score(score)
        frames = [one.frame for one in ready] if postprocess.whole else None
        decode = partial(postprocess.for_people(), outputs, ids, frames)
        if outputs.size <= SMALL:
            results = decode()
        else:
            results = await asyncio.get_running_loop().run_in_executor(None, decode)
        return Answers(postprocess.shown(results), outputs, each)

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
        await self.team.stop()

    def _fits(self, started: Started) -> bool:
        """Whether a new worker has the model of the others; else this one's days are over."""
        same = started.values == self.started.values and signature(self.path) == self.loaded.files
        if not same:
            self.changed(self.name)
        return same


async def first_answers(worker: Worker, trained: Exported) -> Answers:
    """Answers about one black image. Raises MsresnetError when the model's own parts do not fit each other."""
    try:
        outputs = await worker.compute(np.zeros((1, trained.preprocess.channels, *trained.preprocess.size), np.uint8))
        check_numbers(outputs, ["a black image"], trained.architecture)
        return Answers(trained.postprocess(outputs, ["image"]), outputs)
    except (ValueError, IndexError, WorkerDied) as error:
        raise ModelError("the model's outputs are not what its task needs", why=str(error)) from error


def signature(path: str) -> Signature:
    """What changes when a model's files do: their names, sizes, times and places on the disk."""
    place = Path(path)
    try:
        if place.is_dir():
            files = [place / part for part in PARTS if (place / part).is_file()] or sorted(place.rglob("*"))
        else:
            files = [place, place.with_suffix(".bin")]
    except OSError:  # a folder that may not be read, or that goes away
        files = []
    found = []
    for file in files:
        try:
            status = file.stat()
        except OSError:  # it is being replaced, or there is none
            continue
        found.append((str(file), status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(found)

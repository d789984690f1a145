"""All models of a server: loaded, found by name, reloaded while the old ones go on answering."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from typing import Any

from msresnet.data.decode import bytes_size, decode_bytes
from msresnet.data.resize import Frame
from msresnet.errors import DataError, MsresnetError
from msresnet.infer.backends.artefact import find_file
from msresnet.infer.backends.opened import engine_of
from msresnet.machine import cores
from msresnet.serve.batching import Batcher
from msresnet.serve.config import ServeConfig
from msresnet.serve.failures import Refusal
from msresnet.serve.metrics import Metrics
from msresnet.serve.served import Loaded, Ready, Served, Signature, first_answers, signature
from msresnet.serve.worker import Opening, failure
from msresnet.serve.workers import ProcessWorker, ThreadWorker, Worker
from msresnet.trained import Exported

GLANCE = 1.0
"""Seconds between two looks at the files."""
AGAIN, LONGEST = 10.0, 600.0
"""Seconds until files that could not be loaded are tried again, twice as many after each failure, and the most."""


class _Failed:
    """The files that could not be loaded last, and from when on they may be tried again."""

    def __init__(self) -> None:
        self.files: Signature | None = None
        self.pause = self.until = 0.0

    def may(self, files: Signature, now: float) -> bool:
        """Whether to try these files; others than failed are tried at once."""
        return files != self.files or now >= self.until

    def note(self, files: Signature, now: float) -> None:
        """They could not be loaded."""
        self.pause = min(2 * self.pause, LONGEST) if files == self.files else AGAIN
        self.files, self.until = files, now + self.pause


class Models:
    """The models of a server, by name, in the order of the configuration."""

    def __init__(self, config: ServeConfig, metrics: Metrics) -> None:
        self.config, self.metrics, self.paths = config, metrics, config.models
        self._served: dict[str, Served] = {}
        self._locks = {name: asyncio.Lock() for name in self.paths}
        self._decoders = ThreadPoolExecutor(cores(), thread_name_prefix="decode")
        self._retiring: set[asyncio.Task[object]] = set()

    @property
    def names(self) -> list[str]:
        """All of them; the first answers where none is named."""
        return list(self.paths)

    @property
    def ready(self) -> bool:
        """Whether every model can answer."""
        return len(self._served) == len(self.paths) and all(model.ready for model in self._served.values())

    @property
    def all(self) -> list[Served]:
        """What is served now."""
        return [self._served[name] for name in self.paths if name in self._served]

    def get(self, name: str | None) -> Served:
        """The model of that name, or the first. Raises Refusal 404."""
        chosen = self.names[0] if name is None else name
        if chosen not in self._served:
            raise Refusal(404, "there is no such model", hint=", ".join(self.names))
        return self._served[chosen]

    async def load_all(self) -> None:
        """Load every model. Raises MsresnetError for the first that cannot be."""
        self._decoders.submit(import_module, "scipy.sparse")  # with it images are resized faster
        for name in self.paths:
            await self.load(name)

    async def load(self, name: str) -> Served:
        """Load or reload a model, and answer with it from then on; what was accepted before, the old one answers.

        Raises MsresnetError for a model that cannot be used, and what else keeps it from that: then nothing changes.
        """
        async with self._locks[name]:
            try:
                served = await self._start(name)
            except Exception:
                self.metrics.loads.labels(name, "no").inc()
                raise
            self.metrics.loads.labels(name, "yes").inc()
            old = self._served.get(name)
            self._served[name] = served
            if old is not None:
                self._later(old.retire())
            return served

    async def reload(self, name: str) -> None:
        """Load a model anew; why that fails is said on standard error.

        Raises Refusal 404 for an unknown name, MsresnetError for whatever fails: then the old one stays.
        """
        self.get(name)
        try:
            await self.load(name)
        except Exception as error:  # whatever it is, the old one answers
            known = failure(error)
            print(f"error: {name} is not reloaded, the old one stays: {known}", file=sys.stderr)
            raise known from error

    async def decode(self, data: bytes, where: str, model: Served) -> Ready:
        """An image's file -> what a model takes. Raises DataError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._decoders, self._decoded, data, where, model)

    async def watch(self) -> None:
        """Reload models whose files are others than were loaded, and have stayed the same for a moment.

        What cannot be loaded is tried again: at once when the files change, else after pauses that become longer.
        """
        loop = asyncio.get_running_loop()
        before: dict[str, Signature] = {}
        failed = {name: _Failed() for name in self.paths}
        while True:
            await asyncio.sleep(GLANCE)
            for name, path in self.paths.items():
                try:
                    now = await loop.run_in_executor(None, signature, path)
                except (RuntimeError, MemoryError):  # there is no thread to be had; the next look is soon
                    continue
                rests, before[name] = now == before.get(name), now
                new = rests and now != self._served[name].loaded.files
                if new and failed[name].may(now, loop.time()) and not await self._try(name):
                    failed[name].note(now, loop.time())

    async def close(self) -> None:
        """End all workers."""
        await asyncio.gather(*(model.stop() for model in self._served.values()))
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        self._decoders.shutdown(wait=False, cancel_futures=True)

    async def _start(self, name: str) -> Served:
        config, path = self.config, self.paths[name]
        count, threads = crew(config, path)
        opening = opening_of(config, path, threads)
        workers: list[Worker] = [ProcessWorker(opening) if count else ThreadWorker(opening)]
        files = signature(path)
        try:
            # Before the others, for it measures how many images at a time are fastest, which they then know.
            started = await workers[0].start()
            alike = replace(opening, batch=started.batch)
            workers += [ProcessWorker(alike) for _ in range(count - 1)]
            await _all_started(workers[1:])
            workers[0].opening = alike
            sample = await first_answers(workers[0], Exported(started.values))
            batcher = Batcher(started.batch, config.max_delay / 1000, config.queue, config.timeout)
            self.metrics.waiting.labels(name).set_function(lambda: self._held(name))
            loaded = Loaded(path, files, workers, started, sample)
            return Served(name, loaded, batcher, self.metrics, self._changed)
        except BaseException:
            await asyncio.gather(*(worker.stop() for worker in workers))
            raise

    def _held(self, name: str) -> int:
        return self._served[name].batcher.held if name in self._served else 0

    def _changed(self, name: str) -> None:
        self._later(self._try(name))

    async def _try(self, name: str) -> bool:
        """Reload a model, say how that went, and whether it went well."""
        try:
            await self.reload(name)
        except MsresnetError:
            return False
        print(f"· {name} was reloaded", file=sys.stderr)
        return True

    def _later(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _decoded(self, data: bytes, where: str, model: Served) -> Ready:
        preprocess = model.trained.preprocess
        height, width = bytes_size(data, where)
        if height * width > self.config.max_pixels * 1_000_000:
            why = f"{width}x{height}, the limit is {self.config.max_pixels},000,000 pixels"
            raise DataError("the image is too large", where=where, why=why)
        image = decode_bytes(data, where, preprocess.at_least)
        frame: Frame = preprocess.frame((image.shape[1], image.shape[2]))
        return Ready(preprocess.image(image), frame)


def crew(config: ServeConfig, path: str) -> tuple[int, int | None]:
    """The worker processes of a model, 0 for none, and the threads of each; None is one for each core.

    Where nothing is said, an exported file in OpenVINO has two that have every core: while the threads of one wait for
    another that gave its core to the server, those of the other compute, and a request alone still has all cores.
    Threads of ONNX Runtime do not give way to those of another process (benchmarks/results/serving.md).
    """
    if config.workers is None:
        alone = config.threads is not None or cores() == 1 or find_file(path) is None
        return (1 if alone or engine_of(path, config.backend) != "openvino" else 2), config.threads
    divided = max(1, cores() // config.workers) if config.workers > 1 else None
    return config.workers, config.threads or divided


def opening_of(config: ServeConfig, path: str, threads: int | None) -> Opening:
    """What a worker of a model opens, and how.

    Only a server of single images says so: else an image alone goes where it would in company, for the same answer.
    """
    return Opening(
        path=path,
        device=config.device,
        backend=config.backend,
        precision=config.precision,
        threads=threads,
        batch_size=config.batch_size or Opening.batch_size,
        batch=config.batch_size,
    )


async def _all_started(workers: Sequence[Worker]) -> None:
    """Start workers at once."""
    said = await asyncio.gather(*(worker.start() for worker in workers), return_exceptions=True)
    for one in said:
        if isinstance(one, BaseException):
            raise one

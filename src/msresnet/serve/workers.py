"""Where a model computes: in a process of its own, which may die without harm, or in a thread of the server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from msresnet.errors import ModelError
from msresnet.infer.backend import Outputs
from msresnet.serve import wire
from msresnet.serve.worker import Opened, Opening, Started, failure, heard, open_model, words_of

Images = npt.NDArray[np.uint8]
BUFFER = 1 << 20
"""Bytes of a socket between the processes."""
SLOWEST_START, SLOWEST_BATCH, SLOWEST_END = 300.0, 120.0, 2.0
"""Seconds after which a process is taken to hang."""


class WorkerDied(Exception):
    """A worker process is gone, and what it computed with it."""


class Worker(ABC):
    """A model at work, opened as `opening` says."""

    opening: Opening

    @abstractmethod
    async def start(self) -> Started:
        """Open the model, again after a death. Raises MsresnetError when that is not possible."""

    @abstractmethod
    async def compute(self, images: Images) -> Outputs:
        """(B, C, H, W) uint8 -> (B, ...) float32.

        Raises WorkerDied when it will compute nothing more, MsresnetError when it cannot compute this.
        """

    @abstractmethod
    async def ended(self) -> None:
        """Wait until it has died."""

    @abstractmethod
    async def stop(self) -> None:
        """End it; what is computed at the moment is lost."""


class ProcessWorker(Worker):
    """A process that computes; the two speak over a socket."""

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        self.process: asyncio.subprocess.Process | None = None
        self._sending, self._hearing = asyncio.Lock(), asyncio.Lock()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def start(self) -> Started:
        """Start the process and wait until its model has computed once."""
        await self.stop()
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        with theirs:
            words = words_of(theirs, self.opening)
            settings = {} if self.opening.threads is None else {"OMP_NUM_THREADS": str(self.opening.threads)}
            self.process = await asyncio.create_subprocess_exec(
                *words, stdin=asyncio.subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=os.environ | settings
            )
        self._reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=BUFFER)
        try:
            header, _ = await self._message(SLOWEST_START)
        except WorkerDied as error:
            raise ModelError("the worker process died while it opened the model", where=self.opening.path) from error
        # If it dies, a large batch may be why; it must not meet one again before it serves.
        self.opening = replace(self.opening, warm=False)
        return Started(**header)

    async def compute(self, images: Images) -> Outputs:
        """Send a batch and wait for its outputs; a second may be sent meanwhile, and is answered after the first."""
        if self._writer is None:
            raise WorkerDied("it was not started")
        try:
            async with self._sending:
                await wire.write(self._writer, {}, images)
        except ConnectionError as error:
            raise WorkerDied("it took no batch") from error
        async with self._hearing:  # whoever has sent first waits here first
            _, outputs = await self._message(SLOWEST_BATCH)
        if outputs is None or len(outputs) != len(images):
            self._kill()
            raise WorkerDied("it answered something else")
        return outputs

    async def ended(self) -> None:
        """Wait for the process."""
        if self.process is not None:
            await self.process.wait()

    async def stop(self) -> None:
        """Close the socket, at which the process ends; kill one that does not."""
        if self._writer is not None:
            self._writer.close()
        if self.process is not None and self.process.returncode is None:
            try:
                await asyncio.wait_for(self.process.wait(), SLOWEST_END)
            except TimeoutError:
                self._kill()
                await self.process.wait()
        self.process = self._reader = self._writer = None

    async def _message(self, patience: float) -> tuple[wire.Header, wire.Array | None]:
        """The process's next message. Raises what it tells, or WorkerDied when it is gone, hangs or talks nonsense."""
        assert self._reader is not None
        try:
            header, array = await asyncio.wait_for(wire.read(self._reader), patience)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError, ValueError) as error:
            self._kill()
            raise WorkerDied("it is gone") from error
        if "error" in header:
            raise heard(header)
        return header, array

    def _kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()


class ThreadWorker(Worker):
    """A thread of this process that computes."""

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._opened: Opened | None = None

    async def start(self) -> Started:
        """Open the model in the thread."""
        loop = asyncio.get_running_loop()
        try:
            self._opened = await loop.run_in_executor(self._thread, open_model, self.opening)
        except Exception as error:
            raise failure(error) from error
        return self._opened.started

    async def compute(self, images: Images) -> Outputs:
        """Compute in the thread."""
        if self._opened is None:
            raise WorkerDied("it was not started")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._opened.compute, images)
        except Exception as error:
            raise failure(error) from error

    async def ended(self) -> None:
        """A thread does not end by itself."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Let the thread end after what it computes."""
        self._opened = None
        self._thread.shutdown(wait=False, cancel_futures=True)

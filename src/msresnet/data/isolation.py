"""Work on many items in processes that may hang, crash or eat memory: only the item that did so is lost.

The processes are forked, so that the work needs no pickling and a lost process is replaced within milliseconds. They
take chunks, and note in shared memory which item they are at; that is how the guilty one is known. An item whose
process was killed is tried once more by itself, because the cause may have come from outside.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import mmap
import multiprocessing
import os
import resource
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Generic, TypeVar

from msresnet.errors import ResourceError

T = TypeVar("T")
CHUNK, MESSAGE = 128, 32
"""Items that a process takes at once, and results that it sends at once: small enough never to block a pipe."""
SEND_EVERY, LOOK_EVERY, ORPHANED_AFTER = 0.1, 0.2, 1.0
"""Seconds between a process's messages, between looks at the clock, and until a process misses its parent."""


@dataclass(frozen=True)
class Lost:
    """An item without a result, and why."""

    reason: str


@dataclass(frozen=True)
class Bounds:
    """What one item may use: seconds, and bytes of memory beyond what its process had at the start."""

    seconds: float = 45.0
    memory: int = 3 << 30


USUAL = Bounds()


def isolated(
    work: Callable[[int], T], items: Sequence[int], workers: int, bounds: Bounds = USUAL
) -> Iterator[tuple[int, T | Lost]]:
    """Each item with `work(item)` or Lost, in the order in which they are done.

    Results travel through a pipe and are meant to be small. Raises ResourceError when no process can be started.
    """
    crew = _Crew(work, items, workers, bounds)
    try:
        while crew.todo or any(child.chunk for child in crew.children):
            yield from crew.turn()
    finally:
        for child in crew.children:
            child.stop()


class _Child(Generic[T]):
    """A process, the chunk that it works on, and how many of its results have come back."""

    def __init__(self, work: Callable[[int], T], bounds: Bounds) -> None:
        self.chunk: list[int] = []
        self.received, self.seen, self.since = 0, 0, 0.0
        self.at = mmap.mmap(-1, mmap.PAGESIZE)  # no file, so neither /dev/shm nor a full disk matters
        context = multiprocessing.get_context("fork")
        self.connection, other = context.Pipe()
        arguments = (work, other, self.at, bounds)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        try:
            with warnings.catch_warnings():
                # The children neither start threads nor wait for one, so those of the parent do not matter.
                warnings.simplefilter("ignore", DeprecationWarning)
                self.process.start()
        except OSError as error:
            raise ResourceError("no process can be started", why=error.strerror or str(error)) from error
        finally:
            other.close()

    def give(self, chunk: list[int]) -> bool:
        """Begin a chunk; False when the process is gone already."""
        self.chunk, self.received, self.seen, self.since = chunk, 0, 0, time.monotonic()
        _write(self.at, 0)
        try:
            self.connection.send(chunk)
        except OSError:
            return False
        return True

    def take(self) -> list[tuple[int, T | Lost]]:
        """The results that have arrived. Raises EOFError or OSError when the process is gone."""
        found: list[tuple[int, T | Lost]] = []
        while self.connection.poll():
            results = self.connection.recv()
            found += zip(self.chunk[self.received : self.received + len(results)], results, strict=True)
            self.received += len(results)
            if self.received == len(self.chunk):
                self.chunk = []
                return found
            if len(found) >= CHUNK:
                return found
        return found

    def overdue(self, seconds: float) -> bool:
        """Whether the item at hand has had its time."""
        now, at = time.monotonic(), _read(self.at)
        if at != self.seen:
            self.seen, self.since = at, now
        return bool(self.chunk) and now - self.since > seconds

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.join(1)  # one that waits for a dead disk cannot be killed, nor waited for
        self.connection.close()


class _Crew(Generic[T]):
    """The processes, and what is still to be done."""

    def __init__(self, work: Callable[[int], T], items: Sequence[int], workers: int, bounds: Bounds) -> None:
        self.work, self.bounds, self.workers = work, bounds, max(1, workers)
        size = max(1, min(CHUNK, len(items) // (4 * self.workers)))
        self.todo = deque(list(items[start : start + size]) for start in range(0, len(items), size))
        self.children: list[_Child[T]] = []
        self.tried: set[int] = set()

    def turn(self) -> Iterator[tuple[int, T | Lost]]:
        """Hand out chunks, then wait for results, ends and overdue items."""
        while self.todo and len(self.children) < self.workers:
            self.children.append(_Child(self.work, self.bounds))
        for child in [c for c in self.children if not c.chunk]:
            if self.todo and not child.give(self.todo.popleft()):
                yield from self._bury(child)
        ready = wait([c.connection for c in self.children], LOOK_EVERY)
        for child in list(self.children):
            if child.connection in ready:
                yield from self._listen(child)
            elif child.overdue(self.bounds.seconds):
                yield from self._bury(child, f"not done after {self.bounds.seconds:g} seconds")

    def _listen(self, child: _Child[T]) -> Iterator[tuple[int, T | Lost]]:
        try:
            while results := child.take():
                yield from results
        except (EOFError, OSError):
            yield from self._bury(child)

    def _bury(self, child: _Child[T], why: str = "") -> Iterator[tuple[int, T | Lost]]:
        """Replace a process; put back what it had not done, but for the item that it was at."""
        self.children.remove(child)
        child.process.join(0 if why else 1)
        reason = why or _death(child.process.exitcode)
        child.stop()
        if not child.chunk:
            return
        guilty = min(max(_read(child.at), child.received), len(child.chunk) - 1)
        rest = [i for n, i in enumerate(child.chunk) if n >= child.received and n != guilty]
        if rest:
            self.todo.appendleft(rest)
        item = child.chunk[guilty]
        if why or item in self.tried:
            yield item, Lost(reason)
        else:
            self.tried.add(item)
            self.todo.append([item])


def _death(code: int | None) -> str:
    """What ended a process, in words."""
    if code == -signal.SIGKILL:
        return "its process was killed, perhaps for lack of memory"
    if code is not None and code < 0:
        return f"it crashes the decoder ({signal.Signals(-code).name})"
    return "its process ended"


def _read(shared: mmap.mmap) -> int:
    return int.from_bytes(shared[:4], "little")


def _write(shared: mmap.mmap, value: int) -> None:
    shared[:4] = value.to_bytes(4, "little")


def _serve(work: Callable[[int], T], connection: Connection, at: mmap.mmap, bounds: Bounds) -> None:
    """A process's life: chunks in, results out, until the parent is gone."""
    _settle(bounds.memory)
    parent = os.getppid()
    with contextlib.suppress(EOFError, OSError):
        while True:
            while not connection.poll(ORPHANED_AFTER):
                if os.getppid() != parent:
                    return
            _work_through(work, connection, at, bounds)


def _work_through(work: Callable[[int], T], connection: Connection, at: mmap.mmap, bounds: Bounds) -> None:
    results: list[T | Lost] = []
    sent = time.monotonic()
    for position, item in enumerate(connection.recv()):
        _write(at, position)
        signal.alarm(int(2 * bounds.seconds) + 1)  # ends this process even where no parent is left to do so
        results.append(_attempt(work, item, bounds.memory))
        if len(results) == MESSAGE or time.monotonic() - sent > SEND_EVERY:
            connection.send(results)
            results, sent = [], time.monotonic()
    signal.alarm(0)
    if results:
        connection.send(results)


def _attempt(work: Callable[[int], T], item: int, memory: int) -> T | Lost:
    try:
        return work(item)
    except MemoryError:
        return Lost(f"it needs more than {memory / 2**30:.3g} GiB of memory")
    except Exception as error:  # whatever a source raises is a fact about the item
        return Lost(f"{type(error).__name__}: {error}")


def _settle(memory: int) -> None:
    """Leave signals to the parent, silence what C libraries print, and bound the memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    faulthandler.disable()
    gc.freeze()  # else the collector would touch, and so copy, every page of the parent
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere the limit is not kept
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * mmap.PAGESIZE + memory
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

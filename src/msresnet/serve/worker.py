"""A process that computes for the server: opens a model, says what it is, and then answers batch after batch.

    python -m msresnet.serve.worker SOCKET SETTINGS

It ends when the server does: then its socket closes. C channels, H and W pixels.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from queue import Queue
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from msresnet.errors import ModelError, MsresnetError, ResourceError, UsageError
from msresnet.infer.backend import Outputs
from msresnet.infer.config import Running
from msresnet.serve import wire
from msresnet.trained import Exported, exported_config

MOST, ENOUGH = 32, 0.95
"""Batches beyond this are not tried; the smallest that reaches this share of the greatest speed is taken."""
TRYING, TIMES = 1.0, 3
"""Seconds for finding the fastest batch, and as many for warming up; the most calls that are timed of each."""
BEHIND = 2
"""By how much a worker's priority is below the server's, whose moments are short and wanted by everybody."""
NO_MEMORY = ("not enough memory", "out of memory", "bad_alloc", "bad allocation", "allocate memory")
KINDS: dict[str, type[MsresnetError]] = {kind.__name__: kind for kind in (ModelError, ResourceError, UsageError)}
Compute = Callable[[npt.NDArray[np.uint8]], Outputs]


@dataclass(frozen=True, kw_only=True)
class Opening(Running):
    """What a worker opens, and how.

    `batch` are the images at a time that were asked for, or that another worker found to be fastest; None measures.
    `warm` says whether each number of images is computed once before it serves.
    """

    path: str
    batch: int | None = None
    warm: bool = True


@dataclass(frozen=True)
class Started:
    """What is said of a model that is ready; all of it can be said in JSON.

    Args:
        values: what an exported file would carry of it.
        backend, precision, reason: what runs it, and why.
        batch: images at a time, and `found` how that was chosen.
        exported: whether it is a file without the network that was trained.
    """

    values: dict[str, Any]
    backend: str
    precision: str
    reason: str
    batch: int
    found: str
    exported: bool


class Opened(NamedTuple):
    """A model that is ready: images (B, C, H, W) uint8 -> outputs (B, ...), and what is said of it."""

    compute: Compute
    started: Started


def open_model(opening: Opening) -> Opened:
    """Load a model and compute with it once, so that it is known to work. Raises MsresnetError."""
    from msresnet.infer.backends.opened import open_predictor

    predictor = open_predictor(opening.path, opening)
    trained, backend = predictor.trained, predictor.backend

    def compute(images: npt.NDArray[np.uint8]) -> Outputs:
        return backend(images)[0]

    shape = (trained.preprocess.channels, *trained.preprocess.size)
    batch, found = _batch(compute, shape, opening.batch)
    if opening.warm:
        _warm_up(compute, shape, batch)
    values = exported_config(trained, backend.precision)
    exported = isinstance(trained, Exported)
    started = Started(values, backend.name, backend.precision, backend.reason, batch, found, exported)
    return Opened(compute, started)


def _batch(compute: Compute, shape: tuple[int, ...], asked: int | None) -> tuple[int, str]:
    """Images at a time, and how that was chosen; the model has worked when this returns."""
    compute(np.zeros((1, *shape), np.uint8))
    if asked is not None:
        return asked, "as asked"
    end, size = time.monotonic() + TRYING, 1
    speeds: dict[int, float] = {}
    while size <= MOST and time.monotonic() < end:
        images = np.zeros((size, *shape), np.uint8)
        if size > 1:
            compute(images)  # the first of a shape takes longer
        speeds[size] = size / _least(compute, images, end)
        size *= 2
    best = min(size for size, speed in speeds.items() if speed >= ENOUGH * max(speeds.values()))
    return best, f"measured: {speeds[best]:,.0f} images/s at {best}"


def _warm_up(compute: Compute, shape: tuple[int, ...], batch: int) -> None:
    """Compute each number of images once, the small ones first: the first of a shape takes longer, up to twice.

    What fails ends it: that costs a batch its answer then, not the server its start.
    """
    end = time.monotonic() + TRYING
    with contextlib.suppress(Exception):
        for size in range(2, batch + 1):
            if time.monotonic() >= end:
                return
            compute(np.zeros((size, *shape), np.uint8))


def _least(compute: Compute, images: npt.NDArray[np.uint8], end: float) -> float:
    """The least seconds of a few calls, one at least; what disturbs makes them only longer."""
    spent: list[float] = []
    while not spent or (len(spent) < TIMES and time.monotonic() < end):
        start = time.perf_counter()
        compute(images)
        spent.append(time.perf_counter() - start)
    return min(spent)


def failure(error: Exception) -> MsresnetError:
    """What went wrong, as one of ours that can be told."""
    if isinstance(error, MsresnetError):
        return error
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in NO_MEMORY):
        return ResourceError("not enough memory", hint="a smaller --batch-size")
    return ModelError("the model cannot compute this", why=f"{type(error).__name__}: {error}"[:300])


def told(error: MsresnetError) -> dict[str, Any]:
    """An error as a message's header."""
    kind = next((name for name, known in KINDS.items() if isinstance(error, known)), ModelError.__name__)
    return {"error": kind, "what": error.what, "where": error.where, "why": error.why, "hint": error.hint}


def heard(header: dict[str, Any]) -> MsresnetError:
    """The error in a message's header."""
    return KINDS[header["error"]](header["what"], where=header["where"], why=header["why"], hint=header["hint"])


def main(words: list[str]) -> int:
    """Serve one socket until it closes."""
    if sys.platform != "win32":
        os.nice(BEHIND)
    # The server says when to end, by closing; a signal to the whole group must not cut what it has accepted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # standard output is for data, and a library may print
    with socket.socket(fileno=int(words[0])) as connection, contextlib.suppress(OSError):
        _serve(connection, Opening(**json.loads(words[1])))
    return 0


def _serve(connection: socket.socket, opening: Opening) -> None:
    """Open the model, then answer until the other side is gone. Raises OSError when that is while it is told."""
    try:
        opened = open_model(opening)
    except Exception as error:  # whatever it is, the server has to know
        wire.send(connection, told(failure(error)))
        return
    wire.send(connection, asdict(opened.started))
    batches: Queue[npt.NDArray[np.uint8] | None] = Queue(1)
    threading.Thread(target=_listen, args=(connection, batches), daemon=True).start()
    while (images := batches.get()) is not None:
        _answer(connection, opened.compute, images)


def _listen(connection: socket.socket, batches: Queue[npt.NDArray[np.uint8] | None]) -> None:
    """Read the next batch while one is computed; None is the end."""
    try:
        while True:
            batches.put(wire.receive(connection)[1])
    except (EOFError, OSError, ValueError):
        batches.put(None)


def _answer(connection: socket.socket, compute: Compute, images: npt.NDArray[np.uint8]) -> None:
    try:
        outputs = np.asarray(compute(images), np.float32)
    except Exception as error:  # a batch that fails is told; the next may be good
        wire.send(connection, told(failure(error)))
    else:
        wire.send(connection, {}, outputs)


def words_of(connection: socket.socket, opening: Opening) -> list[str]:
    """The command that starts a worker; -P keeps the working directory from being a place of modules."""
    number = str(connection.fileno())
    return [sys.executable, "-P", "-m", "msresnet.serve.worker", number, json.dumps(asdict(opening))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

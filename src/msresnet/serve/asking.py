"""From what a client sent to the answers of a model: places in the queue, decoding, and a limit of time."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from msresnet.serve.failures import BUSY, Refusal
from msresnet.serve.models import Models
from msresnet.serve.served import Answers, Ready, Served


class Asked(NamedTuple):
    """Answers, and the milliseconds they took."""

    answers: Answers
    timing: dict[str, float]


async def ask_files(
    models: Models,
    served: Served,
    files: Sequence[bytes],
    timeout: float | None = None,
    *,
    score: float | None = None,
) -> Asked:
    """Answers about the files of images; of boxes those from a score on, where one is given.

    Raises DataError for one that is not an image, Refusal when there is no room or no time.
    """
    names = [f"image {number}" for number in range(1, len(files) + 1)] if len(files) > 1 else ["image"]

    async def decode() -> Sequence[Ready]:
        pairs = zip(files, names, strict=True)
        return await asyncio.gather(*(models.decode(data, name, served) for data, name in pairs))

    return await _ask(models, served, names, decode, timeout, score=score)


async def ask_pixels(
    models: Models, served: Served, pixels: npt.NDArray[np.uint8], timeout: float | None = None
) -> Asked:
    """Answers about images (N, C, H, W) uint8 at the network's size; raises as `ask_files`."""
    frame = served.trained.preprocess.frame((pixels.shape[2], pixels.shape[3]))

    async def ready() -> Sequence[Ready]:
        return [Ready(image, frame) for image in pixels]

    return await _ask(models, served, [str(n) for n in range(len(pixels))], ready, timeout)


async def _ask(
    models: Models,
    served: Served,
    names: Sequence[str],
    ready: Callable[[], Awaitable[Sequence[Ready]]],
    timeout: float | None,
    *,
    score: float | None = None,
) -> Asked:
    start = time.perf_counter()
    patience = min(models.config.timeout, math.inf if timeout is None else timeout)
    with served.batcher.room(len(names)):
        try:
            async with asyncio.timeout(patience):
                with served.batcher.coming(len(names)):
                    images = await ready()
                decoded = time.perf_counter()
                answers = await served.answer(images, names, score)
        except TimeoutError as error:
            why = f"it took more than {patience:g} s"
            raise Refusal(BUSY, "the answer did not come in time", why=why, retry_after=1) from error
    last = max(answers.each, key=lambda one: one.waited + one.computed)
    timing = {
        "decode_ms": decoded - start,
        "queue_ms": last.waited,
        "compute_ms": last.computed,
        "total_ms": time.perf_counter() - start,
    }
    return Asked(answers, {name: round(1000 * seconds, 3) for name, seconds in timing.items()} | {"batch": last.batch})

"""What --lr auto and --batch-size auto find out before training, on a network that is then thrown away."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from msresnet.data.order import mix_seed
from msresnet.data.sample import Batch
from msresnet.errors import DivergedError, ResourceError, UsageError
from msresnet.runtime import StopRequest
from msresnet.train.loop import Trainer
from msresnet.train.observer import Silent
from msresnet.train.optimiser import Pace, set_pace
from msresnet.train.plan import Plan
from msresnet.train.processes import world_size
from msresnet.train.sizes import Moment
from msresnet.train.state import Step

LOWEST, HIGHEST, STEPS = 1e-5, 10.0, 100
SHARE_OF_TIME = 0.1
"""The most of a time limit that a sweep may take."""
SMOOTHING, EXPLODED = 0.9, 4.0
SMALLEST_BATCH, LARGEST_BATCH, TIMED = 16, 1024, 3
FIRST = Pace(1e-3)
"""At which batch sizes are tried: as the first steps of a training."""
LAG = 3
FEWEST_STEPS = 10
"""Steps that an epoch keeps, however fast larger batches are."""
NEARLY = 0.95


@dataclass(frozen=True)
class Sweep:
    """What was tried, and what was chosen.

    Args:
        name: 'lr' or 'batch_size'.
        measure: what the second column of `rows` is.
        rows: (value, measured).
        chosen: the value.
        reason: in words.
    """

    name: str
    measure: str
    rows: list[tuple[float, float]]
    chosen: float
    reason: str


def find_lr(plan: Plan) -> Sweep:
    """The highest learning rate: rising, it lowers the loss, then lets it explode (arXiv 1506.01186).

    Chosen is a third of the rate at which the smoothed loss has fallen half the way to its lowest: the curve lags
    behind the rate, and its steepest point moves with the noise.
    """
    rows: list[tuple[float, float]] = []
    trainer, smoothed, lowest = _trainer(plan), 0.0, math.inf
    moment = plan.sizes.moments[-1]
    began = time.monotonic()
    for number, (batch, step) in enumerate(_batches(trainer, moment, STEPS)):
        lr = LOWEST * (HIGHEST / LOWEST) ** (number / (STEPS - 1))
        set_pace(trainer.optimizer, lr, Pace(1.0))
        try:
            smoothed = SMOOTHING * smoothed + (1 - SMOOTHING) * trainer.update(trainer.inputs.given(batch, step, 0.0))
        except DivergedError:
            break
        loss = smoothed / (1 - SMOOTHING ** (number + 1))
        rows.append((lr, loss))
        lowest = min(lowest, loss)
        if loss > EXPLODED * lowest or _late(trainer, began, plan.limit):
            break
    lr = _half_way(rows) / LAG if len(rows) > FEWEST_STEPS else plan.lr
    return Sweep("lr", "loss", rows, float(f"{lr:.3g}"), f"a sweep of {len(rows)} steps")


def _half_way(rows: Sequence[tuple[float, float]]) -> float:
    """The first rate at which the loss is nearer to its lowest than to its level at the beginning."""
    smooth = rows[FEWEST_STEPS - 1 :]  # before, it is that of a batch or two
    lowest = min(loss for _, loss in smooth)
    return next(rate for rate, loss in smooth if loss <= (smooth[0][1] + lowest) / 2)


def find_batch(plan: Plan) -> Sweep:
    """The smallest batch size that gives nearly the most images a second, and fits into memory.

    Raises UsageError with several processes, of which one alone could run out of memory.
    """
    if world_size() > 1:
        raise UsageError("--batch-size auto, but there are several processes", hint="--batch-size 256")
    trainer, rows = _trainer(plan, plan.config.ema), list[tuple[float, float]]()
    set_pace(trainer.optimizer, plan.lr, FIRST)
    largest = max(SMALLEST_BATCH, min(LARGEST_BATCH, len(plan.train) // FEWEST_STEPS))
    size, began = SMALLEST_BATCH, time.monotonic()
    while size <= largest and not _late(trainer, began, plan.limit):
        moment = replace(plan.sizes.moments[-1], batch=size)
        spent = []
        try:
            for batch, step in _batches(trainer, moment, TIMED):
                start = time.perf_counter()
                trainer.update(trainer.inputs.given(batch, step, 0.0))
                spent.append(time.perf_counter() - start)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError) or "memory" in str(error):
                break
            raise
        rows.append((size, size / min(spent)))
        size *= 2
    if not rows:
        raise ResourceError(
            f"not even {SMALLEST_BATCH} images fit into memory",
            hint="a smaller --image-size or --model, --batch-size 4",
        )
    best = max(speed for _, speed in rows)
    chosen = next(size for size, speed in rows if speed >= NEARLY * best)
    return Sweep("batch_size", "images a second", rows, chosen, f"{best:.0f} images a second at most")


def _trainer(plan: Plan, ema: float = 0.0) -> Trainer:
    config = replace(plan.config, resume=False, ema=ema, compile=False)
    return Trainer(replace(plan, config=config), None, Silent(), StopRequest())


def _batches(trainer: Trainer, moment: Moment, steps: int) -> Iterator[tuple[Batch, Step]]:
    """Batches of one size as the first epoch draws them, over again where it is short of them."""
    order = trainer.selection.order(0, 0.0, begun=True)  # whatever was learnt for another size, the same images
    for number in range(steps):
        start = number * moment.batch % max(1, len(order) - moment.batch + 1)
        seed = mix_seed(trainer.plan.config.seed, 0, number)
        step, indices = trainer.inputs.share(order[start : start + moment.batch], moment, seed)
        yield next(iter(trainer.plan.train.batches([indices], trainer.processes.device))), step


def _late(trainer: Trainer, began: float, limit: float) -> bool:
    return trainer.processes.agree([time.monotonic() - began])[0][0] > SHARE_OF_TIME * limit

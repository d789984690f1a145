"""Where a training is, as JSON; what it is made of is in the tensors beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from msresnet.train.sizes import Moment


@dataclass
class State:
    """All that decides what comes next."""

    epoch: int = 0
    step: int = 0
    """Steps taken in this epoch."""
    position: int = 0
    """Samples of this epoch's order that were used."""
    length: int = 0
    """Samples in this epoch's order; 0 before the first."""
    elapsed: float = 0.0
    """Seconds of training so far, over all continuations."""
    loss_sum: float = 0.0
    images: int = 0
    """Seen in this epoch."""
    seen: int = 0
    """Seen in all epochs."""
    operations: float = 0.0
    """Multiply-adds so far, where they are limited."""
    averaged_steps: int = 0
    best: list[float] | None = None
    """(metric, -loss) of the best weights so far."""
    best_epoch: int = -1
    finishing: bool = False
    """Whether only classifier and normalisation learn any more."""
    finished: bool = False
    lr: float = 0.0
    batch: int = 0
    """What was chosen for --lr auto and --batch-size auto, or given."""
    rate: float = 0.0
    """The schedule's learning rate at the last step, without the factors of layers."""
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """One step: its moment, its images over all processes, and where this process's images begin among them.

    `seed` decides all that is random in it. `weight` is the share of this process in the batch, times the number of
    processes: the mean of their gradients is then that of the whole batch.
    """

    moment: Moment
    count: int
    seed: int
    first: int = 0
    weight: float = 1.0

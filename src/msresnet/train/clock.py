"""How far a training is, by epochs, by time and by operations, as all its processes see it."""

from __future__ import annotations

import math
import time

from msresnet.runtime import StopRequest
from msresnet.train.plan import Plan
from msresnet.train.processes import Processes
from msresnet.train.state import State


class Clock:
    """The time of a training, and who asked it to stop; of several processes, what they last agreed on.

    Args:
        plan: how long it is to take.
        processes: those that have to agree.
        stop: of this process.
    """

    def __init__(self, plan: Plan, processes: Processes, stop: StopRequest) -> None:
        self.plan, self.processes, self.stop = plan, processes, stop
        self.started = time.monotonic()
        self.operations = plan.config.operations or math.inf
        self.agreed_time, self.agreed_code = 0.0, 0
        self.validation_seconds: float | None = None
        self.warm: tuple[float, int] | None = None
        """Time and images when the first step of this process was done."""

    def start(self, elapsed: float) -> None:
        """Begin, after so many seconds of training before."""
        self.started, self.agreed_time = time.monotonic() - elapsed, elapsed

    @property
    def elapsed(self) -> float:
        """Seconds of training."""
        return time.monotonic() - self.started if self.processes.world == 1 else self.agreed_time

    @property
    def code(self) -> int:
        """The exit code that a signal asks for; 0 when none does."""
        return self.stop.code if self.processes.world == 1 else self.agreed_code

    def agree(self, loss: float) -> list[float]:
        """Agree on the time and on signals; returns the losses of all processes."""
        rows = self.processes.agree((loss, self.stop.code, time.monotonic() - self.started))
        losses, codes, times = zip(*rows, strict=True)
        self.agreed_code, self.agreed_time = int(max(codes)), max(times)
        return list(losses)

    def stepped(self, state: State) -> None:
        """A step is done."""
        self.warm = self.warm or (self.elapsed, state.seen)

    def validated(self, seconds: float) -> None:
        """A validation took so long; the slowest process counts."""
        self.validation_seconds = max(row[0] for row in self.processes.agree((seconds,)))

    def deadline(self, state: State) -> float:
        """Seconds after which the last validation has to begin if it is to end within the time limit."""
        limit = self.plan.limit
        if self.plan.val is None or math.isinf(limit):
            return limit
        if self.validation_seconds is not None:
            return limit - self.validation_seconds
        if self.warm is None:
            return limit
        # Before the first one: a forward pass takes about a third of a training step, whose first took longer.
        seconds, seen = self.elapsed - self.warm[0], state.seen - self.warm[1]
        images = len(self.plan.val) * (2 if self.plan.config.ema else 1)
        return limit - min(limit / 2, images * seconds / max(1, seen) / 3)

    def late(self, state: State) -> bool:
        """Whether nothing is left for another step, of the time or of the operations."""
        return self.elapsed >= self.deadline(state) or state.operations >= self.operations

    def progress(self, state: State, position: int | None = None, operations: float | None = None) -> float:
        """Share of the training that is done: of the epochs, the time or the operations, whichever is furthest.

        `position` is a place in the epoch's order, and `operations` what is done by then, in place of the present ones.
        """
        count, sizes = state.length or len(self.plan.train), self.plan.sizes
        batch = sizes.moments[0].batch if len(sizes.moments) == 1 and not sizes.finish else 1
        usable = max(count // batch * batch, min(count, batch))
        by_epochs = (state.epoch + (state.position if position is None else position) / usable) / self.plan.epochs
        by_operations = (state.operations if operations is None else operations) / self.operations
        return min(1.0, max(by_epochs, self.elapsed / max(1e-9, self.deadline(state)), by_operations))

"""What each step of a training learns from: a pure function of seed, epoch and step.

B batch, C channels, H and W pixels.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from msresnet.data.augment import Augment
from msresnet.data.draws import Draws, part
from msresnet.data.order import mix_seed
from msresnet.data.sample import Batch
from msresnet.models.base import ImageModel
from msresnet.models.cost import count_macs
from msresnet.train.clock import Clock
from msresnet.train.objective import Teacher
from msresnet.train.plan import Plan
from msresnet.train.processes import Processes
from msresnet.train.selection import Selection
from msresnet.train.sizes import Moment
from msresnet.train.state import State, Step


class Given(NamedTuple):
    """A step's batch on its device: pixels (B, C, H, W) in 0 to 1, resized, changed and mixed, and encoded targets."""

    batch: Batch
    step: Step
    images: Tensor
    targets: Tensor


class Inputs:
    """Batches, shared among processes and changed at random.

    Args:
        plan: what to do.
        processes: those that share a batch.
        clock: says how far the training is.
        selection: says which images an epoch learns from.
        model, teacher: whose multiply-adds are counted, where they are limited.
    """

    def __init__(
        self,
        plan: Plan,
        processes: Processes,
        clock: Clock,
        selection: Selection,
        model: ImageModel,
        *,
        teacher: Teacher | None,
    ) -> None:
        self.plan, self.processes, self.clock, self.selection = plan, processes, clock, selection
        self.model, self.teacher = model, teacher
        self.costs: dict[tuple[int, int], int] = {}

    def epoch(self, state: State) -> Iterator[Given]:
        """What the rest of the present epoch learns from; each step's is made when it is asked for."""
        steps: deque[Step] = deque()
        for batch in self.plan.train.batches(self._parts(state, steps), self.processes.device):
            yield self.given(batch, steps.popleft(), self.clock.progress(state))

    def _parts(self, state: State, steps: deque[Step]) -> Iterator[Tensor]:
        """Indices of this process's images for each step of the epoch that is left; the steps go into `steps`."""
        plan = self.plan
        began = self.clock.progress(state)
        order = self.selection.order(state.epoch, began, begun=state.position > 0)
        state.length = len(order)
        epoch, position, number, operations = state.epoch, state.position, state.step, state.operations
        while True:
            draw = mix_seed(plan.config.seed, epoch, number, 1) / 2**63
            # Time passes differently in each process, and what comes next is made ready ahead: sizes then go by epochs.
            alone = self.processes.world == 1 or math.isinf(plan.limit)
            now = self.clock.progress(state, position, operations) if alone else began
            moment = plan.sizes.last if state.finishing else plan.sizes.at(now, draw)
            count = min(moment.batch, len(order) - position)
            if (position and count < moment.batch) or count < 2:
                return
            seed = mix_seed(plan.config.seed, epoch, number)
            step, mine = self.share(order[position : position + count], moment, seed)
            steps.append(step)
            yield mine
            position, number, operations = position + count, number + 1, operations + self.operations(step)

    def share(self, indices: Tensor, moment: Moment, seed: int) -> tuple[Step, Tensor]:
        """This process's part of a batch's indices, and the step that it belongs to."""
        count, world = len(indices), self.processes.world
        mine = part(count, self.processes.rank, world)
        weight = (mine.stop - mine.start) * world / count
        if not weight:  # fewer pairs than processes: compute something that does not count
            mine = slice(0, 2)
        return Step(moment, count, seed, mine.start, weight), indices[mine]

    def given(self, batch: Batch, step: Step, progress: float) -> Given:
        """A batch as its step learns from it, after a share `progress` of the training."""
        images = batch.images.float().div_(255)
        if images.shape[-2:] != step.moment.size:
            images = F.interpolate(images, step.moment.size, mode="bilinear", antialias=True)
        targets = self.plan.task.resized(batch.targets, step.moment.size)
        changes = Augment() if step.moment.finishing else self.plan.augment
        if progress >= self.plan.config.mix_until:
            changes = replace(changes, mixup=0.0, cutmix=0.0, mosaic=0.0)
        draws = Draws(step.seed, step.count, step.first)
        return Given(batch, step, *self.plan.task.vary(images, targets, changes, draws))

    def operations(self, step: Step) -> float:
        """Multiply-adds of a step, where they are limited; the gradients take two more passes, a teacher takes one."""
        if self.plan.config.operations is None:
            return 0.0
        size = step.moment.size
        if size not in self.costs:
            taught = 0 if self.teacher is None else count_macs(self.teacher.model, self.teacher.preprocess.size)
            self.costs[size] = 3 * count_macs(self.model, size) + taught
        return float(self.costs[size]) * step.count

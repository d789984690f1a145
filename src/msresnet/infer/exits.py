"""Networks with several exits at work: an image leaves where its answer is sure enough, or as deep as a time allows.

Anytime and budgeted prediction (MSDNet, arXiv 1703.09844, sections 3 and 4.2). B batch, K classes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msresnet.errors import UsageError
from msresnet.infer.config import Budget
from msresnet.models.base import ImageModel
from msresnet.models.cost import exit_macs
from msresnet.results import Evaluation
from msresnet.tasks.base import Task

CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Bounds at which the curve of accuracy against cost is measured."""
WARM_UP, REPEATS = 2, 7


class EarlyExit:
    """Answers within a budget.

    Args:
        model: a network in evaluation mode, folded or not, with more than one exit.
        task: says how sure an answer is.
        budget: when to stop.
        image: one image (1, C, H, W) as the network takes it, by which its exits are timed.
        computing: within what it gives the network computes, such as autocast to another precision.

    Raises UsageError for a network with one exit, and for a time in which not even the first exit is reached.
    """

    def __init__(
        self,
        model: ImageModel,
        task: Task,
        budget: Budget,
        image: Tensor,
        computing: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        if model.num_exits == 1:
            why, hint = "the network answers only at its end", "an MSDNet, or train with --model-args exits=true"
            raise UsageError("--budget, but there is one exit", why=why, hint=hint)
        self.model, self.task, self.confidence, self.computing = model, task, budget.confidence, computing
        self.last = model.num_exits - 1
        self.reason = f"the first exit of {model.num_exits} that is sure to {budget.confidence}"
        if budget.seconds is not None:
            spent = self.timed(image)
            self.last = sum(s <= budget.seconds for s in spent) - 1
            self.reason = (
                f"exit {self.last + 1} of {model.num_exits}: {1000 * spent[self.last]:.3g} ms for an image here"
            )
            if self.last < 0:
                least = f"{1000 * spent[0]:.3g} ms"
                raise UsageError(
                    f"--budget {1000 * budget.seconds:g}ms",
                    why=f"the first exit takes {least} here",
                    hint="a longer one",
                )

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> logits (B, K), and the exit that gave each, from 0 (B,)."""
        waiting = torch.arange(len(x), device=x.device)
        exits = torch.full_like(waiting, self.last)
        state, answers = [x], x.new_empty(0)
        for index in range(self.last + 1):
            state, logits = self._advance(state, index)
            if index == 0:
                answers = logits.new_empty(len(x), logits.shape[1])
            done = torch.ones(len(waiting), dtype=torch.bool, device=x.device)
            if index < self.last:
                done = self._sure(logits)
            answers[waiting[done]], exits[waiting[done]] = logits[done], index
            if bool(done.all()):
                break
            waiting, state = waiting[~done], [part[~done] for part in state]
        return answers, exits

    @torch.inference_mode()
    def timed(self, image: Tensor) -> list[float]:
        """Seconds to each exit for one image, as it is answered here; the medians of some runs."""
        image, runs = image.contiguous(memory_format=torch.channels_last), []
        for _ in range(WARM_UP + REPEATS):
            state, spent, start = [image], [], time.perf_counter()
            for index in range(self.model.num_exits):
                state, logits = self._advance(state, index)
                logits.cpu()  # what runs on another device is waited for
                spent.append(time.perf_counter() - start)
            runs.append(spent)
        return [statistics.median(run[i] for run in runs[WARM_UP:]) for i in range(self.model.num_exits)]

    def _advance(self, state: list[Tensor], index: int) -> tuple[list[Tensor], Tensor]:
        """One exit further. A lone sample goes in company: matrix products of one row differ in their last bit."""
        count = len(state[0])
        if count == 1:
            state = [part.repeat(2, *[1] * (part.ndim - 1)) for part in state]
        with self.computing():
            state, logits = self.model.advance(state, index)
        return [part[:count] for part in state], logits[:count].float()

    def _sure(self, logits: Tensor) -> Tensor:
        if self.confidence is None:  # a time alone: everything goes as deep as it allows
            return torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
        return torch.from_numpy(self.task.confidences(logits) >= self.confidence).to(logits.device)


def cost_curve(model: ImageModel, task: Task, answers: Sequence[Tensor], truth: Evaluation) -> dict[str, Any]:
    """Accuracy against cost: at each exit, and for bounds on how sure an answer must be.

    Args:
        model: folded or not.
        answers: the logits of each exit for the same images (N, K), first exit first.
        truth: an evaluation on these images, for ids and targets.

    Returns:
        exits: for each exit its multiply-accumulates an image, and its figure of the task's metric.
        budgets: for each bound the same figures, and the share of images that each exit answered.
    """
    ids, targets, macs = truth.predictions.ids, truth.targets, np.array(exit_macs(model))

    def figure(logits: Tensor) -> float:
        return float(task.evaluate(task.decode(logits, ids), targets).metrics[task.metric])

    exits = [{"exit": i + 1, "macs": int(macs[i]), task.metric: figure(a)} for i, a in enumerate(answers)]
    sure = np.stack([task.confidences(a) for a in answers])  # (E, N)
    stacked, rows = torch.stack(list(answers)), []
    for bound in CONFIDENCES:
        enough = sure >= bound
        enough[-1] = True
        chosen = enough.argmax(0)  # the first exit that is sure enough
        logits = stacked[torch.from_numpy(chosen), torch.arange(len(chosen))]
        shares = np.bincount(chosen, minlength=len(answers)) / max(1, len(chosen))
        mean = round(float(macs[chosen].mean())) if len(chosen) else 0
        row = {"confidence": bound, "macs": mean, task.metric: figure(logits)}
        rows.append(row | {"answered": [round(float(s), 4) for s in shares]})
    return {"exits": exits, "budgets": rows}

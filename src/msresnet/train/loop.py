"""The training loop, on accelerate.

All that is random is a pure function of seed, epoch and step, so a run that was stopped anywhere goes on as if it had
not been.

B batch, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

import math
import shlex
import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import Tensor, nn

from msresnet.data.augment import augment, mix
from msresnet.data.loaders import Decoded, epoch_order, mix_seed, training_batches, training_steps
from msresnet.data.sample import Batch
from msresnet.errors import DivergedError, Interrupted, ModelError
from msresnet.models.base import ImageModel
from msresnet.models.factory import create_classifier
from msresnet.runtime import StopRequest
from msresnet.train.checkpoint import checkpoints, prefixed, save_checkpoint, section
from msresnet.train.optimiser import (
    AveragedWeights,
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    pace,
    set_pace,
)
from msresnet.train.plan import Plan

EVALUATION_BATCH = 500
WARMUP = 0.1


class Observer(Protocol):
    """Who watches a training."""

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """After each step."""

    def epoch(self, row: dict[str, Any]) -> None:
        """After each epoch, with its line of the history."""


class Silent:
    """Watches and says nothing."""

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Say nothing."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Say nothing."""


@dataclass
class State:
    """Where a training is, as JSON; what it is made of is in the tensors beside it."""

    epoch: int = 0
    step: int = 0
    """Steps taken in this epoch."""
    elapsed: float = 0.0
    """Seconds of training so far, over all continuations."""
    loss_sum: float = 0.0
    images: int = 0
    """Seen in this epoch."""
    seen: int = 0
    """Seen in all epochs."""
    averaged_steps: int = 0
    best: list[float] | None = None
    """(metric, -loss) of the best weights so far."""
    best_epoch: int = -1
    finished: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """A plan in motion.

    Args:
        plan: what to do.
        folder: where checkpoints go; None keeps everything in memory.
        stop: asked after each step; training then saves and raises Interrupted.
    """

    def __init__(self, plan: Plan, folder: Path | None, observer: Observer, stop: StopRequest) -> None:
        self.plan, self.folder, self.observer, self.stop = plan, folder, observer, stop
        self.state = State()
        torch.manual_seed(plan.config.seed)
        self.accelerator = _accelerator(plan)
        # What is continued has its weights in the checkpoint.
        continued = plan.config.resume and folder is not None and bool(checkpoints(folder))
        weights = False if continued else plan.pretrained
        model = create_classifier(plan.model, pretrained=weights, **plan.arguments).to(self.accelerator.device)
        self.raw: ImageModel = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = build_optimizer(self.raw, plan.config, plan.lr, plan.weight_decay)
        self.average = AveragedWeights(self.raw, plan.config.ema) if plan.config.ema else None
        self.model, self.optimizer = self.accelerator.prepare(self.raw, optimizer)
        self.best: dict[str, Tensor] = _copied(self.raw)
        self.started = time.monotonic()
        self.validation_seconds: float | None = None

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Digests of what training learns from and of what chooses the model; only checkpoints need them."""
        return {name: data.fingerprint() for name, data in self.plan.sets.items() if name != "test"}

    def run(self) -> None:
        """Train to the end of the plan. Raises DivergedError, Interrupted, ResourceError."""
        self.started = time.monotonic() - self.state.elapsed
        while not self.state.finished:
            self._epoch()
            self._end_of_epoch()
        self.save()
        if self.stop.code:
            self._interrupt()

    @property
    def progress(self) -> float:
        """Share of the training that is done: of the epochs or of the time, whichever is further."""
        steps = training_steps(len(self.plan.train), self.plan.config.batch_size)
        by_epochs = (self.state.epoch + self.state.step / steps) / self.plan.epochs
        return max(by_epochs, self._elapsed() / max(1e-9, self.deadline))

    @property
    def deadline(self) -> float:
        """Seconds after which the last validation has to begin if it is to end within the time limit."""
        if self.plan.val is None or math.isinf(self.plan.limit):
            return self.plan.limit
        if self.validation_seconds is not None:
            return self.plan.limit - self.validation_seconds
        # Before the first one: a forward pass takes about a third of a training step.
        images = len(self.plan.val) * (1 if self.average is None else 2)
        return self.plan.limit - images * self._elapsed() / max(1, self.state.seen) / 3

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _epoch(self) -> None:
        plan, state, config = self.plan, self.state, self.plan.config
        order = epoch_order(len(plan.train), config.seed, state.epoch)
        steps = training_steps(len(order), config.batch_size)
        self.model.train()
        for batch in training_batches(plan.train, order, config.batch_size, self.accelerator.device, state.step):
            if state.images and self._elapsed() >= self.deadline:
                return
            loss = self.train_step(batch)
            state.loss_sum += loss * len(batch)
            state.images += len(batch)
            state.seen += len(batch)
            state.step += 1
            self.observer.step(state.epoch, state.step, steps, loss)
            if self.stop.code:
                self._interrupt()

    def train_step(self, batch: Batch) -> float:
        """One step of the optimiser; returns the loss. Raises DivergedError, before any weight is touched."""
        plan, state = self.plan, self.state
        warmup = WARMUP if plan.config.warmup is None else plan.config.warmup
        now = pace(plan.config.schedule, min(1.0, self.progress), warmup)
        set_pace(self.optimizer, plan.lr, now)
        seed = mix_seed(plan.config.seed, state.epoch, state.step)
        self._seed_layers(seed)
        generator = torch.Generator().manual_seed(seed)
        images = augment(batch.images.float().div_(255), plan.augment, generator)
        images, targets = mix(
            plan.preprocess.normalise(images), plan.task.encode(batch.targets), plan.augment, generator
        )
        answers = self.model(images.contiguous(memory_format=torch.channels_last), exits=True)
        loss = plan.task.loss_of_exits(answers, targets)
        value = loss.item()
        self._check(value, "loss", batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        gradients = [p.grad for p in self.raw.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        self._check(float(norm), "gradient", batch)
        if plan.config.clip_grad is not None:
            nn.utils.clip_grads_with_norm_(self.raw.parameters(), plan.config.clip_grad, norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        return value

    def _seed_layers(self, seed: int) -> None:
        """Decide dropout and stochastic depth. torch.manual_seed would cost half a millisecond where no GPU is."""
        torch.default_generator.manual_seed(seed)
        if self.accelerator.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _check(self, value: float, what: str, batch: Batch) -> None:
        if math.isfinite(value):
            return
        ids = [self.plan.train.ids[i] for i in batch.indices.tolist()]
        more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
        raise DivergedError(
            f"the {what} is {value}",
            where=f"epoch {self.state.epoch + 1}, step {self.state.step + 1}; images {', '.join(ids[:5])}{more}",
            why="the learning rate is too high, or an image is degenerate; no weight was changed",
            hint=f"--lr {self.plan.lr / 4:.2g}, or --clip-grad 1; earlier checkpoints are kept",
        )

    def _end_of_epoch(self) -> None:
        state, plan = self.state, self.plan
        began = self._elapsed()
        scores = self._choose()
        self.validation_seconds = self._elapsed() - began
        row = {
            "epoch": state.epoch + 1,
            "seconds": round(self._elapsed(), 3),
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "train_loss": state.loss_sum / max(1, state.images),
            **scores,
        }
        state.history.append(row)
        state.epoch, state.step, state.loss_sum, state.images = state.epoch + 1, 0, 0.0, 0
        waited = state.epoch - 1 - state.best_epoch
        patience = plan.config.patience
        late = state.epoch >= plan.epochs or self._elapsed() >= self.deadline
        state.finished = late or (patience is not None and waited >= patience)
        self.observer.epoch(row)
        if not state.finished:
            self.save()
            if self.stop.code:
                self._interrupt()

    def _choose(self) -> dict[str, Any]:
        """Score the raw and the averaged weights on the validation set, and keep the best seen so far."""
        candidates: dict[str, nn.Module] = {"raw": self.raw}
        if self.average is not None:
            candidates["averaged"] = self.average.model
        if self.plan.val is None:
            name, model = list(candidates.items())[-1]
            self.best, self.state.best_epoch = _copied(model), self.state.epoch
            return {"weights": name}
        scored = {name: self.score(model, self.plan.val) for name, model in candidates.items()}
        scored = {name: figures for name, figures in scored.items() if math.isfinite(figures[1])}
        if not scored:
            raise DivergedError(
                "the loss on the validation set is not finite",
                where=f"after epoch {self.state.epoch + 1}",
                why="the learning rate is too high",
                hint=f"--lr {self.plan.lr / 4:.2g}; earlier checkpoints are kept",
            )
        name = max(scored, key=lambda n: (scored[n][0], -scored[n][1]))
        metric, loss = scored[name]
        rank = [metric, -loss]
        if self.state.best is None or rank > self.state.best:
            self.state.best, self.state.best_epoch = rank, self.state.epoch
            self.best = _copied(candidates[name])
        return {f"val_{self.plan.task.metric}": metric, "val_loss": loss, "weights": name}

    @torch.no_grad()
    def score(self, model: nn.Module, data: Decoded) -> tuple[float, float]:
        """(metric, loss) of a network on a decoded set, in the precision of the training."""
        model.eval()
        device = self.accelerator.device
        outputs = []
        with self.accelerator.autocast():
            for start in range(0, len(data), EVALUATION_BATCH):
                if self.stop.code:
                    self._interrupt()
                images = data.images[start : start + EVALUATION_BATCH].to(device)
                images = self.plan.preprocess.tensor(images).contiguous(memory_format=torch.channels_last)
                outputs.append(model(images).float())
        results = self.plan.task.decode(torch.cat(outputs), data.ids)
        metrics = self.plan.task.evaluate(results, data.targets.numpy()).metrics
        return metrics[self.plan.task.metric], metrics["loss"]

    def _interrupt(self) -> None:
        self.save()
        if self.folder is None:
            raise Interrupted("stopped by a signal", exit_code=self.stop.code)
        what = "stopped by a signal; everything is saved"
        raise Interrupted(what, exit_code=self.stop.code, hint=self.how_to_continue())

    def how_to_continue(self) -> str:
        """The command that goes on from here; '' without a folder."""
        return "" if self.folder is None else f"msresnet train --resume --output {shlex.quote(str(self.folder.parent))}"

    def save(self) -> None:
        """Write a checkpoint, if there is a folder for it."""
        if self.folder is None:
            return
        self.state.elapsed = self._elapsed()
        self.state.averaged_steps = self.average.steps if self.average is not None else 0
        tensors = prefixed(self.raw.state_dict(), "model") | prefixed(self.best, "best")
        tensors |= prefixed(optimizer_tensors(self.optimizer), "optimizer")
        if self.average is not None:
            tensors |= prefixed(self.average.model.state_dict(), "average")
        save_checkpoint(self.folder, tensors, asdict(self.state) | {"data": self.fingerprint})

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any], where: str) -> None:
        """Continue from a checkpoint. Raises ModelError for one of another network or of other data."""
        if state.pop("data", None) != self.fingerprint:
            raise ModelError("the training data is not what the run began with", where=where, hint="start a new run")
        try:
            self.raw.load_state_dict(section(tensors, "model"))
            self.best = section(tensors, "best")
            moments = section(tensors, "optimizer")
            if not moments:
                raise ValueError("it lacks the optimiser's state")
            load_optimizer_tensors(self.optimizer, moments)
            if self.average is not None:
                self.average.model.load_state_dict(section(tensors, "average"))
                self.average.steps = int(state["averaged_steps"])
            self.state = State(**state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError("the checkpoint does not fit the run", where=where, why=str(error)[:300]) from error


def _accelerator(plan: Plan) -> Accelerator:
    # accelerate keeps its choices for the whole process; another fit in the same process may choose otherwise.
    for shared in (AcceleratorState, GradientState, PartialState):
        shared._reset_state()
    if plan.device.type == "cuda":
        torch.cuda.set_device(plan.device)
    mixed = "bf16" if plan.precision == "bf16" else "no"
    return Accelerator(mixed_precision=mixed, cpu=plan.device.type == "cpu")


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

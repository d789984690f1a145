"""The training loop.

All that is random is a pure function of seed, epoch, step and, for dropout, the process, so a run that was stopped
anywhere goes on as if it had not been. Any number of processes may go on with it; docs/scaling.md says what changes.

B batch, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

import copy
import math
import shlex
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msresnet.data.sample import Batch
from msresnet.data.sets import Decoded, Samples
from msresnet.errors import DivergedError, Interrupted, ModelError
from msresnet.hub import WEIGHTS
from msresnet.models.base import ImageModel
from msresnet.nn.synchronised import synchronise
from msresnet.run_folder import resume_hint
from msresnet.runtime import StopRequest
from msresnet.train.checkpoint import checkpoints, prefixed, save_checkpoint, section
from msresnet.train.clock import Clock
from msresnet.train.cuda_graphs import Recorded
from msresnet.train.inputs import Given, Inputs
from msresnet.train.layers import freeze, last_layers, stages_in_words
from msresnet.train.objective import Objective, open_teacher
from msresnet.train.observer import Observer
from msresnet.train.optimiser import (
    AveragedWeights,
    Pace,
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    pace,
    set_pace,
    total_norm,
)
from msresnet.train.plan import Plan
from msresnet.train.processes import Processes
from msresnet.train.scoring import score
from msresnet.train.selection import Selection
from msresnet.train.sharding import load_whole, shard, whole, whole_state
from msresnet.train.state import State
from msresnet.train.taken import begin_from, ways_out

WARMUP = 0.1
CYCLED = 0.95
"""Where one-cycle leaves the momentum."""
FINISHING_RATE = 0.1
"""The last part's highest learning rate, as a share of the training's."""


class Trainer:
    """A plan in motion.

    Args:
        plan: what to do.
        folder: where checkpoints go; None keeps everything in memory.
        observer: who watches.
        stop: asked after each step; training then saves and raises Interrupted.
    """

    def __init__(self, plan: Plan, folder: Path | None, observer: Observer, stop: StopRequest) -> None:
        self.plan, self.folder, self.observer = plan, folder, observer
        self.state = State(lr=plan.lr, batch=plan.batch)
        torch.manual_seed(plan.config.seed)
        self.processes = Processes(plan.device, plan.precision)
        self.sharded = plan.config.shard and self.processes.world > 1
        self.network, self.viewer, self.frozen_norms = self._network()
        self.optimizer = build_optimizer(self.network, plan.config, plan.lr, plan.weight_decay)
        self.average = AveragedWeights(self.network, plan.config.ema) if plan.config.ema else None
        self.failures: list[str] = []
        self.model: nn.Module = self._wrapped()
        self.trainable = self._trainable()
        self.objective = self._objective()
        self.selection = Selection(plan.train.targets, plan.config)
        self.best: dict[str, Tensor] = _copied(self.viewer)
        self.clock = Clock(plan, self.processes, stop)
        teacher = self.objective.teacher
        self.inputs = Inputs(plan, self.processes, self.clock, self.selection, self.viewer, teacher=teacher)

    def _network(self) -> tuple[ImageModel, ImageModel, list[nn.Module]]:
        """The network on its device, a whole one to look at other weights through, and the BN that stay still."""
        plan = self.plan
        # What is continued has its weights in the checkpoint.
        continued = plan.config.resume and self.folder is not None and bool(checkpoints(self.folder))
        weights = False if continued else plan.pretrained
        with ways_out(plan.origin):
            model = begin_from(weights, plan.origin, plan.task, plan.model, plan.arguments)
        if plan.start is not None:
            model.load_state_dict(plan.start)
        if plan.sync_bn:
            synchronise(model)
        still = freeze(model, plan.config.freeze) if plan.config.freeze else []
        model = model.to(self.processes.device)
        viewer = copy.deepcopy(model).requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.sharded:  # in torch's own order, the only one that can be divided
            shard(model, self.processes.device, self.processes.world)
        else:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model, viewer, still

    def _wrapped(self) -> nn.Module:
        """The network as training calls it: recorded, its gradients shared, or compiled if that was asked."""
        if self.plan.cuda_graphs:
            return Recorded(self.network)
        model = self.network if self.sharded else self.processes.wrapped(self.network)
        return torch.compile(model) if self.plan.config.compile else model  # type: ignore[return-value]

    def _trainable(self) -> list[nn.Parameter]:
        """The parameters that learn, listed once: walking through a small network takes as long as its optimiser."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def _objective(self) -> Objective:
        plan = self.plan
        if plan.config.teacher is None:
            return Objective(plan.task, plan.preprocess)
        teacher = open_teacher(plan.config.teacher, plan.task, plan.preprocess, self.processes.device)
        return Objective(plan.task, plan.preprocess, teacher, plan.config.teacher_share, plan.config.temperature)

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Digests of what training learns from and of what chooses the model; only checkpoints need them."""
        return {name: data.fingerprint() for name, data in self.plan.sets.items() if name != "test"}

    @property
    def _in_memory(self) -> bool:
        """Whether unreadable images were left out of the sets at once; others take their place where they are not."""
        return isinstance(self.plan.train, Decoded)

    def run(self) -> None:
        """Train to the end of the plan. Raises DivergedError, Interrupted, ResourceError, PeerLostError."""
        self.clock.start(self.state.elapsed)
        while not self.state.finished:
            self._epoch()
            self._end_of_epoch()
        self.clock.agree(0.0)
        self._stop_if_asked()

    @property
    def progress(self) -> float:
        """Share of the training that is done."""
        return self.clock.progress(self.state)

    def _epoch(self) -> None:
        state = self.state
        self._train_mode()
        for given in self.inputs.epoch(state):
            step = given.step
            if state.images and self.clock.late(state):
                return
            if step.moment.finishing and not state.finishing:
                self._begin_finishing()
            now = self._pace()
            set_pace(self.optimizer, state.lr, now)
            state.rate = state.lr * now.factor
            loss = self.update(given)
            state.loss_sum += loss * step.count
            state.images += step.count
            state.seen += step.count
            state.operations += self.inputs.operations(step)
            state.position += step.count
            state.step += 1
            self.clock.stepped(state)
            left = (state.length - state.position) // step.moment.batch
            self.observer.step(state.epoch, state.step, state.step + left, loss)
            self._stop_if_asked()

    @property
    def made_of(self) -> list[str]:
        """Whose answers are learnt beside the labels, and what does not learn, in words."""
        config, teacher, notes = self.plan.config, self.objective.teacher, list[str]()
        if teacher is not None:
            size = "x".join(map(str, teacher.preprocess.size))
            share = f"{config.teacher_share:g} of the loss"
            notes.append(f"teacher {config.teacher}: {teacher.architecture}, {size} pixels, {share}")
        if config.freeze:
            learning = sum(parameter.numel() for parameter in self.trainable)
            total = f"{self.plan.parameters:,} parameters"
            notes.append(f"frozen: {stages_in_words(config.freeze)}; {learning:,} of {total} learn")
        return notes

    @property
    def met(self) -> list[str]:
        """What came up on the way, in words."""
        failure = self.model.failure if isinstance(self.model, Recorded) else ""
        failures = dict.fromkeys([*self.failures, failure])
        return [f"not all steps were recorded as CUDA graphs: {text}" for text in failures if text]

    def _train_mode(self) -> None:
        self.model.train()
        for norm in self.frozen_norms:
            norm.eval()

    def _pace(self) -> Pace:
        config, finish, done = self.plan.config, self.plan.config.finish, self.progress
        if self.state.finishing:
            part = min(1.0, max(0.0, (done - 1 + finish) / finish))
            momentum = CYCLED if config.schedule == "one-cycle" else None
            return Pace(FINISHING_RATE * pace("cosine", part, 0.0).factor, momentum)
        warmup = WARMUP if config.warmup is None else config.warmup
        return pace(config.schedule, min(1.0, done / (1 - finish)), warmup)

    def update(self, given: Given) -> float:
        """One step at the learning rate that is set; returns the loss. Raises DivergedError before changing weights."""
        self._seed_layers(given.step.seed + self.processes.rank)
        pixels = self.plan.preprocess.normalise(given.images).contiguous(memory_format=torch.channels_last)
        with self.processes.autocast():
            answers = [outputs.float() for outputs in self.model(pixels, exits=True)]
        loss = self.objective(answers, given.images, given.targets) * given.step.weight
        for parameter in self.trainable:
            parameter.grad = None
        loss.backward()
        gradients = [parameter.grad for parameter in self.trainable if parameter.grad is not None]
        norm = whole(total_norm(gradients))
        mine, length = torch.stack((loss.detach(), norm)).tolist()  # one wait for the device instead of two
        losses = self.clock.agree(mine)
        value = sum(losses) / len(losses)
        self._check(value, "loss", given.batch)
        self._check(length, "gradient", given.batch)
        if self.plan.config.skip_easy:
            self.selection.learnt(given.batch.indices, self.objective.of_each(answers, given.targets))
        if self.plan.config.clip_grad is not None:
            nn.utils.clip_grads_with_norm_(self.trainable, self.plan.config.clip_grad, norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        return value

    def _seed_layers(self, seed: int) -> None:
        """Decide dropout and stochastic depth. torch.manual_seed would cost half a millisecond where no GPU is."""
        torch.default_generator.manual_seed(seed)
        if self.processes.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _begin_finishing(self) -> None:
        """From now on, only the classifier and normalisation learn."""
        self.state.finishing = True
        learning = last_layers(self.network)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name in learning)
            parameter.grad = None
        if isinstance(self.model, Recorded):
            self.failures.append(self.model.failure)
        self.model = self.network  # what was recorded goes before more is
        self.model, self.trainable = self._wrapped(), self._trainable()
        self._train_mode()

    def _check(self, value: float, what: str, batch: Batch) -> None:
        if math.isfinite(value):
            return
        ids = [self.plan.train.ids[i] for i in batch.indices.tolist()]
        more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
        raise DivergedError(
            f"the {what} is {value}",
            where=f"epoch {self.state.epoch + 1}, step {self.state.step + 1}; images {', '.join(ids[:5])}{more}",
            why="the learning rate is too high, or an image is degenerate; no weight was changed",
            hint=f"--lr {self.state.lr / 4:.2g}, or --clip-grad 1; earlier checkpoints are kept",
        )

    def _end_of_epoch(self) -> None:
        state, plan = self.state, self.plan
        last = state.epoch + 1 >= plan.epochs or self.clock.late(state)
        began = time.monotonic()
        scores = self._choose() if last or (state.epoch + 1) % plan.config.validate_every == 0 else {}
        if scores:
            self.clock.validated(time.monotonic() - began)
        self.clock.agree(0.0)
        row = {
            "epoch": state.epoch + 1,
            "seconds": round(self.clock.elapsed, 3),
            "lr": state.rate,
            "train_loss": state.loss_sum / max(1, state.images),
            **({} if plan.config.operations is None else {"operations": state.operations}),
            **scores,
        }
        state.history.append(row)
        state.epoch, state.step, state.position, state.loss_sum, state.images = state.epoch + 1, 0, 0, 0.0, 0
        waited = state.epoch - 1 - state.best_epoch
        patience = plan.config.patience
        late = state.epoch >= plan.epochs or self.clock.late(state)
        state.finished = bool(scores) and (late or (patience is not None and waited >= patience))
        self.save()  # before anybody is told, so that who fails then costs no epoch
        self.processes.on_main(lambda: self.observer.epoch(row))
        if not state.finished:
            self._stop_if_asked()

    def _choose(self) -> dict[str, Any]:
        """Score the raw and the averaged weights on the validation set, and keep the best seen so far."""
        if not self.plan.sync_bn:
            self.processes.share_buffers(self.network)
        if self.plan.val is None:
            name, model = list(self._candidates())[-1]
            self.best, self.state.best_epoch = _copied(model), self.state.epoch
            return {"weights": name}
        scored: dict[str, list[float]] = {}
        for name, model in self._candidates():
            metric, loss = self.score(model, self.plan.val)
            if not math.isfinite(loss):
                continue
            scored[name] = [metric, -loss]
            if self.state.best is None or scored[name] > self.state.best:
                self.state.best, self.state.best_epoch = scored[name], self.state.epoch
                self.best = _copied(model)
        if not scored:
            raise DivergedError(
                "the loss on the validation set is not finite",
                where=f"after epoch {self.state.epoch + 1}",
                why="the learning rate is too high",
                hint=f"--lr {self.state.lr / 4:.2g}; earlier checkpoints are kept",
            )
        name = max(scored, key=lambda n: scored[n])
        return {f"val_{self.plan.chosen_by}": scored[name][0], "val_loss": -scored[name][1], "weights": name}

    def _candidates(self) -> Iterator[tuple[str, nn.Module]]:
        """The weights that could be the best, each in a whole network; one at a time, since the viewer is shared."""
        if self.sharded:
            self.viewer.load_state_dict(whole_state(self.network.state_dict()))
        yield "raw", self.viewer if self.sharded else self.network
        if self.average is not None:
            self.viewer.load_state_dict(whole_state(self.average.state))
            if not self.plan.sync_bn:
                self.processes.share_buffers(self.viewer)
            yield "averaged", self.viewer

    def score(self, model: nn.Module, data: Samples) -> tuple[float, float]:
        """(the figure that chooses, loss) of a network on a set."""
        return score(model, data, self.plan, self.processes, self._stop_alone)

    def _stop_alone(self) -> None:
        """Stop within a validation; of several processes all go on to its end."""
        if self.processes.world == 1:
            self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        code = self.clock.code
        if not code:
            return
        self.save()
        if self.folder is None:
            raise Interrupted("stopped by a signal", exit_code=code)
        what, best = "stopped by a signal; everything is saved", self.state.best_epoch
        if best >= 0:
            what += f", and the model of epoch {best + 1}, the best so far, can be used"
        raise Interrupted(what, exit_code=code, hint=self.how_to_continue())

    def how_to_continue(self) -> str:
        """The command that goes on from here; '' without a folder."""
        return "" if self.folder is None else resume_hint(self.folder.parent)

    def save(self) -> None:
        """Write a checkpoint, if there is a folder for it. Raises ResourceError, on all processes."""
        if self.folder is None:
            return
        folder = self.folder
        self.state.elapsed = self.clock.elapsed
        self.state.averaged_steps = self.average.steps if self.average is not None else 0
        tensors = prefixed(whole_state(self.network.state_dict()), "model") | prefixed(self.best, "best")
        tensors |= prefixed(optimizer_tensors(self.optimizer), "optimizer")
        if self.average is not None:
            tensors |= prefixed(whole_state(self.average.state), "average")
        tensors |= prefixed(self.selection.tensors(), "selection")
        state = asdict(self.state) | {"data": self.fingerprint, "in_memory": self._in_memory}
        self.processes.on_main(lambda: save_checkpoint(folder, tensors, state))

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any], where: str) -> None:
        """Continue from a checkpoint. Raises ModelError for one of another network or of other data."""
        before, in_memory = state.pop("data", None), state.pop("in_memory", self._in_memory)
        if before != self.fingerprint:
            what, why, hint = "the training data is not what the run began with", "", "start a new run"
            if self.folder is not None and (self.folder.parent / WEIGHTS).is_file():
                hint += f", from the best of this one: --weights {shlex.quote(str(self.folder.parent))}"
            if in_memory != self._in_memory:
                why = f"its images were {'' if in_memory else 'not '}kept in memory, where unreadable ones do not count"
                hint = f"--cache {'ram' if in_memory else 'none'} as before; where that does not help, {hint}"
            raise ModelError(what, where=where, why=why, hint=hint)
        try:
            load_whole(self.network, section(tensors, "model"))
            self.best = section(tensors, "best")
            moments = section(tensors, "optimizer")
            if not moments:
                raise ValueError("it lacks the optimiser's state")
            load_optimizer_tensors(self.optimizer, moments)
            self.selection.load(section(tensors, "selection"))
            if self.average is not None:
                self.average.load(section(tensors, "average"))
                self.average.steps = int(state["averaged_steps"])
            self.state = State(**state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError("the checkpoint does not fit the run", where=where, why=str(error)[:300]) from error
        self.clock.start(self.state.elapsed)
        if self.state.finishing:
            self._begin_finishing()


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

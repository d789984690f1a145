"""One call from a configuration to a trained bundle, with or without a run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.data.loaders import Opener
from msresnet.data.sets import FINGERPRINTED, Samples
from msresnet.data.splits import Splits, open_data, seen_from
from msresnet.errors import Interrupted, UsageError
from msresnet.files import as_yaml, disk_errors, read_yaml, sweep, write_json, write_text
from msresnet.hub import CARD, CONFIG, WEIGHTS
from msresnet.models.base import ImageModel
from msresnet.models.cost import count_macs
from msresnet.models.factory import create_network
from msresnet.rows import csv_text
from msresnet.run_folder import (
    CHECKPOINTS,
    ENVIRONMENT,
    HISTORY,
    LEARNT,
    METRICS,
    PREDICTIONS,
    REPORT,
    SETTINGS,
    UNMEASURED,
)
from msresnet.runtime import StopRequest, environment, stop_on_signals
from msresnet.train.checkpoint import checkpoints, newest_checkpoint
from msresnet.train.config import TrainConfig
from msresnet.train.loop import Trainer
from msresnet.train.observer import Observer, Silent
from msresnet.train.plan import Plan, closing_notes, make_plan, with_batch
from msresnet.train.processes import peers_named, world_size
from msresnet.train.sweep import Sweep, find_batch, find_lr
from msresnet.train.taken import FILE as ORIGIN
from msresnet.train.taken import keep, kept
from msresnet.train.tracker import Tracked, tracker_names

ANEW = "a new run, or --data FOLDER where the run is only measured"
SWEEP = "sweep-{}.csv"
SWEEPS = [SWEEP.format(name) for name in ("lr", "batch_size")]
PRODUCTS = (
    WEIGHTS,
    CONFIG,
    CARD,
    METRICS,
    PREDICTIONS,
    REPORT,
    HISTORY,
    ORIGIN,
    *SWEEPS,
    *(name.replace(".csv", ".png") for name in SWEEPS),
)
"""What a run leaves and a new one in its folder takes away first, so that nothing there is of another model."""
PLACES = ("data", "val_data", "test_data")
FREE_ON_RESUME = (
    *PLACES, "resume", "exist_ok", "output", "workers", "cache", "device", "devices", "cuda_graphs", "tracker",
)  # fmt: skip
"""Settings that do not change what a continued run computes; that data elsewhere are the same, checkpoints know."""


@dataclass(frozen=True)
class Fitted:
    """What a training leaves.

    Args:
        bundle: the best network, in evaluation mode on the CPU.
        sets: the decoded sets it came from; the test set was not used.
        history: one row for each epoch.
        sweeps: what 'auto' settings found, if the run began now.
        cost: train_seconds, images_per_second, params, macs.
        notes: what was inferred and met; `late` is what was met on the way.
        folder: the run's folder, if it has one.
        interrupted: whether an interrupt ended it after some of its epochs.
    """

    bundle: Bundle
    sets: dict[str, Samples]
    history: list[dict[str, Any]]
    cost: dict[str, Any]
    notes: list[str]
    late: list[str]
    folder: Path | None = None
    sweeps: tuple[Sweep, ...] = ()
    interrupted: bool = False


def fit(
    config: TrainConfig,
    splits: Splits | None = None,
    folder: Path | None = None,
    observer: Observer | None = None,
    announce: Callable[[list[str]], None] = lambda notes: None,
    *,
    start: Mapping[str, Tensor] | None = None,
    opener: Opener | None = None,
    interruptible: bool = False,
) -> Fitted:
    """Train what a configuration says.

    Args:
        config: everything a user can say.
        splits: the data; None opens `config.data`.
        folder: the run's folder, whose lock the caller holds; None writes nothing and leaves signals alone.
        observer: who watches.
        announce: takes the notes on what was inferred, before the first step.
        start: the state dict to begin with, of the network that the configuration says.
        opener: has the sets of an earlier training of the same data, which are not decoded again.
        interruptible: where a KeyboardInterrupt comes once there is a best network, training ends with that.

    Raises any MsresnetError.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(peers_named(world_size()))
        trackers = tracker_names(config.tracker) if config.tracker is not None else []
        splits = splits or open_data(config.data, config)
        origin = kept(folder) if config.resume and folder is not None else None
        plan = replace(make_plan(config, splits, origin, opener), start=start)
        saved = _saved(folder) if config.resume and folder is not None else None
        plan, sweeps = _settled(plan, saved)
        # Until here, and without a folder for ever, there is nothing to save, so a signal may kill.
        stop = stack.enter_context(stop_on_signals()) if folder is not None else StopRequest()
        checkpoint_folder = folder / CHECKPOINTS if folder is not None else None
        trainer = Trainer(plan, checkpoint_folder, Silent(), stop)
        stack.callback(trainer.processes.close)
        tracked = None
        if trainer.processes.first:
            trainer.observer = _Recorder(folder, observer or Silent(), trainer)
            if trackers:
                tracked = Tracked(trainer.observer, trackers, folder or Path("runs"), asdict(config))
                stack.callback(tracked.close)
                trainer.observer = tracked
        notes = [*plan.notes, *closing_notes(plan), *trainer.made_of]
        if folder is not None:
            begin = None if config.resume else lambda: _begin(plan, config, folder, sweeps)
            notes += _resume(trainer, saved, folder) if begin is None else trainer.processes.on_main(begin) or []
        trainer.processes.on_main(lambda: announce(notes))
        interrupted = not _ran(trainer, interruptible)
        bundle = _bundle(plan, trainer)
        if folder is not None:
            trainer.processes.on_main(lambda: bundle.save(folder))
        cost = _cost(trainer, bundle)
    if stop.code:  # it came after the last step
        hint = trainer.how_to_continue()
        raise Interrupted(UNMEASURED, exit_code=stop.code, hint=hint)
    late = [*_met(plan), *trainer.met, *([] if tracked is None else tracked.met)]
    history, found = trainer.state.history, tuple(sweeps)
    return Fitted(bundle, plan.sets, history, cost, [*notes, *late], late, folder, found, interrupted)


def _ran(trainer: Trainer, interruptible: bool) -> bool:
    """Train; whether that went on to its end. Raises KeyboardInterrupt unless it may end with the best so far."""
    try:
        trainer.run()
    except KeyboardInterrupt:
        if not interruptible or not any("weights" in row for row in trainer.state.history):
            raise
        return False
    return True


def _met(plan: Plan) -> list[str]:
    """What came up while sets were read that are decoded when they are asked for."""
    lines = []
    for name, data in plan.sets.items():
        known = f"{len(data.bad)} unreadable images of the {name} set were skipped"
        lines += [known] if data.bad and known not in plan.notes else []
        lines += [f"{name} set: {note}" for note in data.notes]
    return lines


@dataclass(frozen=True)
class _Saved:
    """What is in the newest whole checkpoint, and what was wrong with newer ones."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]
    problems: list[str]


def _saved(folder: Path) -> _Saved | None:
    """The newest checkpoint of a run, None before its first. Raises ModelError where there are only damaged ones."""
    if not checkpoints(folder / CHECKPOINTS):
        return None
    return _Saved(*newest_checkpoint(folder / CHECKPOINTS))


def _settled(plan: Plan, saved: _Saved | None) -> tuple[Plan, list[Sweep]]:
    """The plan with what 'auto' stands for: what the run found when it began, else what sweeps find now."""
    if saved is not None:
        return with_batch(plan, int(saved.state.get("batch", 0)) or plan.batch, saved.state.get("lr")), []
    sweeps, began = [], time.monotonic()
    if plan.config.batch_size == "auto":
        sweeps.append(find_batch(plan))
        plan = with_batch(plan, int(sweeps[-1].chosen))
    if plan.config.lr == "auto":
        sweeps.append(find_lr(plan))
        plan = with_batch(plan, plan.batch, sweeps[-1].chosen)
    plan = replace(plan, limit=max(plan.limit / 2, plan.limit - (time.monotonic() - began)))  # sweeps count as training
    notes = [f"{sweep.name.replace('_', ' ')} {sweep.chosen:g}: {sweep.reason}" for sweep in sweeps]
    return replace(plan, notes=[*plan.notes, *notes]), sweeps


def _begin(plan: Plan, config: TrainConfig, folder: Path, sweeps: list[Sweep]) -> list[str]:
    """Make a folder ready for a new run."""
    learnt = {"images": len(plan.train), "digests": plan.train.digests(FINGERPRINTED)}
    with disk_errors(folder):
        sweep(folder)
        sweep(folder / CHECKPOINTS)
        for old in (*checkpoints(folder / CHECKPOINTS), *(folder / name for name in PRODUCTS)):
            old.unlink(missing_ok=True)
    write_text(folder / SETTINGS, to_yaml(replace(config, resume=False, exist_ok=False)))
    write_json(folder / ENVIRONMENT, environment() | {"folder": str(Path.cwd())})
    write_json(folder / LEARNT, learnt)
    if plan.origin is not None:
        keep(plan.origin, folder)
    for found in sweeps:
        rows = [{found.name: value, found.measure: measured} for value, measured in found.rows]
        write_text(folder / SWEEP.format(found.name), table(rows))
    return []


def _resume(trainer: Trainer, saved: _Saved | None, folder: Path) -> list[str]:
    """Put a trainer where the run was left, and say where that is."""

    def clean() -> None:
        with disk_errors(folder):
            sweep(folder)
            sweep(folder / CHECKPOINTS)

    trainer.processes.on_main(clean)
    if saved is None:
        return ["the run ended before its first checkpoint: starting from the beginning"]
    trainer.restore(saved.tensors, saved.state, str(folder / CHECKPOINTS))
    trainer.processes.on_main(lambda: _keep_places(trainer.plan.config, folder))

    def record() -> None:
        """A run that was killed between a checkpoint and its line of the history, or goes back, has other lines."""
        if trainer.state.history:
            write_text(folder / HISTORY, table(trainer.state.history))

    trainer.processes.on_main(record)
    notes = [f"{problem}; an older checkpoint is used" for problem in saved.problems]
    return [*notes, f"continuing after epoch {trainer.state.epoch}, step {trainer.state.step}"]


def _keep_places(config: TrainConfig, folder: Path) -> None:
    """Note where a run's data lie now, if they were named anew, so that it finds them when it is measured again."""
    before = from_yaml(folder / SETTINGS)
    given = {name: getattr(config, name) for name in PLACES}
    named = [
        spec for name, spec in given.items() if spec and seen_from(folder.resolve(), before.get(name) or "") != spec
    ]
    if named:
        here = {name: str(Path(s).absolute()) if s in named and Path(s).exists() else s for name, s in given.items()}
        write_text(folder / SETTINGS, to_yaml(TrainConfig(**(before | here))))


class _Recorder:
    """Writes history.csv after each epoch, and the model of the best one so far; passes everything on."""

    def __init__(self, folder: Path | None, observer: Observer, trainer: Trainer) -> None:
        self.folder, self.observer, self.trainer = folder, observer, trainer

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Pass it on."""
        self.observer.step(epoch, step, steps, loss)

    def epoch(self, row: dict[str, Any]) -> None:
        """Write the rows so far, then pass the new one on."""
        if self.folder is not None:
            write_text(self.folder / HISTORY, table(self.trainer.state.history))
            if self.trainer.state.best_epoch == row["epoch"] - 1:
                _best_so_far(self.trainer).save(self.folder)
        self.observer.epoch(row)


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV text; what a row lacks, as an epoch without validation does, is left empty."""
    names = dict.fromkeys(name for row in rows for name in row)
    return csv_text([names, *([row.get(name) for name in names] for row in rows)])


def _best_so_far(trainer: Trainer) -> Bundle:
    """The best model of a training that goes on, to be written only."""
    plan = trainer.plan
    with torch.device("meta"):  # weights that are replaced at once would take longer to make than a small file to write
        model = create_network(plan.task.head, plan.model, **plan.arguments)
    model.load_state_dict(trainer.best, assign=True)
    return _with_plan(plan, model)


def _bundle(plan: Plan, trainer: Trainer) -> Bundle:
    model = create_network(plan.task.head, plan.model, **plan.arguments)
    model.load_state_dict(trainer.best)
    return _with_plan(plan, model)


def _with_plan(plan: Plan, model: ImageModel) -> Bundle:
    bundle = Bundle(model.eval(), plan.model, plan.arguments, plan.task, plan.preprocess)
    return bundle if plan.licence is None else replace(bundle, licence=plan.licence)


def _cost(trainer: Trainer, bundle: Bundle) -> dict[str, Any]:
    spent = trainer.state.history[-1]["seconds"] if trainer.state.history else 0.0
    return {
        "train_seconds": round(spent, 3),
        "images_per_second": round(trainer.state.seen / spent, 1) if spent else 0.0,
        "params": sum(p.numel() for p in bundle.model.parameters()),
        "macs": count_macs(bundle.model),
    }


def to_yaml(config: TrainConfig) -> str:
    """A configuration as YAML that `--config` reads."""
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}
    return as_yaml(plain)


def from_yaml(path: Path) -> dict[str, Any]:
    """The settings that a run was started with. Raises UsageError when they cannot be read."""
    try:
        values = read_yaml(path)
    except OSError as error:
        why = error.strerror or ""
        raise UsageError("the run's settings cannot be read", where=str(path), why=why, hint=ANEW) from error
    known = {f.name for f in fields(TrainConfig)}
    if not isinstance(values, dict) or set(values) - known:
        raise UsageError("the run's settings are not ones of this msresnet", where=str(path), hint=ANEW)
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        TrainConfig(**settings)  # type: ignore[arg-type]
    except TypeError as error:
        what = "the run's settings have wrong types"
        raise UsageError(what, where=str(path), why=str(error), hint=ANEW) from error
    return settings


def check_unchanged(before: dict[str, Any], now: TrainConfig, where: str) -> None:
    """Raise UsageError, printing the difference, when a run would be continued with other settings."""
    after = asdict(now)
    changed = [k for k in after if k not in FREE_ON_RESUME and k in before and before[k] != after[k]]
    if changed:
        rows = "; ".join(f"{k}: {before[k]!r} before, {after[k]!r} now" for k in changed)
        what = "a run cannot be continued with other settings"
        hint = f"leave them out, or train on from it: --weights {Path(where).parent}"
        raise UsageError(what, where=where, why=rows, hint=hint)

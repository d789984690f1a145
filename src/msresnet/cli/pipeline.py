"""What `train` and `demo` share: train, measure on images that training never saw, write the run's folder."""

from __future__ import annotations

import os
import shlex
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from msresnet.bundle import Bundle
from msresnet.cli.main import Common
from msresnet.cli.screen import Screen
from msresnet.data.duplicates import copies
from msresnet.data.sets import Samples
from msresnet.errors import HeldError, Interrupted, UsageError
from msresnet.files import check_free, disk_errors, foreign, lock, write_json
from msresnet.infer.answers import write_predictions
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.calibrate import settled
from msresnet.infer.evaluate import evaluate, pick
from msresnet.models.factory import MODELS
from msresnet.report.html import write_report
from msresnet.report.plots import sweep_picture
from msresnet.report.story import Story
from msresnet.results import Evaluation
from msresnet.run_folder import LATEST, LOG, METRICS, PREDICTIONS, REPORT, SETTINGS, UNMEASURED, resume_hint
from msresnet.runtime import choose_device, environment, stop_on_signals
from msresnet.train.config import TrainConfig
from msresnet.train.fit import SWEEP, Fitted, check_unchanged, fit, from_yaml
from msresnet.train.launch import launch, launched, read_devices
from msresnet.train.plan import device_name
from msresnet.train.processes import on_main, rank
from msresnet.train.run_data import check_there, found_from

DIGEST = "data_digest"


@dataclass(frozen=True)
class Finished:
    """A run that ended: its folder, its model, and how good it is."""

    folder: Path
    bundle: Bundle
    evaluation: Evaluation
    data: Samples


def start_processes(config: TrainConfig, common: Common, command: list[str]) -> int | None:
    """Start a process for each of --devices; returns their exit code, or None where this process is to train itself."""
    if config.devices is None or launched():
        return None
    devices = read_devices(config.devices, torch.cuda.device_count())
    switches = [*(["-q"] if common.quiet else []), *(["--debug"] if common.debug else [])]
    return launch([*command, *switches], devices)


def train_run(config: TrainConfig, screen: Screen, words: list[str]) -> Finished | None:
    """Train, measure, report; None on processes beside the first. `words` is the command, for the report."""
    if config.model != "auto":
        MODELS[config.model]
    device, _ = choose_device(device_name(config))
    with ExitStack() as stack:
        folder = on_main(lambda: take(config, stack), device)
        fitted = _train(replace(config, output=str(folder)), folder, screen)
        return _measured(fitted, config, screen, words) if rank() == 0 else None


def _train(config: TrainConfig, folder: Path, screen: Screen) -> Fitted:
    """Train in a folder that is ours."""
    if rank() > 0:
        return fit(config, None, folder)
    screen.note(f"msresnet train → {folder}", "bold")

    def begin(notes: list[str]) -> None:
        # Only now is the folder ours and the run known to be possible: an earlier run loses nothing to a refused one.
        with disk_errors(folder):
            screen.log_to(folder / LOG, fresh=not config.resume)
        try:
            point_latest(folder)
        except OSError as error:
            notes = [*notes, f"{LATEST} does not point here: {error.strerror}"]
        screen.notes(notes)

    try:
        return fit(config, None, folder, screen, begin)
    finally:
        screen.stop()


def _measured(fitted: Fitted, config: TrainConfig, screen: Screen, words: list[str]) -> Finished:
    """`measure`; raises Interrupted on a signal."""
    with stop_on_signals(at_once=True) as stop:
        try:
            return measure(fitted, config, screen, words)
        except KeyboardInterrupt as error:
            assert fitted.folder is not None
            raise Interrupted(UNMEASURED, exit_code=stop.code, hint=resume_hint(fitted.folder)) from error


def measure(fitted: Fitted, config: TrainConfig, screen: Screen, words: list[str]) -> Finished:
    """Evaluate a fitted model once, and write metrics, predictions, the bundle's scores and the report."""
    folder = fitted.folder
    assert folder is not None
    screen.notes(fitted.late)
    bundle, found = settled(fitted.bundle, fitted.sets, partial(predictor_of, device=config.device))
    if found:
        screen.note(f"· boxes are shown from a score of {found['score'][1]:.2f} on: best for the validation set", "dim")
    split, data = pick(fitted.sets, "auto")
    if split != "test":
        screen.note(f"· there is no test set: the figures are of the {split} set, which also chose the model", "yellow")
    screen.note(f"· measuring on the {split} set and writing the report", "dim")
    measured = evaluate(predictor_of(bundle, config.device), data, split)
    digests = {name: decoded.fingerprint() for name, decoded in fitted.sets.items()}
    figures = measured.metrics | fitted.cost | {DIGEST: digests}
    measured = replace(measured, metrics=figures)
    kept = {name: figures[name] for name in bundle.task.kept}
    scores = {split: kept | {"measured_by": "msresnet train", "data": config.data}}
    bundle = bundle.with_scores(scores)
    bundle.save(folder)
    write_json(folder / METRICS, figures)
    write_predictions(folder / PREDICTIONS, bundle.task.rows(measured))
    command = shlex.join(["msresnet", *words])
    shared = split != "train" and copies(fitted.sets, split)
    story = Story(bundle, measured, data, fitted.history, fitted.notes, environment(), command, known=not shared)
    write_report(folder / REPORT, story)
    for sweep in fitted.sweeps:
        picture = (folder / SWEEP.format(sweep.name)).with_suffix(".png")
        sweep_picture(sweep.rows, (sweep.name, sweep.measure), sweep.chosen, picture)
    return Finished(folder, bundle, measured, data)


def headline(evaluation: Evaluation) -> str:
    """The result in one line."""
    return f"{evaluation.metrics['split']} {evaluation.headline}"


def take(config: TrainConfig, stack: ExitStack) -> Path:
    """The folder that a run writes to, its lock held by `stack`.

    Raises UsageError when it is taken, or when there is none to continue, HeldError when another run writes to it.
    """
    if config.resume:
        folder = run_to_continue(config)
    elif config.output is not None:
        folder = _free(Path(config.output), config.exist_ok)
    else:
        return _numbered(config, stack)
    stack.enter_context(lock(folder))
    return folder


def _numbered(config: TrainConfig, stack: ExitStack) -> Path:
    """The first folder that is free of those named after the data, its lock held by `stack`."""
    name = Path(config.data).resolve().stem or "data"
    name += "" if config.model == "auto" else f"-{config.model}"
    folders = (Path("runs") / (name if n == 1 else f"{name}-{n}") for n in range(1, 100_000))
    for folder in (each for each in folders if not foreign(each)):
        with suppress(HeldError):  # by a run that has written nothing yet
            stack.enter_context(lock(folder))
            return folder
    raise UsageError("all numbers are taken", where=f"runs/{name}", hint="--output RUN")


def run_to_continue(config: TrainConfig) -> Path:
    """The folder of the run that is continued. Raises UsageError when there is none."""
    folder = Path(config.output or Path(LATEST).resolve())
    if not (folder / SETTINGS).is_file():
        hint = "msresnet train first, or --output RUN"
        raise UsageError("there is no run to continue", where=str(folder), hint=hint)
    return folder


def _free(folder: Path, exist_ok: bool) -> Path:
    """A folder for a new run. Raises UsageError when it is taken."""
    if (folder / SETTINGS).exists() and not exist_ok:
        hint = "--resume, --exist-ok, or another --output"
        raise UsageError("the folder holds a run already", where=str(folder), hint=hint)
    if not exist_ok:
        check_free(folder, hint="another --output, or --exist-ok")
    return folder


def resumed(config: TrainConfig, explicit: dict[str, object]) -> TrainConfig:
    """The settings of the run that is continued. Raises UsageError when others were given now."""
    folder = run_to_continue(config)
    before = from_yaml(folder / SETTINGS)
    before |= found_from(folder, before)
    if {"device", "devices"} & explicit.keys():  # the machine may be another one
        before |= {"device": "auto", "devices": None}
    now = TrainConfig(**(before | explicit | {"resume": True, "output": str(folder)}))
    check_unchanged(before, now, str(folder / SETTINGS))
    check_there(folder, now)
    return now


def point_latest(folder: Path) -> None:
    """Let runs/latest name a run. Raises OSError."""
    link = Path(LATEST)
    link.parent.mkdir(parents=True, exist_ok=True)
    part = link.with_name(f".latest.{os.getpid()}")
    part.unlink(missing_ok=True)
    try:
        part.symlink_to(os.path.relpath(folder.resolve(), link.parent.resolve()))
        part.replace(link)
    finally:
        part.unlink(missing_ok=True)

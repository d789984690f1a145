"""Experiment trackers beside our own history, through accelerate's adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import tracking

from msresnet.errors import ResourceError, UsageError, nearest
from msresnet.train.observer import Observer

PROJECT = "msresnet"
TRACKERS: dict[str, Callable[[str, Path], Any]] = {
    "tensorboard": lambda name, folder: tracking.TensorBoardTracker("tensorboard", logging_dir=folder),
    "wandb": lambda name, folder: tracking.WandBTracker(PROJECT, name=name, dir=str(folder)),
    "mlflow": lambda name, folder: tracking.MLflowTracker(PROJECT, logging_dir=str(folder / "mlruns"), run_name=name),
    "trackio": lambda name, folder: tracking.TrackioTracker(PROJECT, name=name),
}


def tracker_names(text: str) -> list[str]:
    """The trackers in 'tensorboard,wandb'. Raises UsageError for unknown ones, ResourceError for absent packages."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in TRACKERS:
            hint = nearest(name, TRACKERS) or ", ".join(TRACKERS)
            raise UsageError(f"unknown tracker {name!r}", where="--tracker", hint=hint)
        if find_spec(name) is None:
            raise ResourceError(f"{name} is not installed", where=f"--tracker {text}", hint=f"pip install {name}")
    return names


class Tracked:
    """An observer that passes everything on and reports each epoch to trackers.

    Args:
        observer: who else watches.
        names: of trackers.
        folder: of the run, which gives the run's name there.
        settings: what the run was started with.
    """

    def __init__(self, observer: Observer, names: Sequence[str], folder: Path, settings: dict[str, Any]) -> None:
        self.observer = observer
        self.trackers = [TRACKERS[name](folder.resolve().name, folder) for name in names]
        plain = {key: value for key, value in settings.items() if isinstance(value, str | int | float | bool)}
        for one in self.trackers:
            one.start()
            one.store_init_configuration(plain)

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Pass it on."""
        self.observer.step(epoch, step, steps, loss)

    def epoch(self, row: dict[str, Any]) -> None:
        """Report the figures, then pass the row on."""
        figures = {key: value for key, value in row.items() if isinstance(value, int | float)}
        for one in self.trackers:
            one.log(figures, step=int(row["epoch"]))
        self.observer.epoch(row)

    def close(self) -> None:
        """Let the trackers write what they still hold."""
        for one in self.trackers:
            one.finish()

"""Experiment trackers beside our own history, through accelerate's adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import tracking

from msresnet.errors import ResourceError, UsageError, first_line, nearest
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
    """An observer that passes everything on and reports each epoch to trackers; one that fails on the way ends nothing.

    Args:
        observer: who else watches.
        names: of trackers.
        folder: of the run, which gives the run's name there.
        settings: what the run was started with.

    Attributes:
        failures: the first failure of each tracker that failed, by its name.

    Raises ResourceError for a tracker that cannot be started.
    """

    def __init__(self, observer: Observer, names: Sequence[str], folder: Path, settings: dict[str, Any]) -> None:
        self.observer = observer
        self.trackers: dict[str, Any] = {}
        self.failures: dict[str, str] = {}
        plain = {key: value for key, value in settings.items() if isinstance(value, str | int | float | bool)}
        for name in names:
            try:
                one = self.trackers[name] = TRACKERS[name](folder.resolve().name, folder)
                one.start()
                one.store_init_configuration(plain)
            except Exception as error:  # whatever its library raises
                what, where = f"{name} cannot be started", f"--tracker {','.join(names)}"
                raise ResourceError(what, where=where, why=first_line(error)) from error

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Pass it on."""
        self.observer.step(epoch, step, steps, loss)

    def epoch(self, row: dict[str, Any]) -> None:
        """Pass the row on, then report the figures."""
        self.observer.epoch(row)
        figures = {key: value for key, value in row.items() if isinstance(value, int | float)}
        self._each(lambda one: one.log(figures, step=int(row["epoch"])))

    def close(self) -> None:
        """Let the trackers write what they still hold."""
        self._each(lambda one: one.finish())

    @property
    def met(self) -> list[str]:
        """What came up on the way, in words."""
        return [f"{name} may lack figures: {why}" for name, why in self.failures.items()]

    def _each(self, action: Callable[[Any], object]) -> None:
        for name, one in self.trackers.items():
            try:
                action(one)
            except Exception as error:  # whatever its library raises
                self.failures.setdefault(name, first_line(error))

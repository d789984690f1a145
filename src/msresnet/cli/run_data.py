"""The labelled sets that a model is measured on: those it was trained with, or others that are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from msresnet.data.options import DataOptions
from msresnet.data.sample import Source
from msresnet.data.splits import open_data, read_any
from msresnet.errors import UsageError
from msresnet.train.config import TrainConfig
from msresnet.train.fit import CONFIG, from_yaml


def sets_of(model: str, data: str | None, options: DataOptions) -> tuple[dict[str, Source], list[str]]:
    """The sets to choose from, by split, and what was inferred.

    Args:
        model: a run's folder, or a file in it.
        data: what `--data` names; None is the run's own data, split as in its training.
        options: how data is read.

    Raises UsageError for a model that is no run, without `data`; DataError for data that cannot be read.
    """
    if data is not None:
        return read_any(data, options)
    path = run_of(model) / CONFIG
    if not path.is_file():
        raise UsageError("the model does not say which data it is of", where=str(path.parent), hint="--data FOLDER")
    settings = TrainConfig(**from_yaml(path))
    splits = open_data(settings.data, replace(settings, on_bad=options.on_bad, workers=options.workers))
    return splits.named(), splits.notes


def reading_of(model: str, data: str | None) -> DataOptions:
    """How a verb without such flags reads `sets_of` a model: a run's own data with what the run does about bad images.

    Raises UsageError for a run whose settings cannot be read.
    """
    path = run_of(model) / CONFIG
    if data is not None or not path.is_file():
        return DataOptions()
    return DataOptions(on_bad=TrainConfig(**from_yaml(path)).on_bad)


def run_of(model: str) -> Path:
    """The folder of a model that is named by itself or by a file in it."""
    named = Path(model)
    return named if named.is_dir() else named.parent

"""The data that a model is compressed with: what it was trained on, or what `--data` names, as that model takes it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.data.loaders import Opener
from msresnet.data.options import DataOptions
from msresnet.data.sample import Relabelled, Source
from msresnet.data.sets import Samples
from msresnet.data.splits import Splits, open_data
from msresnet.deploy.compress.config import CompressConfig
from msresnet.errors import DataError, UsageError
from msresnet.run_folder import run_of
from msresnet.train.config import TrainConfig
from msresnet.train.run_data import check_there, of_known, settings_of


@dataclass(frozen=True)
class Data:
    """The sets of a model.

    Args:
        settings: how the model was trained, or would be with this data.
        splits: the sources, their classes in the model's order.
        sets: the same, as the model takes them.
        opener: has these sets for a training.
        notes: what was inferred.
    """

    settings: TrainConfig
    splits: Splits
    sets: dict[str, Samples]
    opener: Opener
    notes: list[str]

    def some(self, split: str, count: int, seed: int) -> Tensor:
        """Indices (M,) of up to `count` images of a set, drawn by a seed."""
        order = torch.randperm(len(self.sets[split]), generator=torch.Generator().manual_seed(seed))
        return order[:count]

    def measured_on(self, split: str) -> str:
        """The set that models are measured on: the test set, else validation. Raises UsageError where it is absent."""
        name = next((n for n in ("test", "val") if n in self.sets), split) if split == "auto" else split
        if name not in self.sets or name == "auto":
            raise UsageError(f"there is no {name if name != 'auto' else 'test'} set", hint="--val-fraction 0.1")
        return name


def open_for(bundle: Bundle, config: CompressConfig) -> Data:
    """The data of a model, or what `--data` names. Raises UsageError for a model without any, DataError, ResourceError.

    Classes are matched by name: all of them have to be the model's.
    """
    settings = _settings(bundle, config)
    splits = open_data(settings.data, settings)
    task = bundle.task
    if config.data is None:
        known, aside = of_known(splits.named(), task.class_names)
        splits = Splits(known["train"], known.get("val"), known.get("test"), [*splits.notes, *aside])
    if splits.train.task != task.name:
        raise DataError(f"the data is for {splits.train.task}, the model for {task.name}", hint="--data OTHER")
    if set(splits.classes) != set(task.class_names):
        why = f"the model knows {', '.join(task.class_names)}; the data has {', '.join(splits.classes)}"
        raise DataError("the data has other classes than the model", where=settings.data, why=why[:300])
    names = task.class_names
    ordered = {role: _in_order(source, names) for role, source in splits.named().items()}
    splits = Splits(ordered["train"], ordered.get("val"), ordered.get("test"), splits.notes)
    opener = Opener()
    sets, held = opener(splits.named(), bundle.preprocess, settings)
    return Data(settings, splits, sets, opener, [*splits.notes, *held])


def _in_order(source: Source, names: tuple[str, ...]) -> Source:
    return source if source.classes == names else Relabelled(source, names)


def _settings(bundle: Bundle, config: CompressConfig) -> TrainConfig:
    """How the model was trained; with `--data`, only how its images were made."""
    prep = bundle.preprocess
    images = {
        "image_size": prep.size,
        "channels": prep.channels,
        "resize": prep.resize,
        "threshold": prep.threshold,
        "binary": prep.binary,
        "mean": prep.mean,
        "std": prep.std,
        "weights": None,
    }
    machine = {"device": config.device, "seed": config.seed}
    if config.data is not None:
        reading = {field.name: getattr(config, field.name) for field in fields(DataOptions)}
        return TrainConfig(data=config.data, **images, **reading, **machine)  # type: ignore[arg-type]
    before = settings_of(config.model)
    check_there(run_of(config.model), before)
    held = {"on_bad": config.on_bad or before.on_bad, "workers": config.workers, "cache": config.cache}
    return replace(before, **images, **machine, **held)  # type: ignore[arg-type]

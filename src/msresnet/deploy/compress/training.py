"""What learns again: a pruned network, and a smaller one that imitates the given model. Both go through `train`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.deploy.compress.config import CompressConfig
from msresnet.deploy.compress.data import Data
from msresnet.deploy.compress.made import Watcher
from msresnet.deploy.compress.pruning import chosen, matters, prunable, without
from msresnet.errors import UsageError
from msresnet.train.config import TrainConfig
from msresnet.train.fit import fit
from msresnet.train.optimiser import default_lr
from msresnet.train.taken import own_arguments

EPOCHS = 10
FINE = 0.25
"""The learning rate of what is trained already, as a share of that of a new model."""
LOOKED_AT = 1024
"""Training images that say which channels matter."""
AFRESH: dict[str, Any] = {
    "recipe": None,
    "output": None,
    "resume": False,
    "exist_ok": False,
    "devices": None,
    "shard": False,
    "tracker": None,
    "weights": None,
    "freeze": 0,
    "layer_decay": 1.0,
    "operations": None,
}
"""Settings of a training that say nothing about another one."""


def distil(bundle: Bundle, data: Data, config: CompressConfig, watcher: Watcher) -> Bundle:
    """A smaller model that has learnt from the data and from the bundle's answers.

    Raises UsageError for a student that cannot be, and what `train` raises.
    """
    settings = _training(data.settings, config, str(config.student), config.student_args)
    settings = replace(settings, lr=config.lr)
    student = _fitted(bundle, settings, data, watcher, None)
    if student.params >= bundle.params:
        watcher.notes(["warning: the student is not smaller than its teacher"])
    return student


def prune(bundle: Bundle, data: Data, config: CompressConfig, watcher: Watcher) -> Bundle:
    """The bundle without the channels that matter least, trained on.

    Raises UsageError for a network that has none to lose, or not as many, and what `train` raises.
    """
    blocks = prunable(bundle)
    looked_at = data.some("train", LOOKED_AT, config.seed)
    scores = matters(bundle, blocks, data.sets["train"], looked_at)
    widths = chosen(bundle, blocks, scores, config.keep)
    smaller = without(bundle, blocks, scores, widths)
    watcher.notes([f"channels judged by {len(looked_at):,} training images", _words(bundle, smaller)])
    settings = _training(data.settings, config, bundle.architecture, own_arguments(smaller.arguments))
    lr = config.lr or FINE * default_lr(settings.optimizer, config.batch_size, smaller.params)
    rates = (float(smaller.arguments.get(name, 0.0)) for name in ("drop_rate", "drop_path_rate"))
    settings = replace(settings, lr=lr, drop_rate=next(rates), drop_path_rate=next(rates))
    fitted = _fitted(bundle, settings, data, watcher, smaller.model.state_dict())
    return replace(fitted, licence=bundle.licence)


def check_possible(bundle: Bundle, config: CompressConfig) -> None:
    """Raise UsageError for what cannot be trained, before any data is read."""
    if config.to == "pruned":
        prunable(bundle)
        size = bundle.arguments.get("img_size", list(bundle.preprocess.size))
        if tuple(size) != tuple(bundle.preprocess.size):
            why = f"made for {size} pixels, given {bundle.preprocess.size}"
            hint = f"train one for --image-size {' '.join(map(str, bundle.preprocess.size))}"
            raise UsageError("--to pruned needs a network of the size of its images", why=why, hint=hint)


def _words(before: Bundle, after: Bundle) -> str:
    inner = after.arguments["inner_widths"]
    shares = (
        f"{after.macs / before.macs:.3f} of the multiply-adds and {after.params / before.params:.3f} of the weights"
    )
    return f"{shares} stay; channels inside the blocks: {', '.join(map(str, inner))}"


def _training(before: TrainConfig, config: CompressConfig, model: str, arguments: tuple[str, ...]) -> TrainConfig:
    """The settings of a training that the given model teaches."""
    epochs = config.epochs or (None if config.time_limit is not None else EPOCHS)
    return replace(
        before,
        **AFRESH,
        model=model,
        model_args=arguments,
        epochs=epochs,
        time_limit=config.time_limit,
        batch_size=config.batch_size,
        teacher=config.model if config.teacher_share else None,
        teacher_share=config.teacher_share,
        temperature=config.temperature,
    )


def _fitted(
    bundle: Bundle, settings: TrainConfig, data: Data, watcher: Watcher, start: Mapping[str, Tensor] | None
) -> Bundle:
    """What such a training leaves."""
    fitted = fit(settings, data.splits, None, watcher, watcher.notes, start=start, opener=data.opener)
    watcher.notes([*fitted.late, *_lost(bundle, fitted.bundle)])
    return replace(fitted.bundle, labels=bundle.labels)


def _lost(before: Bundle, after: Bundle) -> list[str]:
    """What the task had fitted that a newly trained network has not."""
    had, has = before.task.to_dict(), after.task.to_dict()
    changed = [name for name in had if had[name] != has.get(name)]
    return [f"{', '.join(changed)} of the given model is not kept: msresnet evaluate --calibrate"] if changed else []

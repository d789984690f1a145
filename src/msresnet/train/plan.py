"""From what the user said to what will be done: every open choice is made here, once, with its reason in words.

A value that the user set is never changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from msresnet.data.augment import Augment
from msresnet.data.duplicates import leaks
from msresnet.data.loaders import Opener, choose_cache, learn_statistics
from msresnet.data.preprocess import Preprocess, choose
from msresnet.data.sets import Samples
from msresnet.data.splits import Splits
from msresnet.data.unreadable import skipped
from msresnet.errors import DataError, UsageError
from msresnet.files import plain_yaml
from msresnet.models.base import ImageModel
from msresnet.models.described import Description
from msresnet.models.factory import MODELS, create_network
from msresnet.models.pretrained import PUBLISHED
from msresnet.nn.operators import MultiScaleConv2d
from msresnet.nn.stems import stem_for
from msresnet.runtime import Precision, choose_device, choose_precision
from msresnet.tasks.base import Learning, Task
from msresnet.tasks.known import TASKS
from msresnet.tasks.words import title
from msresnet.train.config import TrainConfig, seconds
from msresnet.train.optimiser import DEFAULT_DECAY, default_lr
from msresnet.train.processes import on_main, world_size
from msresnet.train.sizes import Sizes, plan_sizes
from msresnet.train.taken import known_of, known_rows, licence, normalised, with_network, with_normalisation

DEFAULT_BATCH = 128
"""What --batch-size auto begins with."""
FEW_FOR_BN = 32
"""Images of a process below which the statistics of its batches are shared."""
FEWEST_PIXELS = 6
ELSEWHERE = {
    "pretrained": "--weights runs/NAME, published, hf:user/repo or a safetensors file",
    "num_classes": "leave it out: the data says it",
    "in_chans": "leave it out: the data says it, or --channels 3",
    "img_size": "--image-size",
    "name": "--model",
}
"""Arguments of models that have a setting of their own, or none."""
MICRO_SIDE = 32
"""Up to this many pixels a side, the micro network sees all there is to see in a grey image; on a CPU it is far ahead
of msresnet18 in colour too, after the same minutes (docs/decisions.md)."""
ONE_PIXEL = "with maps of one pixel, gradients of strided convolutions in bf16 are wrong on the CPU"


@dataclass(frozen=True)
class Plan:
    """A training run with nothing left open.

    Args:
        sets: the train, val and test sets, as far as they exist.
        chosen_by: the figure of the validation set that chooses the epoch.
        batch: images in a step, over all processes.
        sizes: which image sizes training sees, and when.
        sync_bn: whether batch statistics are those of all processes together.
        cuda_graphs: whether the network's part of a step is recorded and replayed.
        epochs: infinity when only another limit ends it.
        limit: seconds, or infinity.
        notes: every choice in words, for the screen and the log.
        licence: of the weights that training starts from, if any.
        start: the state dict that training starts from, in place of fresh or published weights.
        origin: what is said of the weights that training starts from.
    """

    config: TrainConfig
    task: Task
    model: str
    arguments: dict[str, Any]
    preprocess: Preprocess
    sets: dict[str, Samples]
    chosen_by: str
    device: torch.device
    precision: Precision
    epochs: float
    limit: float
    lr: float
    weight_decay: float
    augment: Augment
    batch: int
    sizes: Sizes
    sync_bn: bool
    cuda_graphs: bool
    parameters: int
    notes: list[str]
    licence: str | None = None
    start: Mapping[str, Tensor] | None = None
    origin: Description | None = None

    @property
    def pretrained(self) -> bool | str:
        """What `create_model` is told about weights."""
        named = self.config.weights
        if self.origin is not None and named != PUBLISHED:
            return self.origin.where
        return named == PUBLISHED or named or False

    @property
    def train(self) -> Samples:
        """What training learns from."""
        return self.sets["train"]

    @property
    def val(self) -> Samples | None:
        """What chooses the model."""
        return self.sets.get("val")


def make_plan(
    config: TrainConfig, splits: Splits, origin: Description | None = None, opener: Opener | None = None
) -> Plan:
    """Decide everything and decode the data.

    `origin` is what is said of the weights that training starts from; None looks there, unless a run goes on. `opener`
    may have the sets already.

    Raises UsageError, DataError, ModelError or ResourceError.
    """
    _check_possible(config, splits)
    kind = TASKS[splits.train.task]
    device, why_device = choose_device(device_name(config))
    graphs = _cuda_graphs(config, device)
    if origin is None and not config.resume:
        origin = known_of(config)
    taken: list[str] = []
    if origin is not None:
        config, taken = with_network(config, origin, kind, splits.train.applied is not None)
    notes = [*splits.notes, f"device {device}: {why_device}", *taken]
    preprocess, reasons = _preprocess(config, splits)
    config, by = with_normalisation(config, origin, preprocess)
    if config.mean:
        preprocess = normalised(preprocess, config)
    how = learning(config)
    kind.check(preprocess, _augment(config, preprocess, kind)[0], how)
    network = _network(config, splits, preprocess, device, notes)
    precision, why_precision = _precision(config, device, network.one_pixel)
    notes += [f"precision {precision}: {why_precision}", *reasons]
    notes += ["CUDA graphs: the network's part of a step is recorded once for each size"] if graphs else []
    owned = None if config.weights is None else licence(config, network.model, origin)
    if owned is not None:
        rows = known_rows(origin, kind.head, splits.classes)
        what = "the classifier is new where its classes differ in number"
        if rows is not None:
            what = f"they know {len(rows) - rows.count(None)} of the {len(rows)} classes by name"
        notes.append(f"weights: {config.weights} (licence {owned}); {what}; pixels are normalised {by}")
        origin = None if origin is None else replace(origin, licence=owned)
    # The test set is only decoded here, not used: that it cannot be read is better known before hours of training.
    sets, held = _opened(splits, preprocess, config, device, opener or Opener())
    notes += [*held, *leaks(sets)]
    notes += [note for name, data in sets.items() for note in skipped(name, len(data.bad))]
    if len(sets["train"]) < 2:
        raise DataError("one image is not enough to learn from", why="batch normalisation needs two at least")
    chosen_by = kind.chosen_by(how)
    if chosen_by != kind.metric and splits.val is not None:
        why = f"--balance {config.balance} lets classes count alike"
        notes.append(f"the epoch is chosen by {title(chosen_by)}: {why}")
    preprocess = preprocess if config.mean else learn_statistics(preprocess, sets["train"])
    augment, why_augment = _augment(config, preprocess, kind)
    decay = config.weight_decay if config.weight_decay is not None else DEFAULT_DECAY[config.optimizer]
    notes += [f"preprocess: {preprocess.describe()}", f"augment: {why_augment}"]
    limit = seconds(config.time_limit) if config.time_limit is not None else math.inf
    task = kind.learning(splits.classes, sets["train"], how._replace(strides=network.strides))
    batch = DEFAULT_BATCH if config.batch_size == "auto" else config.batch_size
    plan = Plan(
        config=config, task=task, model=network.model, arguments=network.arguments, preprocess=preprocess, sets=sets,
        chosen_by=chosen_by, device=device, precision=precision, epochs=config.passes, limit=limit, lr=0.0,
        weight_decay=decay, augment=augment, batch=batch, sizes=plan_sizes(config, preprocess.size, batch),
        sync_bn=False, cuda_graphs=graphs, parameters=network.parameters, notes=notes, licence=owned, origin=origin,
    )  # fmt: skip
    return with_batch(plan, batch)


def learning(config: TrainConfig) -> Learning:
    """What a configuration says about how a task learns; only a network knows its strides."""
    return Learning(config.label_smoothing, config.balance == "loss", config.balance == "sample", config.dice)


def _check_possible(config: TrainConfig, splits: Splits) -> None:
    """Raise UsageError for settings that this data, or several processes, leave no sense."""
    if config.patience is not None and splits.val is None:
        why = "patience waits for a better validation score"
        raise UsageError("--patience, but there is no validation set", why=why, hint="--val-fraction 0.1 or --val-data")
    if config.freeze and config.weights is None and not config.resume:  # what goes on has its weights
        hint = "--weights published, runs/NAME, hf:user/repo or a safetensors file"
        raise UsageError("--freeze, but there are no --weights", why="what is frozen would stay random", hint=hint)
    if config.skip_easy and world_size() > 1:
        why = "each process knows the losses of its own images alone"
        raise UsageError("--skip-easy, but there are several processes", why=why, hint="leave it out")


class _Network(NamedTuple):
    """The network that will be trained, as far as a plan must know it.

    Args:
        strides: see `ImageModel`.
        one_pixel: whether a strided convolution meets a map of one pixel a side, at a size that training sees.
    """

    model: str
    arguments: dict[str, Any]
    parameters: int
    strides: tuple[int, ...]
    one_pixel: bool


def _network(
    config: TrainConfig, splits: Splits, preprocess: Preprocess, device: torch.device, notes: list[str]
) -> _Network:
    """Choose the network. Raises UsageError for an impossible one, and for a size that it cannot take."""
    kind = TASKS[splits.train.task]
    model = _model(config, preprocess, device, notes)
    arguments = _arguments(config, preprocess, len(splits.classes))
    for name, value in kind.suggested(splits.train).items():
        if name not in arguments:
            arguments[name] = value
            notes.append(f"{name} {value}: the data says which objects are the same")
    with torch.device("meta"):  # an impossible network is refused before the data is read; no memory is taken
        network = create_network(kind.head, model, **arguments)
    parameters = sum(p.numel() for p in network.parameters())
    shown = {moment.size for moment in plan_sizes(config, preprocess.size, 2).moments} | {preprocess.size}
    one_pixel = [_strides_over_one_pixel(network, replace(preprocess, size=size)) for size in sorted(shown)]
    return _Network(model, arguments, parameters, network.strides, any(one_pixel))


def _precision(config: TrainConfig, device: torch.device, one_pixel: bool) -> tuple[Precision, str]:
    """The precision, and why. Raises UsageError where the one that was asked for gives wrong gradients."""
    precision, why = choose_precision(config.precision, device)
    if not (device.type == "cpu" and precision == "bf16" and one_pixel):
        return precision, why
    if config.precision == "bf16":
        raise UsageError("--precision bf16 cannot be trusted here", why=ONE_PIXEL, hint="--precision fp32")
    return "fp32", ONE_PIXEL


def _opened(
    splits: Splits, preprocess: Preprocess, config: TrainConfig, device: torch.device, opener: Opener
) -> tuple[dict[str, Samples], list[str]]:
    """The sets, held alike in all processes: the first one chooses by its free memory."""
    named = splits.named()
    if world_size() == 1:
        return opener(named, preprocess, config)
    kept, why = on_main(lambda: choose_cache(named, preprocess, config), device)
    return opener(named, preprocess, replace(config, cache=kept))[0], [why]


def _preprocess(config: TrainConfig, splits: Splits) -> tuple[Preprocess, list[str]]:
    """How images are brought to one form; where only --train-sizes are given, the largest is the size of use."""
    preprocess, reasons = choose(config, splits.train)
    largest = max(config.train_sizes, default=0)
    if largest > max(preprocess.size) and config.image_size is None and splits.train.applied is None:
        preprocess, reasons = choose(replace(config, image_size=(largest,)), splits.train)
        reasons = [f"image size {largest}: the largest of --train-sizes", *reasons]
    return preprocess, reasons


def with_batch(plan: Plan, batch: int, lr: float | None = None) -> Plan:
    """The plan for another batch size, with what depends on it; `lr` replaces the learning rate."""
    config = plan.config
    if lr is None:
        fewer = min(batch, len(plan.train))
        lr = config.lr if isinstance(config.lr, float) else default_lr(config.optimizer, fewer, plan.parameters)
    world = world_size()
    shared = batch < FEW_FOR_BN * world if config.sync_bn == "auto" else config.sync_bn == "on"
    sizes = plan_sizes(config, plan.preprocess.size, batch)
    return replace(plan, batch=batch, lr=lr, sync_bn=shared and world > 1, sizes=sizes)


def closing_notes(plan: Plan) -> list[str]:
    """What is known last: steps, sizes, processes."""
    notes = [f"{plan.config.optimizer}, learning rate up to {plan.lr:.4g}, weight decay {plan.weight_decay:g}"]
    notes += [text for text in (plan.sizes.describe(),) if text]
    if (world := world_size()) > 1:
        statistics = "together" if plan.sync_bn else "each for itself"
        notes.append(f"{world} processes, about {plan.batch / world:.0f} images of a step in each; BN {statistics}")
    return notes


def device_name(config: TrainConfig) -> str:
    """The device that --devices, else --device, asks for."""
    if config.devices is None:
        return config.device
    return "cpu" if config.devices.startswith("cpu") else "cuda"


def _cuda_graphs(config: TrainConfig, device: torch.device) -> bool:
    """Whether steps are recorded. Raises UsageError where that was asked and cannot be."""
    obstacles = {
        f"the device is {device}": device.type != "cuda",
        "there are several processes": world_size() > 1,
        "--compile makes code of the network": config.compile,
    }
    found = [why for why, there in obstacles.items() if there]
    if config.cuda_graphs == "on" and found:
        raise UsageError("--cuda-graphs on is not possible here", why=found[0], hint="leave --cuda-graphs out")
    return config.cuda_graphs != "off" and not found


@torch.no_grad()
def _strides_over_one_pixel(network: ImageModel, preprocess: Preprocess) -> bool:
    """Whether a strided convolution of a network (on no device) is given a map of one pixel a side."""
    found = []

    def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.Conv2d | MultiScaleConv2d) and _stride(module) > 1:
            found.append(min(given[0].shape[-2:]) == 1)

    handles = [module.register_forward_pre_hook(look) for module in network.modules()]
    network.eval()(torch.empty(1, preprocess.channels, *preprocess.size, device="meta"), exits=True)
    for handle in handles:
        handle.remove()
    return any(found)


def _stride(module: nn.Module) -> int:
    return module.stride[0] if isinstance(module, nn.Conv2d) else module.geometry.stride  # type: ignore[return-value]


def _model(config: TrainConfig, preprocess: Preprocess, device: torch.device, notes: list[str]) -> str:
    if config.model != "auto":
        MODELS[config.model]
        return config.model
    kind = "grey" if preprocess.channels == 1 else "colour"
    reason = f"{kind} images of {preprocess.size[0]}x{preprocess.size[1]} pixels"
    small = max(preprocess.size) <= MICRO_SIDE
    if small and preprocess.channels == 3 and device.type == "cpu":
        reason += " on a CPU; with hours or a GPU, --model msresnet18 goes further"
    micro = small and (preprocess.channels == 1 or device.type == "cpu")
    name = "msresnet_micro" if micro else "msresnet18"
    notes.append(f"model {name}: {reason}")
    if not micro:
        notes.append(f"stem {stem_for(preprocess.size)[0]}: {stem_for(preprocess.size)[1]}")
    return name


def _arguments(config: TrainConfig, preprocess: Preprocess, classes: int) -> dict[str, Any]:
    arguments = {"num_classes": classes, "in_chans": preprocess.channels, "img_size": list(preprocess.size)}
    rates = {"drop_rate": config.drop_rate, "drop_path_rate": config.drop_path_rate}
    arguments |= {name: value for name, value in rates.items() if value}
    for text in config.model_args:
        name, equals, value = text.partition("=")
        if name in ELSEWHERE:
            raise UsageError(f"--model-args {text}", hint=ELSEWHERE[name])
        if not equals or name in arguments:
            raise UsageError(f"--model-args {text}", why="name=value, once each", hint="--model-args operator=res2net")
        arguments[name] = _argument(value, f"--model-args {text}")
    return arguments


def _argument(text: str, where: str) -> Any:
    """What the text of a model's argument stands for. Raises UsageError for what no bundle can hold."""
    hint = "--model-args operator=res2net"
    value = plain_yaml(text, where, hint)
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError("this is not a plain value", where=where, why=str(error), hint=hint) from error
    return value


def _augment(config: TrainConfig, preprocess: Preprocess, kind: type[Task]) -> tuple[Augment, str]:
    if config.augment == "none":
        chosen, reason = Augment(), "none, as asked"
    elif min(preprocess.size) < FEWEST_PIXELS:
        chosen, reason = Augment(), f"none: images under {FEWEST_PIXELS} pixels have nothing to spare"
    else:
        chosen, reason = kind.changes(preprocess)
    given = {name: getattr(config, name) for name in chosen.to_dict()}
    asked = {name: value for name, value in given.items() if value is not None}
    if asked:
        reason += "; " + ", ".join(f"{name} {value:g}" for name, value in asked.items()) + " as asked"
    return Augment(**(chosen.to_dict() | asked)), reason

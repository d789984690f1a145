"""Weights that others trained: found on the hub or in a file, and fitted to the network that is wanted.

safetensors only. The first convolution takes any number of channels, the classifier any number of classes; all else
must agree, key by key. Nothing of the weights comes with this package, and their licence is shown before the first
download.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from msresnet import hub
from msresnet.errors import ModelError, UsageError, nearest
from msresnet.hub import WEIGHTS
from msresnet.models.base import Config, ImageModel
from msresnet.models.published import published, table
from msresnet.run_folder import UNFINISHED, is_unfinished, resume_hint
from msresnet.tensors import check_finite, check_matches, load_tensors

BODY = "body."
"""How the names of a backbone's tensors begin in a network with another head."""
PUBLISHED = "published"
"""What stands for a model's own weights where they are named."""
Build = Callable[[Config], ImageModel]


@dataclass(frozen=True)
class Weights:
    """Tensors as published.

    Args:
        where: the file, for messages.
    """

    tensors: dict[str, Tensor]
    where: str


def find(name: str, source: bool | str | Path) -> Weights:
    """The weights that are meant: True the published ones of a model, 'hf:user/repo', a file, or a folder.

    Raises UsageError where none are published and for a source that means nothing, ModelError for what is not there or
    not whole.
    """
    if not isinstance(source, (str, Path)) and source is not True:
        raise UsageError(f"pretrained={source!r}", hint="True, 'hf:user/repo', or a safetensors file")
    if source is not True and not str(source).startswith(hub.PREFIX):
        file = find_file(source)
        return Weights(load_tensors(file)[0], str(file))
    where = hub.place(published_weights(name) if source is True else str(source))
    licence_of(name, str(where))
    return Weights(load_tensors(hub.fetch(where, WEIGHTS))[0], f"{where}: {WEIGHTS}")


def find_file(source: str | Path) -> Path:
    """The file of weights that a path means. Raises UsageError or ModelError, saying what to type, for none."""
    path = Path(source)
    if not path.exists() and (meant := hub.meant(str(source))):
        raise UsageError(f"there is no file {str(source)!r}", hint=meant)
    file = path / WEIGHTS if path.is_dir() else path
    if file.exists():
        return file
    if is_unfinished(path):
        raise ModelError("there are no weights yet", where=str(path), why=UNFINISHED, hint=resume_hint(path))
    others = [p.name for p in path.parent.iterdir() if p.name != path.name] if path.parent.is_dir() else []
    near = nearest(path.name, others, n=1)
    hint = str(path.with_name(near)) if near else "a folder or a file of weights (safetensors), or hf:user/repo"
    raise ModelError("there are no weights", where=str(file), why="there is no such file", hint=hint)


def licence_of(name: str, source: str) -> str:
    """The licence of 'published' weights, of ones on the hub, or 'not stated' of a file; shown before its first use."""
    row = published(name)
    place = published_weights(name) if source == PUBLISHED else source
    if not place.startswith(hub.PREFIX):
        return hub.NOT_STATED
    where = hub.place(place)
    return hub.announce(where, row.licence if where.repo == row.weights else "")


def published_weights(name: str) -> str:
    """Where a model's published weights are, 'hf:user/repo'. Raises UsageError where there are none."""
    row = published(name)
    if not row.weights:
        near = nearest(name, [other for other, entry in table().items() if entry.weights])
        hint = f"{near or 'msresnet models --pretrained'}; or hf:user/repo, or a safetensors file"
        raise UsageError(f"{name} has no published weights", hint=hint)
    return hub.PREFIX + row.weights


def fill(model: ImageModel, weights: Weights, build: Build, name: str, classes_asked: bool) -> None:
    """Load weights into a network. Those of a network with another head fill what both have.

    Args:
        build: makes the same network for another `Config` (no memory is taken).
        classes_asked: the caller named the number of classes, so that a new classifier is no surprise.

    Raises ModelError for weights of another architecture or class count, and for ones that are not finite.
    """
    fresh = model.state_dict()
    tensors = _without_unused(_of_classifier(weights.tensors, model, fresh), model)
    classifier, image = _free_keys(build, model.config)
    # Weights from before BN counted its batches lack that count; a network for use has no need of it.
    tensors |= {k: v for k, v in fresh.items() if k.endswith("num_batches_tracked") and k not in tensors}
    optional = [k for k in fresh if model.optional_weights and re.fullmatch(model.optional_weights, k)]
    if not weights.tensors.keys() & set(optional):
        tensors |= {k: fresh[k] for k in optional}
    if model.num_classes == 0:
        tensors = {k: v for k, v in tensors.items() if k not in classifier}
    elif classes_asked:
        tensors |= {k: fresh[k] for k in classifier if k not in tensors or tensors[k].shape[:1] != fresh[k].shape[:1]}
    for key in image & tensors.keys():
        if tensors[key].ndim == fresh[key].ndim and tensors[key].numel():
            tensors[key] = with_channels(tensors[key], fresh[key].shape[1])
    check_matches(tensors, fresh, weights.where, name)
    check_finite(tensors, weights.where)
    model.load_state_dict(tensors)


def with_channels(weight: Tensor, channels: int) -> Tensor:
    """A first convolution (C_out, C_in, h, w) for another number of image channels.

    Grey images see the sum over RGB, so a grey image gives what the same image in three equal channels gave; other
    counts repeat the channels in turn, scaled so that the output keeps its size.
    """
    given = weight.shape[1]
    if channels == given:
        return weight
    if channels == 1:
        return weight.sum(1, keepdim=True)
    turns = [i % given for i in range(channels)]
    return weight[:, turns] * (given / channels)


def _of_classifier(given: dict[str, Tensor], model: ImageModel, fresh: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as a network without another head would have them: the backbone's, and new ones behind it."""
    body = {key.removeprefix(BODY): tensor for key, tensor in given.items() if key.startswith(BODY)}
    if not body or any(key.startswith(BODY) for key in fresh):
        return given
    return {key: tensor for key, tensor in fresh.items() if key.split(".")[0] in model.tail} | body


def _without_unused(tensors: dict[str, Tensor], model: ImageModel) -> dict[str, Tensor]:
    pattern = model.unused_weights
    kept = {k: v for k, v in tensors.items() if not (pattern and re.fullmatch(pattern, k))}
    optional, fresh = model.optional_weights, model.state_dict()
    return {k: v for k, v in kept.items() if k in fresh or not (optional and re.fullmatch(optional, k))}


def _free_keys(build: Build, config: Config) -> tuple[set[str], set[str]]:
    """Names, as published, of the tensors that depend on the classes, and of those that read the image."""
    config = config._replace(num_classes=config.num_classes or 1)
    with torch.device("meta"):
        whole = build(config)
        other = build(config._replace(in_chans=config.in_chans + 1)).state_dict()
    shapes = whole.state_dict()
    whole.reset_classifier(0)
    classifier = shapes.keys() - whole.state_dict().keys()
    return classifier, {k for k, v in shapes.items() if v.shape != other[k].shape}

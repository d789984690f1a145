"""Models by name: `create_model`, `list_models`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import nn

from msresnet.errors import UsageError, nearest
from msresnet.hub import PREFIX, meant
from msresnet.models.base import Config, Family, FeatureExtractor, ImageModel
from msresnet.models.described import on_hub
from msresnet.models.detector import Detector, DetectorSpec
from msresnet.models.embodied import BodySpec, Embodied
from msresnet.models.families import FAMILIES
from msresnet.models.pretrained import fill, find
from msresnet.models.published import published
from msresnet.models.segmenter import Segmenter
from msresnet.registry import Registry

OF_HEADS = {"pyramid": ("pyramid_width",), "detector": ("pyramid_width", "finest", "embedding")}
"""Arguments of networks that a head adds."""


class Entry(NamedTuple):
    """A model's name stands for its family and its row."""

    family: Family
    row: Any

    @property
    def arguments(self) -> tuple[str, ...]:
        """What `create_model` takes for it beside `Config`."""
        return tuple(f.name for f in fields(self.row))


MODELS: Registry[Entry] = Registry("model", "msresnet models")


def register(family: Family) -> None:
    """Make a family's members known by name. Raises ValueError for a name that is taken."""
    for name, row in family.members.items():
        MODELS.add(name, Entry(family, row))


for _family in FAMILIES:
    register(_family)


class Chosen(NamedTuple):
    """What the arguments of `create_model` mean: a family, its row, and what all networks share."""

    family: Family
    row: Any
    config: Config
    classes_asked: bool


def create_model(
    name: str,
    pretrained: bool | str | Path = False,
    *,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """A network by name.

    Args:
        name: one of `list_models()`, or 'hf:user/repo' for the network of published weights.
        pretrained: True for the published weights, 'hf:user/repo' or a safetensors file for others; False for none.
        features_only: return the stages' maps instead of logits.
        out_indices: which stages, in the order asked; None all (of DLA those from half the resolution on), an int the
            last n, negatives count from the end.
        kwargs: `num_classes`, `in_chans`, `img_size`, `global_pool`, `drop_rate`, `drop_path_rate`, and any field of
            the model's row (`stem`, `shortcut_levels`, ...; `operator` also by name). None leaves the default.

    Raises UsageError for an unknown name or argument and for an impossible combination, ModelError for weights that
    are not available or do not fit.
    """
    if out_indices is not None and not features_only:
        raise UsageError("out_indices means nothing without features_only", hint="features_only=True")
    if not isinstance(name, str):
        raise UsageError(f"{name!r} is not a model's name", hint="msresnet models")
    if name.startswith(PREFIX):
        name, pretrained = on_hub(name).architecture, name if pretrained is True else pretrained
    family, row, config, classes_asked = _chosen(name, kwargs | ({"num_classes": 0} if features_only else {}))
    model = family.network(row, config)
    _check_size(model, name)
    if pretrained is not False:
        fill(model, find(name, pretrained), partial(family.network, row), name, classes_asked)
    return FeatureExtractor(model, out_indices) if features_only else model


def _chosen(name: str, kwargs: dict[str, Any]) -> Chosen:
    """What arguments of a model mean. Raises UsageError for an unknown name or argument."""
    if name not in MODELS:
        _explain(name)
    entry = MODELS[name]
    given = {key: _plain(value) for key, value in kwargs.items() if value is not None}
    if "img_size" in given:
        given["img_size"] = as_size(given["img_size"])
    classes_asked = "num_classes" in given
    config = entry.family.defaults._replace(**{key: given.pop(key) for key in Config._fields if key in given})
    for key in given:
        if key not in entry.arguments:
            known = (*Config._fields, *entry.arguments)
            hint = nearest(key, known) or f"msresnet models {name} --tree; it takes {', '.join(known)}"
            raise UsageError(f"{name} takes no argument {key!r}", hint=hint)
    return Chosen(entry.family, replace(entry.row, **given), config, classes_asked)


def _check_size(model: ImageModel, name: str) -> None:
    size = model.config.img_size
    if min(size) < model.min_size:
        what = f"{name} cannot take images of {size[0]}x{size[1]} pixels"
        raise UsageError(what, hint=f"--image-size {model.min_size} or more")


def _explain(name: str) -> None:
    """Raise UsageError where another library's way of naming weights was meant."""
    architecture_name, dot, _ = name.partition(".")
    if dot and architecture_name in MODELS:
        hint = f"{architecture_name!r} with pretrained='hf:timm/{name}'"
        raise UsageError(f"unknown model {name!r}", why="weights are named apart from the network", hint=hint)
    if meant(name):
        raise UsageError(f"unknown model {name!r}", hint=meant(name))


def create_classifier(name: str, **kwargs: Any) -> ImageModel:
    """`create_model` for a network with a classifier, typed as such. Raises UsageError for `features_only`."""
    if "features_only" in kwargs or "out_indices" in kwargs:
        raise UsageError("features_only and out_indices leave no classifier", hint="create_model in Python")
    return cast(ImageModel, create_model(name, **kwargs))


def create_segmenter(
    name: str, pretrained: bool | str | Path = False, pyramid_width: int | None = None, **kwargs: Any
) -> Segmenter:
    """A network by name with a class for each pixel instead of one for the image.

    Args:
        name, pretrained, kwargs: as for `create_model`; weights of a classifier fill all but the pyramid and the head.
        pyramid_width: channels of the pyramid; None chooses by the finest map.

    Raises UsageError and ModelError as `create_model` does, and UsageError for a width that cannot be.
    """
    family, row, config, classes_asked = _chosen(name, kwargs)
    model = Segmenter(BodySpec(family.network, row, pyramid_width), config)
    _ready(model, name, pretrained, classes_asked)
    return model


def create_detector(
    name: str,
    pretrained: bool | str | Path = False,
    pyramid_width: int | None = None,
    finest: int | None = None,
    embedding: int = 0,
    **kwargs: Any,
) -> Detector:
    """A network by name with boxes and their classes at places of the image instead of one class for it.

    Args:
        name, pretrained, kwargs: as for `create_model`; weights of a classifier fill all but the pyramid and the head.
        pyramid_width: channels of the pyramid and the head; None chooses by the finest map.
        finest: how far the finest map divides the resolution; None chooses by the image's size.
        embedding: numbers of a vector at each place that tells objects apart; 0 for none.

    Raises UsageError and ModelError as `create_model` does, and UsageError for a width or a map that cannot be.
    """
    family, row, config, classes_asked = _chosen(name, kwargs)
    model = Detector(DetectorSpec(family.network, row, pyramid_width, finest, embedding), config)
    _ready(model, name, pretrained, classes_asked)
    return model


def _ready(model: Embodied, name: str, pretrained: bool | str | Path, classes_asked: bool) -> None:
    """Check the image's size, and fill the network with weights of its kind, or its backbone with those of another."""
    _check_size(model, name)
    if pretrained is False:
        return
    weights = find(name, pretrained)
    if any(key.startswith(model.mark) for key in weights.tensors):
        fill(model, weights, partial(type(model), model.spec), name, classes_asked)
        return
    build = partial(model.spec.network, model.spec.row)
    whole = build(model.config._replace(num_classes=0))
    fill(whole, weights, build, name, classes_asked=False)
    tensors = whole.state_dict()
    model.body.load_state_dict({key: tensors[key] for key in model.body.state_dict()})


def create_network(head: str, name: str, **kwargs: Any) -> ImageModel:
    """A network with the head that a task needs, as `Task.head` names it.

    Raises UsageError for one that cannot be trained to it, and as `create_model` does.
    """
    if head == "pyramid":
        return create_segmenter(name, **kwargs)
    if head == "detector":
        return create_detector(name, **kwargs)
    model = create_classifier(name, **kwargs)
    if model.global_pool.kind == "":
        raise UsageError("--model-args global_pool=''", why="a classifier is trained on a pooled vector", hint="avg")
    return model


def network_arguments(head: str, name: str) -> tuple[str, ...]:
    """What `create_network` takes for a model beside `Config`."""
    return (*MODELS[name].arguments, *OF_HEADS.get(head, ()))


def list_models(
    filter: str | Sequence[str] = "*",  # noqa: A002 - timm's name
    pretrained: bool = False,
    exclude_filters: str | Sequence[str] = (),
) -> list[str]:
    """Names that match a shell pattern, such as 'res*', or any of several.

    Args:
        pretrained: only those with published weights.
        exclude_filters: a pattern, or several, of names to leave out.
    """
    wanted, unwanted = (set(_matching(patterns)) for patterns in (filter, exclude_filters))
    names = [name for name in MODELS.names() if name in wanted and name not in unwanted]
    return [name for name in names if published(name).weights] if pretrained else names


def _matching(patterns: str | Sequence[str]) -> list[str]:
    several = [patterns] if isinstance(patterns, str) else patterns
    return [name for pattern in several for name in MODELS.names(pattern)]


def as_size(size: Any) -> tuple[int, int]:
    """(H, W) from one side or two. Raises UsageError for anything else."""
    sides = size if isinstance(size, (tuple, list)) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, Integral) and not isinstance(side, bool) for side in sides):
        raise UsageError(f"the model argument img_size={size!r}", hint="one side in pixels, or (height, width)")
    height, width = sides
    return int(height), int(width)


def _plain(value: Any) -> Any:
    """Numpy's whole numbers, which labels are counted with, as Python's."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value

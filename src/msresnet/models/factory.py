"""Models by name: `create_model`, `list_models`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, cast

from torch import nn

from msresnet.errors import UsageError, nearest
from msresnet.models.article import ArticleCNN
from msresnet.models.base import Config, FeatureExtractor, ImageModel
from msresnet.models.families import HOUSE, RES2NET, RESNET
from msresnet.models.resnet import MultiScaleResNet, ResNetSpec
from msresnet.nn.grammar import OPERATORS
from msresnet.registry import Registry

Builder = Callable[..., ImageModel]
MODELS: Registry[Builder] = Registry("model", "msresnet models")


def _resnet(spec: ResNetSpec, config: Config, **overrides: Any) -> ImageModel:
    named = overrides.get("operator")
    if isinstance(named, str):
        overrides["operator"] = OPERATORS[named]
    return MultiScaleResNet(replace(spec, **overrides), config)


_resnet_fields = tuple(f.name for f in fields(ResNetSpec))
for _name, _spec in {**RESNET, **RES2NET, **HOUSE}.items():
    MODELS.add(_name, partial(_resnet, _spec))
MODELS.add("article_cnn", ArticleCNN)


def create_model(
    name: str,
    pretrained: bool = False,
    *,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """A network by name, with random weights.

    Args:
        name: one of `list_models()`.
        pretrained: reserved for published weights, of which there are none yet.
        features_only: return the stages' maps instead of logits.
        out_indices: which stages; None all, an int the last n.
        kwargs: `num_classes`, `in_chans`, `img_size`, `global_pool`, `drop_rate`, `drop_path_rate`, and any field of
            the family's spec (`stem`, `shortcut_levels`, ...; `operator` also by name). None leaves the default.

    Raises UsageError for an unknown name or argument, and for an impossible combination.
    """
    if pretrained:
        raise UsageError(f"{name} has no published weights yet", hint="pretrained=False, or msresnet.load(folder)")
    if out_indices is not None and not features_only:
        raise UsageError("out_indices means nothing without features_only", hint="features_only=True")
    builder = MODELS[name]
    given = {key: value for key, value in kwargs.items() if value is not None}
    if "img_size" in given:
        given["img_size"] = as_size(given["img_size"])
    config = Config(**{key: given.pop(key) for key in Config._fields if key in given})
    allowed = _resnet_fields if isinstance(builder, partial) else ()
    for key in given:
        if key not in allowed:
            known = (*Config._fields, "features_only", "out_indices", *allowed)
            raise UsageError(f"{name} takes no argument {key!r}", hint=nearest(key, known) or ", ".join(known))
    model = builder(config, **given)
    if min(config.img_size) < model.min_size:
        raise UsageError(
            f"{name} cannot take images of {config.img_size[0]}x{config.img_size[1]} pixels",
            hint=f"--image-size {model.min_size} or more",
        )
    return FeatureExtractor(model, out_indices) if features_only else model


def create_classifier(name: str, **kwargs: Any) -> ImageModel:
    """`create_model` for a network with a classifier, typed as such."""
    return cast(ImageModel, create_model(name, **kwargs))


def list_models(filter: str = "*") -> list[str]:  # noqa: A002 - timm's name
    """Names that match a shell pattern, such as 'res*'."""
    return MODELS.names(filter)


def as_size(size: int | Sequence[int]) -> tuple[int, int]:
    """(H, W) from one side or two."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)

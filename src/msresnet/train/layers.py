"""Which layer a parameter belongs to: for learning rates by depth, and for stages that keep their weights."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from msresnet.errors import UsageError
from msresnet.models.base import ImageModel
from msresnet.nn.heads import ExitHead

WITH_THE_ONE_BEFORE = 99999
"""timm's number for what shares the layer before it."""


def layer_depths(model: nn.Module, coarse: bool = False) -> dict[str, int]:
    """The depth of each parameter by name: 0 the stem, then blocks (stages when `coarse`), last all that follows them.

    It comes from the model's own `group_matcher`.
    """
    matcher: dict[str, Any] = model.group_matcher(coarse)  # type: ignore[operator]
    blocks = matcher["blocks"]
    patterns = [(blocks, None)] if isinstance(blocks, str) else blocks
    keys: dict[str, tuple[int, ...] | None] = {}
    for name, _ in model.named_parameters():
        keys[name] = () if re.match(matcher["stem"], name) else _key(name, patterns)
    places: dict[tuple[int, ...], int] = {}
    for key in sorted({key for key in keys.values() if key}):
        shared = WITH_THE_ONE_BEFORE in key and places
        places[key] = max(places.values()) if shared else max(places.values(), default=0) + 1
    last = max(places.values(), default=0) + 1
    return {name: last if key is None else places.get(key, 0) for name, key in keys.items()}


def _key(name: str, patterns: list[tuple[str, tuple[int, ...] | None]]) -> tuple[int, ...] | None:
    """The numbers of a block in a parameter's name, or None for what is in no block."""
    for pattern, suffix in patterns:
        if found := re.match(pattern, name):
            return tuple(int(n) for n in found.groups() if n is not None) + (suffix or ())
    return None


def freeze(model: ImageModel, stages: int) -> list[nn.Module]:
    """Let the first stages (the stem counts as one) keep their weights; returns their BN, whose statistics stay too.

    Raises UsageError when nothing but the classifier would be left to learn, and less.
    """
    depths = layer_depths(model, coarse=True)
    most = max(depths.values())
    if stages > most:
        raise UsageError(
            f"--freeze {stages}", why=f"the network has a stem and {most - 1} stages", hint=f"--freeze {most}"
        )
    frozen = {name for name, depth in depths.items() if depth < stages}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and f"{name}.weight" in frozen
    ]


def stages_in_words(stages: int) -> str:
    """What `freeze` lets keep its weights."""
    more = {1: "", 2: " and the first stage"}.get(stages, f" and the first {stages - 1} stages")
    return f"the stem{more}"


def classifiers(model: nn.Module) -> list[nn.Module]:
    """The linear layers that answer: the last one, and those of exits."""
    last: nn.Module = model.get_classifier()  # type: ignore[operator]
    return [last, *(module.fc for module in model.modules() if isinstance(module, ExitHead))]


def last_layers(model: ImageModel) -> set[str]:
    """Names of the parameters of the classifier and of all normalisation."""
    heads = {id(p) for layer in classifiers(model) for p in layer.parameters()}
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    learning = heads | {id(p) for norm in norms for p in norm.parameters()}
    return {name for name, p in model.named_parameters() if id(p) in learning}

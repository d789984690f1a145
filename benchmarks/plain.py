"""What a plain ResNet is: He et al.'s for small images (arXiv 1512.03385, section 4.2), at the price of another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import yaml

from msresnet.models.cost import count_macs
from msresnet.models.factory import create_classifier

MODEL = "resnet20"
"""Of one block a stage instead of three, as shallow as the micro network."""


@cache
def plain_twin(model: str, arguments: tuple[str, ...], shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Arguments, as NAME=VALUE, of the plain network whose multiply-adds come nearest to a model's.

    The stages have w, 2w and 4w channels at the full, half and quarter resolution.

    Args:
        model: the other network.
        arguments: of that network, as NAME=VALUE.
        shape: of an image, (C, H, W).
    """
    wanted = cost(model, arguments, shape)
    twins = [("depths=[1,1,1]", f"widths=[{w},{2 * w},{4 * w}]", f"stem_width={w}") for w in range(4, 65)]
    return min(twins, key=lambda twin: abs(cost(MODEL, twin, shape) - wanted))


def cost(model: str, arguments: Sequence[str], shape: tuple[int, int, int]) -> int:
    """Multiply-adds of a network of ten classes for an image (C, H, W)."""
    given: dict[str, Any] = {name: yaml.safe_load(text) for name, _, text in (w.partition("=") for w in arguments)}
    channels, *size = shape
    return count_macs(create_classifier(model, num_classes=10, in_chans=channels, img_size=tuple(size), **given))

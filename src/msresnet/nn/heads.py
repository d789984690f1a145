"""What stands at a network's end: pooling from a map to a vector, answers on the way, a class for each pixel.

Pooling: (B, C, H, W) -> (B, C') where C' is C times `multiplier(kind)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.nn.fusion import resize_to
from msresnet.nn.necks import conv_bn

Pooling = Literal["avg", "max", "avgmax", "catavgmax", ""]


def multiplier(kind: Pooling) -> int:
    """How many values of the pooled vector come from one channel."""
    return 2 if kind == "catavgmax" else 1


class GlobalPool(nn.Module):
    """Global average (arXiv 1312.4400), maximum, their mean, or both side by side; '' leaves the map as it is."""

    def __init__(self, kind: Pooling = "avg") -> None:
        super().__init__()
        if kind not in get_args(Pooling):
            raise UsageError(f"unknown global_pool {kind!r}", hint="one of avg, max, avgmax, catavgmax, ''")
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C), (B, 2C) for catavgmax, unchanged for ''."""
        if self.kind == "":
            return x
        if self.kind == "avg":
            return spatial_mean(x)
        # Not amax, whose gradient asks which places equal the maximum: none, where a compiler computes the map again in
        # another precision.
        maximum = F.adaptive_max_pool2d(x, 1).flatten(1)
        if self.kind == "max":
            return maximum
        average = spatial_mean(x)
        return (average + maximum) / 2 if self.kind == "avgmax" else torch.cat([average, maximum], 1)


def spatial_mean(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C), over all places."""
    if not x.requires_grad:
        return x.mean((2, 3))
    # Written so, the gradient has the layout of a channels-last map; that of a mean over two dimensions has not, and
    # what stands before it works on two layouts at once, ten times as slowly.
    return x.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


class ExitHead(nn.Module):
    """An answer on the way: strided convolutions, global average, a linear layer (MSDNet, arXiv 1703.09844).

    Args:
        in_chs: C of the map it reads.
        hidden: channels of its convolutions.
        num_classes: K; 0 gives the pooled vector.
        depth: how many convolutions, each halving the resolution.
    """

    def __init__(self, in_chs: int, hidden: int, num_classes: int, depth: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Conv2d(hidden if i else in_chs, hidden, 3, 2, 1, bias=False), nn.BatchNorm2d(hidden)]
            layers += [nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.hidden = hidden
        self.reset(num_classes)

    def reset(self, num_classes: int) -> None:
        """A fresh linear layer for other classes."""
        self.fc = nn.Linear(self.hidden, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        return self.fc(spatial_mean(self.layers(x)))  # type: ignore[no-any-return]


class PyramidHead(nn.Module):
    """A class for each pixel from a feature pyramid (the semantic branch of Panoptic FPN, arXiv 1901.02446).

    Each map goes through a 3x3 convolution for every step from its resolution to the finest one, is enlarged bilinearly
    after each, and all are summed.

    Args:
        levels: maps of the pyramid.
        width: channels of each.
        num_classes: K; 0 gives the summed map.
        drop_rate: dropout before the last layer.
    """

    def __init__(self, levels: int, width: int, num_classes: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.width = width
        self.steps = nn.ModuleList(
            nn.ModuleList(nn.Sequential(*conv_bn(width, width, 3), nn.ReLU(inplace=True)) for _ in range(max(1, level)))
            for level in range(levels)
        )
        self.drop = nn.Dropout(drop_rate)
        self.reset(num_classes)

    def reset(self, num_classes: int) -> None:
        """A fresh last layer for other classes."""
        self.classifier = nn.Conv2d(self.width, num_classes, 1) if num_classes else nn.Identity()

    def merged(self, maps: Sequence[Tensor]) -> Tensor:
        """[(B, width, H_i, W_i)], fine to coarse -> (B, width, H_0, W_0)."""
        sizes = [(x.shape[-2], x.shape[-1]) for x in maps]
        total = maps[0].new_zeros(())
        for level, steps in enumerate(self.steps):
            enlarged, left = maps[level], level
            for step in steps.children():
                left = max(0, left - 1)
                enlarged = resize_to(step(enlarged), sizes[left])
            total = total + enlarged
        return total

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """The pyramid's maps -> logits (B, K, H, W) of the size (H, W) in pixels."""
        return resize_to(self.classifier(self.drop(self.merged(maps))), size)

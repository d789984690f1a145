"""Pooling from a map to a vector: (B, C, H, W) -> (B, C') where C' is C times `multiplier(kind)`."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from msresnet.errors import UsageError

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
            return x.mean((2, 3))
        if self.kind == "max":
            return x.amax((2, 3))
        average, maximum = x.mean((2, 3)), x.amax((2, 3))
        return (average + maximum) / 2 if self.kind == "avgmax" else torch.cat([average, maximum], 1)


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
        return self.fc(self.layers(x).mean((2, 3)))  # type: ignore[no-any-return]

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

"""Ways to join several maps into one. Shapes: lists of (B, C, H, W) -> (B, C, H, W)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def make_divisible(value: float, divisor: int = 8, minimum: int | None = None) -> int:
    """The multiple of `divisor` nearest to `value`, never below `minimum` and never under 90 % of the value."""
    rounded = max(minimum or divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def resize_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a map to a given (H, W): averaging downwards, bilinear upwards; never by a factor, so any size works."""
    if x.shape[-2:] == size:
        return x
    if x.shape[-2] >= size[0] and x.shape[-1] >= size[1]:
        return F.adaptive_avg_pool2d(x, size)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class MultiStageFusion(nn.Module):
    """Every stage's map, averaged down to the last one's size and joined along the channels.

    After global pooling the head so sees each stage, fine to coarse. Takes a list of (B, C_i, H_i, W_i).
    """

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(B, C_i, H_i, W_i)] -> (B, sum C_i, H_last, W_last)."""
        size = (maps[-1].shape[-2], maps[-1].shape[-1])
        return torch.cat([resize_to(m, size) for m in maps], 1)

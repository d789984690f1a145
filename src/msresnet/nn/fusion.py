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


class SoftmaxFusion(nn.Module):
    """Sum of branches weighted per channel by a softmax over the branches (SKNet, arXiv 1903.06586, eq. 1-6).

    Takes (B, K, C, H, W), gives (B, C, H, W).
    """

    fold_pairs = (("fc_reduce", "bn"),)

    def __init__(self, channels: int, branches: int, reduction: float = 1 / 16) -> None:
        super().__init__()
        hidden = make_divisible(channels * reduction, 8)
        self.branches = branches
        self.fc_reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.act = nn.ReLU(inplace=True)
        self.fc_select = nn.Conv2d(hidden, channels * branches, 1, bias=False)

    def weights(self, x: Tensor) -> Tensor:
        """(B, K, C, H, W) -> each branch's weight (B, K, C, 1, 1)."""
        pooled = x.sum(1).mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        logits = self.fc_select(self.act(self.bn(self.fc_reduce(pooled))))
        return logits.view(x.shape[0], self.branches, x.shape[2], 1, 1).softmax(1)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, C, H, W) -> (B, C, H, W)."""
        return (x * self.weights(x)).sum(1)


class MultiStageFusion(nn.Module):
    """Every stage's map, averaged down to the last one's size and joined along the channels.

    After global pooling the head so sees each stage, fine to coarse. Takes a list of (B, C_i, H_i, W_i).
    """

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(B, C_i, H_i, W_i)] -> (B, sum C_i, H_last, W_last)."""
        size = (maps[-1].shape[-2], maps[-1].shape[-1])
        return torch.cat([resize_to(m, size) for m in maps], 1)

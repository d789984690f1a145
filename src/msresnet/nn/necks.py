"""From a backbone's maps to maps that all know what the coarse ones know. B batch, C channels, H and W pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(in_chs: int, out_chs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the resolution or divides it by `stride`, and BatchNorm, which folding takes away.

    The papers' heads take GroupNorm for batches of few images on each device. Here BN is made one over all processes
    where a process has few images (`sync_bn`), and a network for use is free of it.
    """
    convolution = nn.Conv2d(in_chs, out_chs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_chs))


class FeaturePyramid(nn.Module):
    """A feature pyramid (arXiv 1612.03144): from coarse to fine, each map is joined by the one above it.

    Args:
        channels: of each map, fine to coarse.
        width: channels of every map that comes out.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(conv_bn(count, width, 1) for count in channels)
        self.smooth = nn.ModuleList(conv_bn(width, width, 3) for _ in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """[(B, C_i, H_i, W_i)] -> [(B, width, H_i, W_i)], fine to coarse."""
        sides = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for i in range(len(sides) - 2, -1, -1):
            sides[i] = sides[i] + F.interpolate(sides[i + 1], size=sides[i].shape[-2:], mode="nearest")
        return [smooth(x) for smooth, x in zip(self.smooth, sides, strict=True)]


class PathAggregation(nn.Module):
    """A feature pyramid, then the way back: from fine to coarse, each map is joined by the one below it.

    PANet (arXiv 1803.01534, section 3.1). Coarser maps than the backbone's follow by strided convolutions (FCOS, arXiv
    1904.01355, section 3.2).

    Args:
        channels: of each map, fine to coarse.
        width: channels of every map that comes out.
        extra: how many coarser maps follow, each of half the resolution.
    """

    def __init__(self, channels: Sequence[int], width: int, extra: int = 0) -> None:
        super().__init__()
        self.pyramid = FeaturePyramid(channels, width)
        self.down = nn.ModuleList(conv_bn_relu(width, 2) for _ in channels[1:])
        self.joined = nn.ModuleList(conv_bn_relu(width) for _ in channels[1:])
        self.extra = nn.ModuleList(conv_bn_relu(width, 2) for _ in range(extra))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """[(B, C_i, H_i, W_i)] -> [(B, width, H_i, W_i)], fine to coarse, `extra` more than there were."""
        first, *others = self.pyramid(maps)
        found = [first]
        for down, joined, x in zip(self.down, self.joined, others, strict=True):
            found.append(joined(x + down(found[-1])))
        for step in self.extra:
            found.append(step(found[-1]))
        return found


def conv_bn_relu(width: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution, BatchNorm and ReLU."""
    return nn.Sequential(*conv_bn(width, width, 3, stride), nn.ReLU(inplace=True))

"""The first layers: from an image to the first map. B batch, C channels, H and W pixels.

imagenet  7x7 stride 2, max-pool stride 2      1/4    arXiv 1512.03385
unpooled  7x7 stride 2                         1/2    PyConvResNet, arXiv 2006.11538
deep      three 3x3, stride 2, max-pool        1/4    ResNet-C and -D, arXiv 1812.01187
small     3x3 stride 1, no pooling             1/1    for images under 96 pixels
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from msresnet.nn.downsampling import BlurPool2d, Downsampling, average_down

StemKind = Literal["imagenet", "unpooled", "deep", "small"]
SMALL_BELOW = 96
"""Images with a side under this many pixels get the small stem: a 1/32 map of them would hold next to nothing."""


@dataclass(frozen=True)
class Stem:
    """The modules of a stem under timm's names, and how far each divides the resolution."""

    conv1: nn.Module
    maxpool: nn.Module
    conv_reduction: int
    reduction: int


def build_stem(kind: StemKind, in_chans: int, width: int, downsampling: Downsampling = "conv") -> Stem:
    """The stem's modules: `conv1` gives `width` channels, BN and ReLU follow it, then `maxpool`.

    Anti-aliased networks pool without a stride and filter then ('blur'), or only average ('avg').
    """
    if kind == "small":
        return Stem(nn.Conv2d(in_chans, width, 3, 1, 1, bias=False), nn.Identity(), 1, 1)
    if kind == "unpooled":
        return Stem(nn.Conv2d(in_chans, width, 7, 2, 3, bias=False), nn.Identity(), 2, 2)
    pool: nn.Module = nn.MaxPool2d(3, 2, 1)
    if downsampling == "blur":
        pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), BlurPool2d(width))
    elif downsampling == "avg":
        pool = average_down(2)
    if kind == "imagenet":
        return Stem(nn.Conv2d(in_chans, width, 7, 2, 3, bias=False), pool, 2, 4)
    half = width // 2
    layers = nn.Sequential(
        nn.Conv2d(in_chans, half, 3, 2, 1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(inplace=True),
        nn.Conv2d(half, half, 3, 1, 1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(inplace=True),
        nn.Conv2d(half, width, 3, 1, 1, bias=False),
    )
    return Stem(layers, pool, 2, 4)


def stem_for(image_size: tuple[int, int]) -> tuple[StemKind, str]:
    """The stem for an image of (H, W) pixels, and the reason in words."""
    side = min(image_size)
    if side < SMALL_BELOW:
        return "small", f"{side} pixels are under {SMALL_BELOW}: 3x3 stride 1 keeps the detail"
    return "imagenet", f"{side} pixels are at least {SMALL_BELOW}: 7x7 stride 2 and a max-pool save work"

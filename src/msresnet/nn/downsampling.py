"""What halves the resolution in a block or a stem: a strided convolution, or a pool beside one of stride 1.

B batch, C channels, H and W pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Downsampling = Literal["conv", "blur", "avg", "avg3", "avg3_before"]
"""
conv         the convolution's own stride
blur         a binomial low-pass after it (Zhang 2019, arXiv 1904.11486)
avg          a 2x2 average after it
avg3         a 3x3 average after it (ResNeSt, arXiv 2004.08955)
avg3_before  the same before it
"""


class BlurPool2d(nn.Module):
    """A 3x3 binomial filter, then every `stride`-th pixel (arXiv 1904.11486); the border is mirrored."""

    taps: Tensor

    def __init__(self, channels: int, stride: int = 2) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride
        row = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("taps", (row[:, None] * row)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, ceil(H/s), ceil(W/s))."""
        # A side of one pixel has nothing to mirror; repeating it is the same filter.
        mode = "reflect" if min(x.shape[-2:]) > 1 else "replicate"
        taps = self.taps.to(x.dtype).expand(self.channels, 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode), taps, None, self.stride, groups=self.channels)


def average_down(stride: int) -> nn.Module:
    """Averages of stride x stride pixels; at an odd border, of those that are there."""
    return nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()


def pools(kind: Downsampling, channels: int, stride: int) -> tuple[nn.Module, nn.Module, int]:
    """The pool before a convolution, the one after it, and the stride that is left to the convolution itself."""
    same = nn.Identity()
    if stride == 1 or kind == "conv":
        return same, same, stride
    if kind == "avg3_before":
        return nn.AvgPool2d(3, stride, 1), same, 1
    if kind == "avg3":
        return same, nn.AvgPool2d(3, stride, 1), 1
    return same, BlurPool2d(channels, stride) if kind == "blur" else average_down(stride), 1

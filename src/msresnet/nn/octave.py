"""Octave convolution: maps in two octaves, some channels at the full resolution and the others at half of it.

Chen et al., arXiv 1904.05049. An octave convolution has the parameters of the plain one: its two kernels are rows of
the plain kernel. B batch, C channels, H and W pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msresnet.nn.downsampling import average_down

Octaves = tuple[Tensor, Tensor | None]
"""High channels (B, C_high, H, W) and low ones (B, C_low, ceil(H/2), ceil(W/2)), or None where there are none."""


def low_channels(channels: int, alpha: float) -> int:
    """How many of some channels are low."""
    return int(channels * alpha)


def repeat_to(low: Tensor, high: Tensor) -> Tensor:
    """Each pixel of a low map (B, C, ceil(H/2), ceil(W/2)) twice a side, cut to the size of a high (B, C', H, W)."""
    return F.interpolate(low, size=high.shape[-2:], mode="nearest")


class OctConv2d(nn.Module):
    """A convolution from two octaves to two, over four paths (equation 4 of the paper); it keeps the size or halves it.

    `high` and `low` hold the rows of one plain kernel that make high and low channels. Their columns are ordered as the
    input's channels, high ones first. Where both octaves of the input have one resolution, two paths are one
    convolution over their joined channels: low output always (there the high input is averaged), high output at
    stride 2 (there the low input needs no change).

    Args:
        in_chs, out_chs: of both octaves together.
        kernel: side in pixels, odd.
        stride: 1 or 2.
        alpha_in, alpha_out: share of low channels; 0 for a map of one octave.
    """

    def __init__(
        self, in_chs: int, out_chs: int, kernel: int = 1, stride: int = 1, *, alpha_in: float, alpha_out: float
    ) -> None:
        super().__init__()
        low_out = low_channels(out_chs, alpha_out)
        self.stride, self.high_in = stride, in_chs - low_channels(in_chs, alpha_in)
        self.high = nn.Conv2d(in_chs, out_chs - low_out, kernel, padding=kernel // 2, bias=False)
        self.low = nn.Conv2d(in_chs, low_out, kernel, padding=kernel // 2, bias=False) if low_out else nn.Identity()
        self.down = average_down(2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He et al. (arXiv 1502.01852), fan-out of the plain kernel that the two are rows of."""
        convs = [m for m in (self.high, self.low) if isinstance(m, nn.Conv2d)]
        fan_out = sum(conv.out_channels for conv in convs) * self.high.kernel_size[0] ** 2
        for conv in convs:
            nn.init.normal_(conv.weight, 0, math.sqrt(2 / fan_out))

    def forward(self, maps: Octaves) -> Octaves:
        """High (B, C_high, H, W) and low, if any -> the same of the output's channels, at ceil(H/s) x ceil(W/s)."""
        high, low = maps
        if self.stride == 2:
            joined = self._joined(high, low)
            return self.high(joined), self.low(self.down(joined)) if self._has_low else None
        return self._to_high(high, low), self.low(self._joined(high, low)) if self._has_low else None

    @property
    def _has_low(self) -> bool:
        return isinstance(self.low, nn.Conv2d)

    def _joined(self, high: Tensor, low: Tensor | None) -> Tensor:
        """All input channels at the low octave's resolution."""
        return self.down(high) if low is None else torch.cat([self.down(high), low], 1)

    def _to_high(self, high: Tensor, low: Tensor | None) -> Tensor:
        """The two paths to the high octave, which meet after the low one is repeated."""
        conv = self.high
        if low is None:
            return conv(high)  # type: ignore[no-any-return]
        from_high, from_low = conv.weight[:, : self.high_in], conv.weight[:, self.high_in :]
        high = F.conv2d(high, from_high, conv.bias, padding=conv.padding)
        return high + repeat_to(F.conv2d(low, from_low, padding=conv.padding), high)


class OctConvBN(nn.Module):
    """An octave convolution, BN on each octave, and perhaps ReLU."""

    fold_pairs = (("conv.high", "bn_high"), ("conv.low", "bn_low"))

    def __init__(self, conv: OctConv2d, act: bool = True) -> None:
        super().__init__()
        self.conv = conv
        self.bn_high = nn.BatchNorm2d(conv.high.out_channels)
        self.bn_low = nn.BatchNorm2d(conv.low.out_channels) if isinstance(conv.low, nn.Conv2d) else nn.Identity()
        self.act = nn.ReLU(inplace=True) if act else nn.Identity()

    def forward(self, maps: Octaves) -> Octaves:
        """Octaves -> octaves, as the convolution's."""
        high, low = self.conv(maps)
        return self.act(self.bn_high(high)), None if low is None else self.act(self.bn_low(low))


class JoinOctaves(nn.Module):
    """Both octaves as one map at the high one's resolution."""

    def forward(self, maps: Octaves) -> Tensor:
        """(B, C_high, H, W) and low -> (B, C, H, W)."""
        high, low = maps
        return high if low is None else torch.cat([high, repeat_to(low, high)], 1)

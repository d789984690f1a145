"""A convolution and what goes with it. B batch, C channels, H and W pixels."""

from __future__ import annotations

from torch import nn


def conv_bn(in_chs: int, out_chs: int, kernel: int = 3, stride: int = 1, act: bool = True) -> nn.Sequential:
    """Convolution, BN, and perhaps ReLU: (B, C_in, H, W) -> (B, C_out, ceil(H/s), ceil(W/s))."""
    conv = nn.Conv2d(in_chs, out_chs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_chs), *([nn.ReLU(inplace=True)] if act else []))

"""A convolution and what goes with it. B batch, C channels, H and W pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SAFE = 16
"""Channels from which oneDNN's gradient of a strided 1x1 convolution is right on every processor."""


class Subsampled(nn.Conv2d):
    """A strided 1x1 convolution that takes every s-th pixel itself.

    With channels last and fewer channels than a vector register holds, oneDNN's own gradient of the weights writes
    beyond its workspace: training ends in a segmentation fault, hangs, or learns from wrong gradients (oneDNN's issue
    6035; torch 2.13). Values, gradients and names are a convolution's, and so is all without gradients, exports too.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H/s), ceil(W/s))."""
        if not (torch.is_grad_enabled() and self.weight.requires_grad):
            return super().forward(x)
        (down, right), groups = self.stride, self.groups
        return F.conv2d(x[:, :, ::down, ::right], self.weight, self.bias, groups=groups)


def pointwise(in_chs: int, out_chs: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A 1x1 convolution without bias: (B, C_in, H, W) -> (B, C_out, ceil(H/s), ceil(W/s))."""
    kind = Subsampled if stride > 1 and in_chs // groups < SAFE else nn.Conv2d
    return kind(in_chs, out_chs, 1, stride, groups=groups, bias=False)


def conv_bn(in_chs: int, out_chs: int, kernel: int = 3, stride: int = 1, act: bool = True) -> nn.Sequential:
    """Convolution, BN, and perhaps ReLU: (B, C_in, H, W) -> (B, C_out, ceil(H/s), ceil(W/s))."""
    conv = nn.Conv2d(in_chs, out_chs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_chs), *([nn.ReLU(inplace=True)] if act else []))


def he_init(part: nn.Module) -> None:
    """Start the convolutions of a part, or one alone, as He et al. do (arXiv 1502.01852), fan-out."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # there are no numbers there, only time
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

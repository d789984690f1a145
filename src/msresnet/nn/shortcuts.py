"""Residual connections: the projection of a block's shortcut, stochastic depth, and shortcuts over many layers.

Level 1 joins a block's ends (arXiv 1512.03385), level 2 a stage's, level 3 the whole body's
(Residual Networks of Residual Networks, arXiv 1608.02908). B batch, C channels, H and W pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msresnet.nn.convolution import pointwise
from msresnet.nn.downsampling import average_down
from msresnet.nn.fusion import resize_to

Projection = Literal["conv1x1", "avg_conv", "max_conv", "pad", "none"]
Gate = Literal["none", "bn", "conv", "scale"]


class PadChannels(nn.Module):
    """Type A shortcut: strided sub-sampling, new channels filled with zeros; no parameters."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C + extra, ceil(H/s), ceil(W/s))."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


def projection(kind: Projection, in_chs: int, out_chs: int, stride: int, norm: bool = True) -> nn.Module:
    """A block's shortcut: the identity where the shape stays, else a projection.

    'conv1x1' is ResNet's, 'avg_conv' averages before (ResNet-D, arXiv 1812.01187), 'max_conv' takes the maximum
    before (PyConv), 'pad' has no parameters, 'none' is for blocks that are handed their shortcut. `norm=False` leaves
    the BN out (pre-activation).
    """
    if kind == "none" or (in_chs == out_chs and stride == 1):
        return nn.Identity()
    if kind == "pad":
        return PadChannels(out_chs - in_chs, stride)
    conv_stride = stride if kind == "conv1x1" else 1
    parts: list[nn.Module] = [pointwise(in_chs, out_chs, conv_stride)]
    parts += [nn.BatchNorm2d(out_chs)] if norm else []
    if kind == "avg_conv":
        parts.insert(0, average_down(stride))
    if kind == "max_conv":
        parts.insert(0, nn.MaxPool2d(3, stride, 1) if stride > 1 else nn.Identity())
    return nn.Sequential(*parts)


class DropPath(nn.Module):
    """Stochastic depth: drops the residual branch of whole samples (arXiv 1603.09382). Identity in evaluation."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same, some samples zero and the others scaled up."""
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        mask = torch.empty((x.shape[0], 1, 1, 1), device=x.device, dtype=x.dtype).bernoulli_(keep)
        return x * mask / keep


class LayerShortcut(nn.Module):
    """An inter-layer shortcut over a stage or over the whole body: body(x) + gate(project(x)).

    The gate keeps a stack of shortcuts from adding up their inputs: 'bn' normalises the shortcut, 'conv' projects it
    before even where the channels stay, 'scale' multiplies it by a learned factor that starts at 0, so that training
    begins without it; 'none' projects only where the channels change, and nothing more.
    """

    fold_pairs = (("conv", "bn"),)

    def __init__(self, in_chs: int, out_chs: int, gate: Gate = "bn") -> None:
        super().__init__()
        same = in_chs == out_chs and gate != "conv"
        self.conv = nn.Identity() if same else nn.Conv2d(in_chs, out_chs, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_chs) if gate in ("bn", "conv") else nn.Identity()
        self.scale = nn.Parameter(torch.zeros(1)) if gate == "scale" else None

    def forward(self, x: Tensor, body: Tensor) -> Tensor:
        """X (B, C_in, H, W) and the body's output (B, C_out, h, w) -> (B, C_out, h, w)."""
        # Averaging to the body's size first makes the projection cheap and any input size possible.
        shortcut = self.bn(self.conv(resize_to(x, (body.shape[-2], body.shape[-1]))))
        gated: Tensor = shortcut if self.scale is None else shortcut * self.scale
        return body + gated

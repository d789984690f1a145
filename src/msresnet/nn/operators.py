"""The modules for the grammar's operators: `build_operator` turns an `Operator` and its place into a network part.

Shapes: B batch, C channels, H and W pixels. Every operator maps (B, C_in, H, W) to (B, C_out, ceil(H/s), ceil(W/s)).
`parts` takes an operator's output apart again, branch by branch, which is what explanations are made of.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.nn.attention import SoftmaxFusion
from msresnet.nn.convolution import pointwise
from msresnet.nn.downsampling import average_down
from msresnet.nn.fusion import make_divisible, resize_to
from msresnet.nn.grammar import Branch, Operator, allocate
from msresnet.nn.small_maps import SmallMapConv2d, convolve


class Geometry(NamedTuple):
    """Where an operator sits: its channels, its stride, and whether the stage begins here."""

    in_chs: int
    out_chs: int
    stride: int = 1
    first: bool = False


def branch_convolution(branch: Branch, geometry: Geometry) -> nn.Module:
    """A branch's convolution, padded to keep the size. Raises UsageError for groups that do not divide the channels."""
    in_chs, out_chs, stride, _ = geometry
    if branch.kind == "identity":
        if in_chs != out_chs:
            what = f"an identity branch cannot turn {in_chs} channels into {out_chs}"
            raise UsageError(what, hint="a convolution of kernel 1 in its place")
        return average_down(stride)
    groups = in_chs if branch.groups == "depthwise" else branch.groups
    if in_chs % groups or out_chs % groups:
        raise UsageError(
            f"a branch of {groups} groups cannot map {in_chs} channels to {out_chs}",
            why="the groups must divide both",
            hint="a wider model, or fewer groups",
        )
    if branch.kind == "avg_pool":
        return nn.Conv2d(in_chs, out_chs, 1, groups=groups, bias=False)
    if branch.size == (1, 1):
        return pointwise(in_chs, out_chs, stride, groups)
    height, width = branch.size
    padding = ((height - 1) // 2 * branch.dilation, (width - 1) // 2 * branch.dilation)
    if groups == branch.dilation == 1:
        return SmallMapConv2d(in_chs, out_chs, branch.size, stride, padding, bias=False)
    return nn.Conv2d(
        in_chs, out_chs, branch.size, stride, padding, dilation=branch.dilation, groups=groups, bias=False
    )  # fmt: skip


class BranchConv(nn.Module):
    """One branch: [pool] -> convolution -> [BN] -> [ReLU] -> [back to the full size]."""

    fold_pairs = (("conv", "bn"),)

    def __init__(self, branch: Branch, geometry: Geometry, norm: bool, act: bool) -> None:
        super().__init__()
        self.branch, self.stride = branch, geometry.stride
        self.conv = branch_convolution(branch, geometry)
        self.bn = nn.BatchNorm2d(geometry.out_chs) if norm else nn.Identity()
        self.act = nn.ReLU(inplace=True) if act else nn.Identity()

    def kernel(self, in_chs: int, like: Tensor) -> Tensor:
        """The branch as a dense kernel (C_out, C_in, height, width) of its extent, without groups or dilation.

        `like` gives an identity, which has no weights, its type and device.
        """
        branch = self.branch
        if not isinstance(self.conv, nn.Conv2d):
            return torch.eye(in_chs, dtype=like.dtype, device=like.device)[:, :, None, None]
        weight = _without_groups(self.conv)
        height, width = branch.size
        if branch.kind == "avg_pool":
            return weight.expand(-1, -1, height, width) / (height * width)
        if branch.dilation == 1:
            return weight
        dense = weight.new_zeros(*weight.shape[:2], *branch.extent)
        dense[:, :, :: branch.dilation, :: branch.dilation] = weight
        return dense

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H/s), ceil(W/s))."""
        size = ((x.shape[-2] - 1) // self.stride + 1, (x.shape[-1] - 1) // self.stride + 1)
        if self.branch.down > 1:
            down = self.branch.down
            if self.branch.pool == "max":
                x = F.max_pool2d(x, down, ceil_mode=True)
            else:
                x = F.avg_pool2d(x, down, ceil_mode=True, count_include_pad=False)
        x = self.conv(x)
        if self.branch.kind == "avg_pool":
            # Averaging zeros at the border is what lets the branch fold into a zero-padded convolution.
            height, width = self.branch.size
            x = F.avg_pool2d(x, (height, width), self.stride, (height // 2, width // 2))
        return resize_to(self.act(self.bn(x)), size)


def _without_groups(conv: nn.Conv2d) -> Tensor:
    """A grouped convolution's kernel with the zeros between its groups written out."""
    if conv.groups == 1:
        return conv.weight
    rows = conv.out_channels // conv.groups
    blocks = [conv.weight[g * rows : (g + 1) * rows] for g in range(conv.groups)]  # (C_out/G, C_in/G, h, w) each
    columns = conv.in_channels // conv.groups
    padded = [F.pad(b, (0, 0, 0, 0, g * columns, conv.in_channels - (g + 1) * columns)) for g, b in enumerate(blocks)]
    return torch.cat(padded, 0)


def sum_kernels(kernels: list[Tensor]) -> Tensor:
    """The sum of kernels (C_out, C_in, h_i, w_i) of odd sizes, each padded to the largest."""
    height, width = (max(k.shape[axis] for k in kernels) for axis in (2, 3))
    total = kernels[0].new_zeros(*kernels[0].shape[:2], height, width)
    for kernel in kernels:
        up, left = (height - kernel.shape[2]) // 2, (width - kernel.shape[3]) // 2
        total = total + F.pad(kernel, (left, left, up, up))
    return total


Part = tuple[slice, Tensor]
"""Channels of an operator's output, and what one branch adds to them (B, C, H, W)."""


class MultiScaleConv2d(nn.Module):
    """The operator of the grammar: parallel or cascaded branches, joined by concatenation, sum or softmax.

    Attributes:
        spec: the operator as data.
        has_norm, has_act: whether BN and activation are inside, so that the block adds none.
    """

    def __init__(self, spec: Operator, geometry: Geometry) -> None:
        super().__init__()
        self.spec, self.geometry = spec, geometry
        self.has_norm = spec.norm == "branch"
        self.has_act = spec.act
        self.in_widths = self._widths(geometry.in_chs, spec.split == "channels")
        self.out_widths = self._widths(geometry.out_chs, spec.merge == "concat")
        self.paths = nn.ModuleList(
            BranchConv(branch, Geometry(i, o, geometry.stride), self.has_norm, spec.act)
            for branch, i, o in zip(spec.branches, self.in_widths, self.out_widths, strict=True)
        )
        self.attn: nn.Module = nn.Identity()
        if spec.merge == "softmax":
            self.attn = SoftmaxFusion(geometry.out_chs, len(spec.branches), spec.reduction, spec.divisor)

    def _widths(self, channels: int, shared: bool) -> list[int]:
        return allocate(channels, self.spec.branches) if shared else [channels] * len(self.spec.branches)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The branches as data, in the order of `paths`."""
        return self.spec.branches

    def out_slices(self) -> list[slice]:
        """The channels of the output that each branch makes, where they stand side by side."""
        ends = [0, *accumulate(self.out_widths)]
        return [slice(a, b) for a, b in pairwise(ends)]

    def kernel(self) -> Tensor:
        """A linear operator's one kernel, before any BN."""
        like = next(self.parameters())
        return sum_kernels([path.kernel(self.geometry.in_chs, like) for path in self.paths])  # type: ignore[operator]

    def branch_maps(self, x: Tensor) -> list[Tensor]:
        """(B, C_in, H, W) -> each branch's own map, before the merge."""
        inputs = x.split(self.in_widths, 1) if self.spec.split == "channels" else [x] * len(self.paths)
        return [path(part) for path, part in zip(self.paths, inputs, strict=True)]

    def parts(self, x: Tensor) -> list[Part]:
        """What each branch adds to which channels of the output; together they are the output."""
        maps = self.branch_maps(x)
        if self.spec.merge == "softmax":
            maps = list((torch.stack(maps, 1) * self.attn.weights(torch.stack(maps, 1))).unbind(1))  # type: ignore[operator]
        if self.spec.merge == "concat":
            return _side_by_side(maps)
        return [(slice(None), m) for m in maps]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H/s), ceil(W/s))."""
        if self.spec.linear and not self.has_norm:
            kernel = self.kernel()
            stride, padding = (self.geometry.stride,) * 2, (kernel.shape[2] // 2, kernel.shape[3] // 2)
            return convolve(x, kernel, stride, padding) if self.training else F.conv2d(x, kernel, None, stride, padding)
        outputs = self.branch_maps(x)
        if self.spec.merge == "softmax":
            return self.attn(torch.stack(outputs, 1))  # type: ignore[no-any-return]
        if self.spec.merge == "concat":
            return torch.cat(outputs, 1)
        total = outputs[0]
        for output in outputs[1:]:
            total = total + output
        return total


def _side_by_side(maps: list[Tensor]) -> list[Part]:
    ends = [0, *accumulate(m.shape[1] for m in maps)]
    return [(slice(a, b), m) for (a, b), m in zip(pairwise(ends), maps, strict=True)]


class CascadeConv2d(nn.Module):
    """Res2Net's hierarchy: each group of channels is convolved after adding the group before it.

    The last group passes through. The first block of a stage adds nothing between groups, and averages the last one
    down (3x3, zeros counted), as the released weights expect. State-dict names are Res2Net's: `convs.i`, `bns.i`.
    """

    has_norm = has_act = True

    def __init__(self, spec: Operator, geometry: Geometry) -> None:
        super().__init__()
        self.spec, self.geometry = spec, geometry
        self.convolved = [b for b in spec.branches if b.kind == "conv"]
        scale = len(spec.branches)
        if geometry.in_chs % scale or geometry.in_chs != geometry.out_chs:
            raise UsageError(
                f"{geometry.in_chs} -> {geometry.out_chs} channels cannot make a cascade of {scale} equal groups",
                hint="a width that the scale divides",
            )
        width = geometry.in_chs // scale
        self.width, self.passes = width, scale > len(self.convolved)
        part = Geometry(width, width, geometry.stride)
        self.convs = nn.ModuleList(branch_convolution(b, part) for b in self.convolved)
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for _ in self.convolved)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.AvgPool2d(3, geometry.stride, 1) if geometry.first and self.passes else nn.Identity()
        self.fold_pairs = tuple((f"convs.{i}", f"bns.{i}") for i in range(len(self.convolved)))

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The branches as data, in the order of the joined channels."""
        return self.spec.branches

    def parts(self, x: Tensor) -> list[Part]:
        """What each group adds to which channels of the output; together they are the output."""
        return _side_by_side(self.branch_maps(x))

    def branch_maps(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> each group's map, finest first, the one that passes through last."""
        groups = x.split(self.width, 1)
        outputs: list[Tensor] = []
        for i, (conv, bn) in enumerate(zip(self.convs, self.bns, strict=True)):
            group = groups[i] if i == 0 or self.geometry.first else groups[i] + outputs[-1]
            outputs.append(self.act(bn(conv(group))))
        if self.passes:
            outputs.append(self.pool(groups[-1]))
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, ceil(H/s), ceil(W/s))."""
        return torch.cat(self.branch_maps(x), 1)


class RadixConv2d(nn.Module):
    """ResNeSt's split attention: one grouped convolution makes `radix` maps, a softmax over them weighs the sum.

    The convolution's output is radix-major, the logits are group-major. Names are those of timm's `SplitAttn`.
    """

    has_norm = has_act = True
    fold_pairs = (("conv", "bn0"), ("fc1", "bn1"))

    def __init__(self, spec: Operator, geometry: Geometry) -> None:
        super().__init__()
        in_chs, out_chs, stride, _ = geometry
        self.spec, self.geometry = spec, geometry
        self.radix = len(spec.branches)
        self.groups = 1 if spec.branches[0].groups == "depthwise" else spec.branches[0].groups
        if in_chs % (self.groups * self.radix) or out_chs % self.groups:
            raise UsageError(
                f"{in_chs} -> {out_chs} channels cannot make {self.radix} radix splits of {self.groups} groups",
                hint="a width that radix times groups divides",
            )
        hidden = make_divisible(in_chs * self.radix / 4, 8, minimum=32)
        wide = self.groups * self.radix
        self.conv = nn.Conv2d(in_chs, out_chs * self.radix, 3, stride, 1, groups=wide, bias=False)
        self.bn0 = nn.BatchNorm2d(out_chs * self.radix)
        self.act0 = nn.ReLU(inplace=True)
        self.fc1 = nn.Conv2d(out_chs, hidden, 1, groups=self.groups)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.act1 = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(hidden, out_chs * self.radix, 1, groups=self.groups)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The branches as data: one per radix."""
        return self.spec.branches

    def parts(self, x: Tensor) -> list[Part]:
        """What each radix split adds to the output; together they are the output."""
        return [(slice(None), m) for m in self._weighted(x).unbind(1)]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H/s), ceil(W/s))."""
        return self._weighted(x).sum(1)

    def _weighted(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, R, C_out, h, w)."""
        x = self.act0(self.bn0(self.conv(x)))
        batch, _, height, width = x.shape
        x = x.reshape(batch, self.radix, -1, height, width)  # (B, R, C, H, W)
        pooled = x.sum(1).mean((2, 3), keepdim=True)
        logits = self.fc2(self.act1(self.bn1(self.fc1(pooled))))
        logits = logits.view(batch, self.groups, self.radix, -1).transpose(1, 2)  # (B, R, G, C/G)
        weights = logits.sigmoid() if self.radix == 1 else logits.softmax(1)
        weighted: Tensor = x * weights.reshape(batch, self.radix, -1, 1, 1)
        return weighted


def build_operator(spec: Operator, geometry: Geometry) -> nn.Module:
    """The module for an operator: its own, a bare convolution where it is one, else one of the three classes above.

    Raises UsageError for a combination of operator and width that cannot be built.
    """
    if spec.module is not None:
        return spec.module(spec, geometry)  # type: ignore[no-any-return]
    if len(spec.branches) == 1 and spec.norm == "after" and spec.branches[0].kind == "conv":
        return branch_convolution(spec.branches[0], geometry)
    if spec.connect == "cascade":
        return CascadeConv2d(spec, geometry)
    if spec.split == "radix":
        return RadixConv2d(spec, geometry)
    if spec.linear and (geometry.in_chs != geometry.out_chs or geometry.stride != 1):
        # An identity exists only where the shape stays (RepVGG, arXiv 2101.03697, figure 2).
        spec = replace(spec, branches=tuple(b for b in spec.branches if b.kind != "identity"))
    return MultiScaleConv2d(spec, geometry)

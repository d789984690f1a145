"""Exact surgery: channels inside residual blocks are taken out, and what is left computes as if they had been zero.

A block's ends keep their channels, since shortcuts add them up; what can go stands between its convolutions. Those
channels are its *gates*: what its second convolution is given, then what its third is given, C of each. Some go only
together (a cascade adds its groups to each other), and of each split of an operator the same share is kept, so that the
pruned block is the same block of another width.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd, lcm
from typing import NamedTuple

import torch
from torch import Tensor, nn

from msresnet.nn.blocks import BasicBlock, Bottleneck, PreActBasicBlock, PreActBottleneck, ResidualBlock
from msresnet.nn.operators import CascadeConv2d, MultiScaleConv2d


class Form(NamedTuple):
    """Where a block's gates are: the convolutions that are given them, and the BN before each."""

    given: tuple[str, ...]
    norms: tuple[str, ...]


FORMS: dict[type[ResidualBlock], Form] = {
    BasicBlock: Form(("conv2",), ("bn1",)),
    Bottleneck: Form(("conv2", "conv3"), ("bn1", "bn2")),
    PreActBasicBlock: Form(("conv2",), ("bn2",)),
    PreActBottleneck: Form(("conv2", "conv3"), ("bn2", "bn3")),
}


class Choice(NamedTuple):
    """Gates of which some are kept.

    Args:
        atoms: (N, M) indices of gates; those of a row stay or go together.
        bins: (N,) which split each row belongs to; of each the same share is kept.
    """

    atoms: Tensor
    bins: Tensor


@dataclass(frozen=True)
class Inside:
    """What can be taken out of a block.

    Args:
        width: C, the channels of its operator.
        choices: about all of its gates.
        step: the widths that can be built are multiples of it.
    """

    width: int
    choices: tuple[Choice, ...]
    step: int

    def kept(self, scores: Tensor, width: int) -> Tensor:
        """The gates, rising, that score most where `width` channels are left; `scores` has a number for each gate."""
        chosen = []
        for atoms, bins in self.choices:
            worth = scores[atoms].sum(1)
            for number in bins.unique():
                mine = (bins == number).nonzero()[:, 0]
                best = worth[mine].argsort(descending=True, stable=True)[: len(mine) * width // self.width]
                chosen.append(atoms[mine[best]].flatten())
        return torch.cat(chosen).sort().values


class Sides(NamedTuple):
    """What an operator says about its channels: the bins of each input and output, and whether they go together."""

    inputs: Tensor
    outputs: Tensor
    tied: Tensor | None = None
    """(N, M) channels that go together, at both ends."""


def blocks_of(model: nn.Module) -> dict[str, ResidualBlock]:
    """Every residual block of a network, by its path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, ResidualBlock)}


def inside(block: ResidualBlock) -> Inside | None:
    """What can be taken out of a block; None where an operator ties all of its channels together."""
    if type(block) not in FORMS:
        return None
    if len(FORMS[type(block)].given) == 1:
        return _between(_sides(block.conv1), _sides(block.conv2))
    operator = _sides(block.conv2)
    return None if operator is None else _around(operator)


def _between(first: Sides | None, second: Sides | None) -> Inside | None:
    """Of two operators behind each other: the channels between them."""
    if first is None or second is None or second.tied is not None or first.tied is not None:
        return None
    width = len(second.inputs)
    bins = first.outputs * (int(second.inputs.max()) + 1) + second.inputs
    return _inside(width, (Choice(torch.arange(width)[:, None], bins),))


def _around(operator: Sides) -> Inside:
    """Of an operator between two 1x1 convolutions: its inputs and its outputs."""
    width, ends = len(operator.inputs), torch.arange(len(operator.inputs))[:, None]
    if operator.tied is None:
        return _inside(width, (Choice(ends, operator.inputs), Choice(ends + width, operator.outputs)))
    atoms = torch.cat([operator.tied, operator.tied + width], 1)
    return _inside(width, (Choice(atoms, operator.inputs[operator.tied[:, 0]]),))


def _inside(width: int, choices: tuple[Choice, ...]) -> Inside:
    counts = [int(n) for choice in choices for n in choice.bins.unique(return_counts=True)[1]]
    return Inside(width, choices, width // gcd(width, *counts))


def _sides(operator: nn.Module) -> Sides | None:
    """What an operator allows; None for one that cannot lose channels exactly."""
    if isinstance(operator, nn.Conv2d):
        return _sides_of_groups(operator.in_channels, operator.out_channels, operator.groups)
    if isinstance(operator, CascadeConv2d):
        # Each group is added to the next one, so that the same channels of all groups go together.
        starts = torch.arange(operator.geometry.in_chs // operator.width) * operator.width
        groups = max((conv.groups for conv in operator.convs if isinstance(conv, nn.Conv2d)), default=1)
        bins = (torch.arange(operator.width) // (operator.width // groups)).repeat(len(starts))
        return Sides(bins, bins, torch.arange(operator.width)[:, None] + starts)
    if isinstance(operator, MultiScaleConv2d) and operator.spec.merge != "softmax":
        return _sides_of_branches(operator)
    return None


def _sides_of_groups(in_chs: int, out_chs: int, groups: int) -> Sides:
    inputs, outputs = (torch.arange(n) // (n // groups) for n in (in_chs, out_chs))
    if groups > 1 and groups == in_chs:
        return Sides(torch.zeros_like(inputs), torch.zeros_like(outputs), torch.arange(in_chs)[:, None])
    return Sides(inputs, outputs)


def _sides_of_branches(operator: MultiScaleConv2d) -> Sides | None:
    """Of branches side by side: each keeps the same share; of branches that are summed: all keep the same channels."""
    in_chs, out_chs, _, _ = operator.geometry
    own = [b.kind == "identity" or b.groups == "depthwise" for b in operator.branches]
    if any(own):
        if not all(own) and operator.spec.merge == "concat":
            return None
        if in_chs != out_chs:
            return None
        groups = lcm(*(int(b.groups) for b in operator.branches if b.groups != "depthwise"))
        bins = torch.arange(in_chs) // (in_chs // groups)
        if operator.spec.merge == "concat":
            bins = torch.repeat_interleave(torch.arange(len(own)), torch.tensor(operator.out_widths))
        return Sides(bins, bins, torch.arange(in_chs)[:, None])
    each = [int(b.groups) for b in operator.branches]
    inputs, outputs = (torch.arange(n) // (n // lcm(*each)) for n in (in_chs, out_chs))
    if operator.spec.split == "channels":
        inputs = _side_by_side(list(zip(each, operator.in_widths, strict=True)))
    if operator.spec.merge == "concat":
        outputs = _side_by_side(list(zip(each, operator.out_widths, strict=True)))
    return Sides(inputs, outputs)


def _side_by_side(parts: list[tuple[int, int]]) -> Tensor:
    """Bins of branches of (groups, channels) behind each other: the groups of each."""
    bins, first = [], 0
    for groups, channels in parts:
        bins.append(first + torch.arange(channels) // (channels // groups))
        first += groups
    return torch.cat(bins)


@torch.no_grad()
def pruned_state(model: nn.Module, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a network without some gates; the network is left as it is.

    Args:
        model: with residual blocks.
        kept: for the path of a block, the gates that stay, rising, as many of each place.
    """
    smaller = copy.deepcopy(model)
    for path, gates in kept.items():
        block = smaller.get_submodule(path)
        assert isinstance(block, ResidualBlock)
        _cut_block(block, gates)
    return smaller.state_dict()


def _cut_block(block: ResidualBlock, gates: Tensor) -> None:
    given, norms = FORMS[type(block)]
    width = block.spec.width
    places = [gates[(gates >= i * width) & (gates < (i + 1) * width)] - i * width for i in range(len(given))]
    _cut(block.conv1, None, places[0])
    for index, (name, norm) in enumerate(zip(given, norms, strict=True)):
        _cut(block.get_submodule(name), places[index], places[index + 1] if index + 1 < len(places) else None)
        _cut_norm(block.get_submodule(norm), places[index])


def _cut(operator: nn.Module, inputs: Tensor | None, outputs: Tensor | None) -> None:
    """Keep some inputs and outputs of an operator, None all, in place."""
    if isinstance(operator, nn.Conv2d):
        _cut_convolution(operator, inputs, outputs)
    elif isinstance(operator, CascadeConv2d):
        assert inputs is not None
        own = inputs[inputs < operator.width]
        for conv, norm in zip(operator.convs, operator.bns, strict=True):
            _cut(conv, own, own)
            _cut_norm(norm, own)
    else:
        assert isinstance(operator, MultiScaleConv2d)
        _cut_branches(operator, inputs, outputs)


def _cut_branches(operator: MultiScaleConv2d, inputs: Tensor | None, outputs: Tensor | None) -> None:
    start_in = start_out = 0
    for path, in_chs, out_chs in zip(operator.paths, operator.in_widths, operator.out_widths, strict=True):
        ins, outs = inputs, outputs
        if operator.spec.split == "channels":
            ins, start_in = _part(inputs, start_in, in_chs), start_in + in_chs
        if operator.spec.merge == "concat":
            outs, start_out = _part(outputs, start_out, out_chs), start_out + out_chs
        conv, norm = path.get_submodule("conv"), path.get_submodule("bn")
        if isinstance(conv, nn.Conv2d):
            _cut_convolution(conv, ins, outs)
        if outs is not None:
            _cut_norm(norm, outs)


def _part(indices: Tensor | None, start: int, length: int) -> Tensor | None:
    """Those of some indices within a part, counted from its start."""
    return None if indices is None else indices[(indices >= start) & (indices < start + length)] - start


def _cut_convolution(conv: nn.Conv2d, inputs: Tensor | None, outputs: Tensor | None) -> None:
    """Keep some inputs and outputs of a convolution (weights (C_out, C_in / G, h, w)), as many of each of G groups."""
    rows, columns = conv.out_channels // conv.groups, conv.in_channels // conv.groups
    depthwise = conv.groups > 1 and conv.groups == conv.in_channels
    outputs = torch.arange(conv.out_channels) if outputs is None else outputs
    inputs = torch.arange(conv.in_channels) if inputs is None else inputs
    if depthwise:
        kept = conv.weight[outputs]
    else:
        parts = [(_part(outputs, g * rows, rows), _part(inputs, g * columns, columns)) for g in range(conv.groups)]
        kept = torch.cat([conv.weight[g * rows :][outs][:, ins] for g, (outs, ins) in enumerate(parts)])
    conv.weight = nn.Parameter(kept.clone())
    if conv.bias is not None:
        conv.bias = nn.Parameter(conv.bias[outputs].clone())


def _cut_norm(norm: nn.Module, kept: Tensor) -> None:
    """Keep some channels of a BN; nothing where there is none."""
    if not isinstance(norm, nn.BatchNorm2d):
        return
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.weight, norm.bias = nn.Parameter(norm.weight[kept].clone()), nn.Parameter(norm.bias[kept].clone())
    norm.running_mean, norm.running_var = norm.running_mean[kept].clone(), norm.running_var[kept].clone()

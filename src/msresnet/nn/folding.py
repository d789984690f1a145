"""Exact folding: BatchNorm into convolutions, and linear branches into one convolution.

The folded network computes the same function in evaluation, in fewer passes over memory. All arithmetic is done in
float64, so that what differs is the rounding of the result alone. A module names its (convolution, BatchNorm) pairs in
`fold_pairs`; neighbours in an `nn.Sequential` are paired by their order.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.nn.operators import BranchConv, MultiScaleConv2d, sum_kernels

M = TypeVar("M", bound=nn.Module)


def fold(model: M) -> M:
    """A folded copy of a model in evaluation mode; the original is left as it is.

    Raises UsageError for a model in training mode, whose BatchNorm is not a fixed linear map.
    """
    if model.training:
        raise UsageError("a model in training mode cannot be folded", hint="model.eval() first")
    folded = copy.deepcopy(model)
    with torch.no_grad():
        for path, module in list(folded.named_modules()):
            if isinstance(module, MultiScaleConv2d) and module.spec.linear:
                _replace(folded, path, fold_operator(module))
        for conv_path, bn_path in list(_pairs(folded)):
            conv, bn = folded.get_submodule(conv_path), folded.get_submodule(bn_path)
            if not isinstance(bn, nn.BatchNorm2d):
                continue
            if isinstance(conv, nn.Conv2d):
                _replace(folded, conv_path, fold_conv_bn(conv, bn))
                _replace(folded, bn_path, nn.Identity())
            elif isinstance(conv, MultiScaleConv2d) and _takes_bn(conv):
                for path, channels in zip(conv.paths, conv.out_slices(), strict=True):
                    path.conv = fold_conv_bn(path.conv, _part(bn, channels))  # type: ignore[arg-type]
                _replace(folded, bn_path, nn.Identity())
    return folded


def _takes_bn(operator: MultiScaleConv2d) -> bool:
    """Whether every output channel comes from one convolution, so that each can take its part of the BN behind.

    Resizing a map keeps constants, so a branch at a lower resolution can; averaging with zeros does not.
    """
    convolutions = all(b.kind == "conv" for b in operator.branches)
    return operator.spec.merge == "concat" and not operator.has_norm and not operator.has_act and convolutions


def _part(bn: nn.BatchNorm2d, channels: slice) -> nn.BatchNorm2d:
    """The BN of some of the channels."""
    part = nn.BatchNorm2d(channels.stop - channels.start, bn.eps).to(bn.weight.device, bn.weight.dtype)
    part.load_state_dict({k: v[channels] if v.ndim else v for k, v in bn.state_dict().items()})
    return part


def _pairs(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Paths of convolutions and of the BatchNorms that follow them."""
    for path, module in model.named_modules():
        dot = f"{path}." if path else ""
        names = [name for name, _ in module.named_children()]
        neighbours = pairwise(names) if isinstance(module, nn.Sequential) else ()
        for conv, bn in (*getattr(module, "fold_pairs", ()), *neighbours):
            child = module.get_submodule(conv)
            # A deep stem ends in the convolution that is meant.
            last = f".{len(child) - 1}" if isinstance(child, nn.Sequential) and len(child) else ""
            yield dot + conv + last, dot + bn


def _replace(model: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)


@torch.no_grad()
def fold_conv_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution with a bias that does what a convolution and its BatchNorm do in evaluation."""
    scale, shift = _affine(bn)
    bias = shift if conv.bias is None else shift + scale * conv.bias.double()
    folded = copy.deepcopy(conv)
    folded.bias = nn.Parameter(torch.empty_like(bias, dtype=conv.weight.dtype))
    folded.weight.copy_(conv.weight.double() * scale.view(-1, 1, 1, 1))
    folded.bias.copy_(bias)
    return folded


@torch.no_grad()
def fold_operator(operator: MultiScaleConv2d) -> nn.Conv2d:
    """The one convolution that a linear operator is: the sum of its branches' kernels, each padded to the largest.

    Raises UsageError for an operator that is not linear.
    """
    if not operator.spec.linear:
        hint = "branches without their own normalisation, summed"
        raise UsageError("only a linear operator folds into one convolution", hint=hint)
    in_chs, out_chs, stride, _ = operator.geometry
    like = next(operator.parameters())
    kernels, shifts = [], []
    for path in operator.paths:
        assert isinstance(path, BranchConv)
        kernel = path.kernel(in_chs, like).double()
        if isinstance(path.bn, nn.BatchNorm2d):
            scale, shift = _affine(path.bn)
            kernel = kernel * scale.view(-1, 1, 1, 1)
            shifts.append(shift)
        kernels.append(kernel)
    kernel = sum_kernels(kernels)
    height, width = kernel.shape[2:]
    conv = nn.Conv2d(in_chs, out_chs, (height, width), stride, (height // 2, width // 2), bias=bool(shifts))
    conv = conv.to(like.device, like.dtype)
    conv.weight.copy_(kernel)
    if conv.bias is not None:
        conv.bias.copy_(torch.stack(shifts).sum(0))
    return conv.train(operator.training)


def _affine(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The scale and shift (C,) in float64 that BatchNorm is in evaluation."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    return scale, bn.bias.double() - bn.running_mean.double() * scale

"""Exact folding: BatchNorm into convolutions, and linear branches into one convolution.

The folded network computes the same function in evaluation, in fewer passes over memory. All arithmetic is done in
float64, so that what differs is the rounding of the result alone. A module names its (convolution, BatchNorm) pairs in
`fold_pairs`; neighbours in an `nn.Sequential` are paired by their order.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.nn.operators import BranchConv, MultiScaleConv2d

M = TypeVar("M", bound=nn.Module)


def fold(model: M) -> M:
    """A folded copy of a model in evaluation mode; the original is left as it is.

    Raises UsageError for a model in training mode, whose BatchNorm is no fixed linear map.
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
            if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
                _replace(folded, conv_path, fold_conv_bn(conv, bn))
                _replace(folded, bn_path, nn.Identity())
    return folded


def _pairs(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Paths of convolutions and of the BatchNorms that follow them."""
    for path, module in model.named_modules():
        dot = f"{path}." if path else ""
        names = [name for name, _ in module.named_children()]
        neighbours = zip(names, names[1:], strict=False) if isinstance(module, nn.Sequential) else ()
        for conv, bn in (*getattr(module, "fold_pairs", ()), *neighbours):
            child = module.get_submodule(conv)
            if isinstance(child, nn.Sequential) and len(child):  # a deep stem ends in the convolution that is meant
                conv = f"{conv}.{len(child) - 1}"
            yield dot + conv, dot + bn


def _replace(model: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)


def fold_conv_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution with a bias that does what a convolution and its BatchNorm do in evaluation."""
    scale, shift = _affine(bn)
    bias = shift if conv.bias is None else shift + scale * conv.bias.double()
    folded = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups
    ).to(conv.weight.device, conv.weight.dtype)  # fmt: skip
    folded.weight.copy_(conv.weight.double() * scale.view(-1, 1, 1, 1))
    assert folded.bias is not None
    folded.bias.copy_(bias)
    return folded.train(conv.training)


def fold_operator(operator: MultiScaleConv2d) -> nn.Conv2d:
    """The one convolution that a linear operator is: the sum of its branches' kernels, each padded to the largest.

    Raises UsageError for an operator that is not linear.
    """
    if not operator.spec.linear:
        raise UsageError("only a linear operator folds into one convolution")
    paths = [path for path in operator.paths if isinstance(path, BranchConv)]
    extent = tuple(max(p.branch.extent[axis] for p in paths) for axis in (0, 1))
    in_chs, out_chs, stride, _ = operator.geometry
    like = next(operator.parameters())
    conv = nn.Conv2d(in_chs, out_chs, extent, stride, (extent[0] // 2, extent[1] // 2))  # type: ignore[arg-type]
    conv = conv.to(like.device, like.dtype)
    weight = torch.zeros_like(conv.weight, dtype=torch.float64)
    bias = torch.zeros(out_chs, dtype=torch.float64, device=like.device)
    for path in paths:
        assert isinstance(path.bn, nn.BatchNorm2d)
        scale, shift = _affine(path.bn)
        kernel = _dense_kernel(path, in_chs) * scale.view(-1, 1, 1, 1)
        up, left = (extent[0] - kernel.shape[2]) // 2, (extent[1] - kernel.shape[3]) // 2
        weight += F.pad(kernel, (left, left, up, up))
        bias += shift
    conv.weight.copy_(weight)
    assert conv.bias is not None
    conv.bias.copy_(bias)
    return conv.train(operator.training)


def _affine(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The scale and shift (C,) in float64 that BatchNorm is in evaluation."""
    assert bn.running_mean is not None and bn.running_var is not None
    scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    return scale, bn.bias.double() - bn.running_mean.double() * scale


def _dense_kernel(path: BranchConv, in_chs: int) -> Tensor:
    """A branch's kernel (C_out, C_in, h, w) without groups or dilation, in float64."""
    branch = path.branch
    if branch.kind == "identity":
        assert isinstance(path.bn, nn.BatchNorm2d)
        return torch.eye(in_chs, dtype=torch.float64, device=path.bn.weight.device)[:, :, None, None]
    assert isinstance(path.conv, nn.Conv2d)
    kernel = _without_groups(path.conv)
    if branch.kind == "avg_pool":
        height, width = branch.size
        return kernel.expand(-1, -1, height, width) / (height * width)
    height, width = branch.extent
    dense = kernel.new_zeros(*kernel.shape[:2], height, width)
    dense[:, :, :: branch.dilation, :: branch.dilation] = kernel
    return dense


def _without_groups(conv: nn.Conv2d) -> Tensor:
    out_chs, per_group = conv.weight.shape[:2]
    dense = conv.weight.new_zeros(out_chs, conv.in_channels, *conv.weight.shape[2:], dtype=torch.float64)
    rows = out_chs // conv.groups
    for g in range(conv.groups):
        dense[g * rows : (g + 1) * rows, g * per_group : (g + 1) * per_group] = conv.weight[g * rows : (g + 1) * rows]
    return dense

"""Convolutions of maps of a few pixels, as matrix products, while a network learns on a CPU.

oneDNN shares a convolution's work among places. Where there are few of them and many channels, matrix products of the
same numbers take less time: a half to two thirds in bf16, a fifth to a third where the output is a single place, in
float32 too (torch 2.13, benchmarks/results/small_maps.md). The sums are the same but for rounding.

B batch, C channels, H and W pixels, h and w of the kernel; primes mark the output's.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FEW_PLACES, MANY_CHANNELS = 16, 128
"""Places of an output at most, and channels on both sides at least, that are worth it."""
Pair = tuple[int, int]
"""Down, and to the right."""
Links = list[tuple[int, int, int]]
"""Along a side: places of the output and of the input, and the place of the kernel that ties them."""


class Convolution(nn.Conv2d):
    """A convolution without groups and dilation; while it learns, and has no bias, it is `convolve`d."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        if not self.training or self.bias is not None:
            return super().forward(x)
        return convolve(x, self.weight, self.stride, self.padding)  # type: ignore[arg-type]


def convolve(x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Maps (B, C, H, W) and a kernel (C', C, h, w) -> (B, C', H', W'), whose gradients are asked for once."""
    if not (torch.is_grad_enabled() and _is_small(x, weight, stride)):
        return F.conv2d(x, weight, None, stride, padding)
    if torch.is_autocast_enabled("cpu"):
        low = torch.get_autocast_dtype("cpu")
        x, weight = x.to(low), weight.to(low)
    rows, columns = (_links(x.shape[2 + i], weight.shape[2 + i], stride[i], padding[i]) for i in (0, 1))
    if rows and columns:
        return _Whole.apply(x, weight, rows, columns)  # type: ignore[no-any-return, no-untyped-call]
    if weight.dtype == torch.bfloat16:
        return _Gathered.apply(x, weight, stride, padding)  # type: ignore[no-any-return, no-untyped-call]
    return F.conv2d(x, weight, None, stride, padding)


def _is_small(x: Tensor, weight: Tensor, stride: Pair) -> bool:
    if torch.compiler.is_compiling() or x.device.type != "cpu" or min(weight.shape[:2]) < MANY_CHANNELS:
        return False
    return -(-x.shape[2] // stride[0]) * -(-x.shape[3] // stride[1]) <= FEW_PLACES


def _links(side: int, kernel: int, stride: int, padding: int) -> Links:
    """All pairs of an output and an input, where each output sees the whole side; else none."""
    out = (side + 2 * padding - kernel) // stride + 1
    if side + padding > kernel or stride * (out - 1) > padding:
        return []
    return [(o, i, i - stride * o + padding) for o in range(out) for i in range(side)]


class _Whole(torch.autograd.Function):
    """A convolution in which each output sees the whole map: one matrix (H' W' C', H W C), made of the kernel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, rows: Links, columns: Links) -> Tensor:
        high, wide = rows[-1][0] + 1, columns[-1][0] + 1
        (c_out, c_in), (tall, across) = weight.shape[:2], x.shape[2:]
        tied = weight.new_empty(high, wide, c_out, tall, across, c_in)
        for (o, i, a), (p, j, b) in product(rows, columns):
            tied[o, p, :, i, j] = weight[:, :, a, b]
        pixels, matrix = x.permute(0, 2, 3, 1).flatten(1), tied.view(-1, tall * across * c_in)
        ctx.save_for_backward(pixels, matrix, weight)
        ctx.links, ctx.size = (rows, columns), tied.shape
        return (pixels @ matrix.T).view(-1, high, wide, c_out).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        pixels, matrix, weight = ctx.saved_tensors
        places = gradient.permute(0, 2, 3, 1).flatten(1)
        by_pixels = (places @ matrix).view(-1, *ctx.size[3:]).permute(0, 3, 1, 2)
        tied, by_weights = (places.T @ pixels).view(ctx.size), torch.zeros_like(weight)
        for (o, i, a), (p, j, b) in product(*ctx.links):
            by_weights[:, :, a, b] += tied[o, p, :, i, j]
        return by_pixels, by_weights, None, None


class _Gathered(torch.autograd.Function):
    """A convolution whose gradient by the weights is the product of its outputs' with the pixels that each saw."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (x, weight), stride, padding = ctx.saved_tensors, ctx.stride, ctx.padding
        by_pixels, _, _ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, stride, padding, (1, 1), False, (0, 0), 1, (True, False, False)
        )
        seen = _seen(x, (weight.shape[2], weight.shape[3]), stride, padding, (gradient.shape[2], gradient.shape[3]))
        by_weights = gradient.permute(0, 2, 3, 1).flatten(0, 2).T @ seen.flatten(3).flatten(0, 2)
        return by_pixels, by_weights.unflatten(1, seen.shape[3:]).permute(0, 3, 1, 2), None, None


def _seen(x: Tensor, kernel: Pair, stride: Pair, padding: Pair, places: Pair) -> Tensor:
    """The pixels that each place of the output sees, zeros around the map: (B, H', W', h, w, C), a view."""
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
    image, row, column, channel = padded.stride()
    strides = (image, row * stride[0], column * stride[1], row, column, channel)
    return padded.as_strided((len(x), *places, *kernel, x.shape[1]), strides)

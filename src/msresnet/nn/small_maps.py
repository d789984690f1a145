"""Convolutions of maps of a few pixels, as matrix products, while a network learns on a CPU.

oneDNN shares a convolution's work among places. Where there are few of them and many channels, matrix products of the
same numbers may take half of its time, and a fifth where the output is a single place (torch 2.13,
benchmarks/results/small_maps.md). The sums are the same but for rounding.

B batch, C channels, H and W pixels, h and w of the kernel; primes mark the output's.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_PLACES, MANY_CHANNELS, MANY_IMAGES = 9, 128, 16
"""Places of an output at most, channels on both sides and images at least, that are worth it."""
MOST_REPEATED = 2.0
"""Times that a number of the kernel stands, on average, in the matrix for all places; more cost more than they save."""
Pair = tuple[int, int]
"""Down, and to the right."""


class SmallMapConv2d(nn.Conv2d):
    """A convolution without groups and dilation; while it learns, and has no bias, it is `convolve`d."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        if not self.training or self.bias is not None:
            return super().forward(x)
        return convolve(x, self.weight, self.stride, self.padding)  # type: ignore[arg-type]


def convolve(x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Maps (B, C, H, W) and a kernel (C', C, h, w) -> (B, C', H', W')."""
    if not (torch.is_grad_enabled() and weight.requires_grad and _is_ordinary(x) and _is_small(x, weight, stride)):
        return F.conv2d(x, weight, None, stride, padding)
    if torch.is_autocast_enabled("cpu"):
        low = torch.get_autocast_dtype("cpu")
        x, weight = x.to(low), weight.to(low)
    sides = tuple(Side(x.shape[2 + i], weight.shape[2 + i], stride[i], padding[i]) for i in (0, 1))
    repeated = sides[0].repeated * sides[1].repeated
    if repeated <= MOST_REPEATED and all(side.sees_all for side in sides):
        return _Whole.apply(x, weight, *sides)  # type: ignore[no-any-return, no-untyped-call]
    if weight.dtype == torch.bfloat16:
        return _Gathered.apply(x, weight, *sides)  # type: ignore[no-any-return, no-untyped-call]
    return F.conv2d(x, weight, None, stride, padding)


def _is_ordinary(x: Tensor) -> bool:
    """Whether images lie in memory, as numbers that autocast takes, and no program is made of what is done to them."""
    return not torch.compiler.is_compiling() and x.device.type == "cpu" and x.ndim == 4 and x.dtype != torch.float64


def _is_small(x: Tensor, weight: Tensor, stride: Pair) -> bool:
    places = -(-x.shape[2] // stride[0]) * -(-x.shape[3] // stride[1])
    return places <= FEW_PLACES and len(x) >= MANY_IMAGES and min(weight.shape[:2]) >= MANY_CHANNELS


@dataclass(frozen=True)
class Side:
    """A convolution along one side."""

    size: int
    kernel: int
    stride: int
    padding: int

    @property
    def places(self) -> int:
        """Of the output."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def sees_all(self) -> bool:
        """Whether each place of the output sees the whole side."""
        return self.size + self.padding <= self.kernel and self.stride * (self.places - 1) <= self.padding

    @property
    def repeated(self) -> float:
        """Pairs of an output and an input for each place of the kernel."""
        return self.places * self.size / self.kernel

    @property
    def links(self) -> list[tuple[int, int, int]]:
        """All pairs of an output and an input, with the place of the kernel that ties them."""
        pairs = product(range(self.places), range(self.size))
        return [(out, at, at - self.stride * out + self.padding) for out, at in pairs]


class _Whole(torch.autograd.Function):
    """A convolution in which each output sees the whole map: one matrix (H' W' C', H W C), made of the kernel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, rows: Side, columns: Side) -> Tensor:
        (c_out, c_in), high, wide = weight.shape[:2], rows.places, columns.places
        tied = weight.new_empty(high, wide, c_out, rows.size, columns.size, c_in)
        for (o, i, a), (p, j, b) in product(rows.links, columns.links):
            tied[o, p, :, i, j] = weight[:, :, a, b]
        matrix = tied.flatten(3).flatten(0, 2)
        ctx.save_for_backward(x, weight, matrix)
        ctx.sides, ctx.tied = (rows, columns), tied.shape
        out = (_flat(x) @ matrix.T).view(-1, high, wide, c_out).permute(0, 3, 1, 2)
        return out.clone()  # no view, so that what follows may change it in place

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        if torch.is_grad_enabled():
            return (*_by_torch(ctx, gradient, True), None, None)
        x, weight, matrix = ctx.saved_tensors
        by_pixels = None
        if ctx.needs_input_grad[0]:
            by_pixels = (_flat(gradient) @ matrix).view(-1, *ctx.tied[3:]).permute(0, 3, 1, 2)
        rows, columns = ctx.sides
        tied, by_weights = (_flat(gradient).T @ _flat(x)).view(ctx.tied), torch.zeros_like(weight)
        for (o, i, a), (p, j, b) in product(rows.links, columns.links):
            by_weights[:, :, a, b] += tied[o, p, :, i, j]
        return by_pixels, by_weights, None, None


class _Gathered(torch.autograd.Function):
    """A convolution whose gradient by the weights is the product of its outputs' with the pixels that each saw."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, rows: Side, columns: Side) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.sides = rows, columns
        return F.conv2d(x, weight, None, (rows.stride, columns.stride), (rows.padding, columns.padding))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        by_pixels, by_weights = _by_torch(ctx, gradient, torch.is_grad_enabled())
        if by_weights is None:
            seen = _seen(ctx.saved_tensors[0], *ctx.sides)
            each = gradient.permute(0, 2, 3, 1).flatten(0, 2).T @ seen.flatten(3).flatten(0, 2)
            by_weights = each.view(-1, *seen.shape[3:]).permute(0, 3, 1, 2)
        return by_pixels, by_weights, None, None


def _by_torch(ctx: Any, gradient: Tensor, weights: bool) -> tuple[Tensor | None, Tensor | None]:
    """Torch's own gradients by pixels, and by `weights` if asked for: those have gradients in turn."""
    (x, weight, *_), (rows, columns) = ctx.saved_tensors, ctx.sides
    stride, padding = (rows.stride, columns.stride), (rows.padding, columns.padding)
    wanted = (ctx.needs_input_grad[0], weights, False)
    by_pixels, by_weights, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, (1, 1), False, (0, 0), 1, wanted
    )
    return by_pixels, by_weights


def _flat(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W C)."""
    return maps.permute(0, 2, 3, 1).flatten(1)


def _seen(x: Tensor, rows: Side, columns: Side) -> Tensor:
    """The pixels that each place of the output sees, zeros around the map: (B, H', W', h, w, C), a view."""
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, columns.padding, columns.padding, rows.padding, rows.padding))
    image, down, right, channel = padded.stride()
    size = (len(x), rows.places, columns.places, rows.kernel, columns.kernel, x.shape[1])
    return padded.as_strided(size, (image, down * rows.stride, right * columns.stride, down, right, channel))

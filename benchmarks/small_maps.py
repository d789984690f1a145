"""Convolutions of small maps, forwards and backwards: by torch beside what msresnet does while a network learns.

Both take turns; figures are medians. They say where nn/small_maps.py pays, which another torch may change.

Run: python -m benchmarks.small_maps [--batch 64] [--threads 2] [--output benchmarks/results/small_maps.md]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from benchmarks.tables import publish, use_threads
from torch import Tensor

from msresnet.nn.small_maps import convolve


class Layer(NamedTuple):
    """A convolution of 3x3 and what it is given."""

    in_chs: int
    out_chs: int
    side: int
    stride: int

    def __str__(self) -> str:
        strided = f", stride {self.stride}" if self.stride > 1 else ""
        return f"{self.in_chs} to {self.out_chs} channels, {self.side}x{self.side}{strided}"


LAYERS = (
    Layer(512, 512, 1, 1), Layer(256, 512, 2, 2), Layer(256, 256, 2, 1), Layer(512, 512, 2, 1), Layer(512, 512, 3, 1),
    Layer(256, 512, 4, 2), Layer(256, 512, 6, 2),
)  # fmt: skip


def passes(layer: Layer, batch: int, dtype: torch.dtype, run: Callable[..., Tensor]) -> Callable[[], None]:
    """A pass forwards and backwards."""
    x, weight = (
        torch.randn(shape).contiguous(memory_format=torch.channels_last).to(dtype).requires_grad_()
        for shape in ((batch, layer.in_chs, layer.side, layer.side), (layer.out_chs, layer.in_chs, 3, 3))
    )
    gradient = torch.ones_like(run(x, weight, layer.stride))

    def both() -> None:
        x.grad = weight.grad = None
        run(x, weight, layer.stride).backward(gradient)

    return both


def by_torch(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """As torch computes it."""
    return F.conv2d(x, weight, None, stride, 1)


def ours(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """As msresnet computes it."""
    return convolve(x, weight, (stride, stride), (1, 1))


def milliseconds(contestants: list[Callable[[], None]], rounds: int) -> list[float]:
    """The median of each, in turns."""
    found: list[list[float]] = [[] for _ in contestants]
    for turn in range(rounds + 2):  # the first two are to warm up
        for times, run in zip(found, contestants, strict=True):
            start = time.perf_counter()
            run()
            if turn > 1:
                times.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(times) for times in found]


def main() -> None:
    """Measure and print, and write what was printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, help="a file for the table")
    args = parser.parse_args()
    use_threads(args.threads)
    body = ["| | bf16, torch, ms | msresnet, ms | | float32, torch, ms | msresnet, ms | |", "|---|" + "--:|" * 6]
    for layer in LAYERS:
        cells = []
        for dtype in (torch.bfloat16, torch.float32):
            runs = [passes(layer, args.batch, dtype, run) for run in (by_torch, ours)]
            theirs, mine = milliseconds(runs, args.rounds)
            cells += [f"{theirs:.2f}", f"{mine:.2f}", f"{theirs / mine:.1f}x"]
        body.append(f"| {layer} | {' | '.join(cells)} |")
        print(body[-1], flush=True)
    publish("Convolutions of small maps", body, args.output)


if __name__ == "__main__":
    main()

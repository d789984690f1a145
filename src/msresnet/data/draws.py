"""Random numbers for a batch that several processes share."""

from __future__ import annotations

import torch
from torch import Tensor

from msresnet.data.upload import upload


class Draws:
    """Numbers drawn for a whole batch, of which a process takes those of its own images.

    So an image gets the same numbers whatever the number of processes. The generator lives on the CPU, whatever the
    device, so that a run's numbers are the same everywhere.

    Args:
        seed: decides all numbers.
        total: images in the whole batch.
        first: place of this process's first image in it.
    """

    def __init__(self, seed: int, total: int, first: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.total, self.first = total, first

    def uniform(self, rows: int, images: Tensor) -> Tensor:
        """(rows, B) numbers in 0 to 1, on the images' device."""
        return upload(self.numbers(rows, len(images)), images)

    def numbers(self, rows: int, count: int) -> Tensor:
        """(rows, B) numbers in 0 to 1 on the CPU, for `count` images of this process."""
        return torch.rand(rows, self.total, generator=self.generator)[:, self.first : self.first + count]


def part(total: int, rank: int, world: int) -> slice:
    """The images of a whole batch that are a process's own: pairs stay together, since `mix` blends neighbours."""
    pairs = total // 2
    start, stop = 2 * (pairs * rank // world), 2 * (pairs * (rank + 1) // world)
    return slice(start, total if rank == world - 1 else stop)

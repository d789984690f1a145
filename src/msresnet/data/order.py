"""The order in which an epoch sees its samples: a pure function of seed and epoch, so a run continues from any step."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order (N,) of an epoch: a permutation that only seed and epoch decide."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(mix_seed(seed, epoch)))


def balanced_order(targets: Tensor, seed: int, epoch: int) -> Tensor:
    """As many samples as `targets` (N,) holds, of all its classes equally many, give or take one.

    Large classes give some of their samples, other ones in each epoch; small ones give theirs several times, each as
    often as any other of its class, give or take one.
    """
    generator = torch.Generator().manual_seed(mix_seed(seed, epoch))
    classes = targets.unique()
    shares = torch.full((len(classes),), len(targets) // len(classes))
    shares[torch.randperm(len(classes), generator=generator)[: len(targets) % len(classes)]] += 1
    drawn = []
    for target, share in zip(classes, shares.tolist(), strict=True):
        members = (targets == target).nonzero()[:, 0]
        rounds = [members[torch.randperm(len(members), generator=generator)] for _ in range(-(-share // len(members)))]
        drawn += [torch.cat(rounds)[:share]] if rounds else []
    order = torch.cat(drawn)
    return order[torch.randperm(len(order), generator=generator)]


def mix_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, far from those of its neighbours."""
    digest = hashlib.blake2b(b",".join(str(p).encode() for p in parts), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1

"""How vectors learn to tell objects apart: those of one object are to be closer than all others of the batch.

The supervised contrastive loss (arXiv 2004.11362, equation 2) over places that learn an object. B batch, P places,
E numbers of a vector, N places that take part.
"""

from __future__ import annotations

import torch
from torch import Tensor

WEIGHT = 0.25
"""Beside the losses of classes and boxes."""
TEMPERATURE = 0.1
MOST = 1024
"""Places that take part, evenly spaced among all that could."""


def appearance_loss(vectors: Tensor, who: Tensor) -> Tensor:
    """Vectors of length 1 (B, P, E) and the object of each place (B, P), 0 or less for none known -> a scalar.

    The mean over places of objects that at least two places show; 0 where there is none.
    """
    there = (who > 0).nonzero(as_tuple=True)
    every = max(1, -(-len(there[0]) // MOST))
    chosen = tuple(index[::every] for index in there)
    vectors, who = vectors[chosen].float(), who[chosen]
    itself = torch.eye(len(who), dtype=torch.bool, device=who.device)
    same = (who[:, None] == who) & ~itself
    alike = (vectors @ vectors.T / TEMPERATURE).masked_fill(itself, -torch.inf)
    logs = (alike - alike.logsumexp(1, keepdim=True)).where(same, 0.0)
    count = same.sum(1)
    known = count > 0
    if not bool(known.any()):
        return vectors.sum() * 0
    return -(logs.sum(1)[known] / count[known]).mean()

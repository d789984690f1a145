"""Which places of a detector's maps learn which object: adaptive training sample selection (ATSS, arXiv 1912.02424).

For each object, of every map the 9 places nearest to its middle are candidates. Each stands for a square anchor; those
whose intersection over union with the object is at least the candidates' mean plus standard deviation, and whose middle
lies in the object, learn it. A place that several objects want learns the one that its anchor overlaps most.

Other than in the paper, an object that no place learns by this, mostly one smaller than the finest stride, is learnt by
the place nearest to its middle, of the map whose anchor there overlaps it most, unless that place learns another. As an
answered box always holds its place, such an object is found a little too large. B batch, M boxes, P places.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from msresnet.box_tensors import pairwise_iou
from msresnet.data.targets import NOTHING
from msresnet.nn.detection import ANCHOR, places

NEAREST = 9
BLOCK = 64
"""Boxes of an image that are looked at together, so that very many take time but no memory."""
BACKGROUND, IGNORED = -1, -2
"""Classes of places that learn nothing to be there, and of those that learn nothing at all."""
NOBODY = -1
"""The index of the object of a place that learns none."""


@torch.no_grad()
def assigned(boxes: Tensor, size: tuple[int, int], strides: Sequence[int]) -> Tensor:
    """What each place learns (B, P, 5 or 6): class index, BACKGROUND or IGNORED, the box, and who it is if known.

    Args:
        boxes: (B, M, 6 or 7) as data/targets.py says; places in a crowd that no object wants are IGNORED.
        size: (H, W) of the images in pixels.
        strides: of the maps.
    """
    middles, steps = places(size, strides, boxes.device)
    counts = [int((steps == stride).sum()) for stride in strides]
    there = boxes[..., 0] != NOTHING
    crowd = there & (boxes[..., 5] > 0)
    most = boxes.new_zeros(len(boxes), len(middles))
    owner = torch.full_like(most, NOBODY, dtype=torch.long)
    hidden = torch.zeros_like(most, dtype=torch.bool)
    nearest = []
    for start in range(0, boxes.shape[1], BLOCK):
        part = slice(start, start + BLOCK)
        inside = _inside(middles, boxes[:, part])
        overlaps, near = _wanted(boxes[:, part, 1:5], middles, steps, counts)
        best = overlaps.where(inside & (there & ~crowd)[:, part, None], 0.0).max(1)
        better = best.values > most
        most = torch.where(better, best.values, most)
        owner = torch.where(better, best.indices + start, owner)
        hidden |= (inside & crowd[:, part, None]).any(1)
        nearest.append(near)
    owner = _with_missed(owner, torch.cat(nearest, 1), there & ~crowd)
    known = torch.cat([boxes[..., :5], boxes[..., 6:]], -1).take_along_dim(owner.clamp_min(0)[..., None], 1)
    found = torch.where((owner != NOBODY)[..., None], known, float(BACKGROUND))
    found[..., 0] = torch.where(hidden & (owner == NOBODY), float(IGNORED), found[..., 0])
    return found


def _with_missed(owner: Tensor, nearest: Tensor, asked: Tensor) -> Tensor:
    """The object of each place (B, P), where objects that have none get their nearest place (B, M), if it is free.

    Of several that are nearest to one place, the last has it. Only those that are `asked` for (B, M) take part.
    """
    nowhere = owner.shape[1]
    learnt = asked.new_zeros(len(asked), 1 + asked.shape[1]).scatter(1, owner + 1, True)[:, 1:]
    free = (nearest != NOBODY) & (owner.take_along_dim(nearest.clamp_min(0), 1) == NOBODY)
    chosen = nearest.where(asked & ~learnt & free, nowhere)
    numbers = torch.arange(asked.shape[1], device=owner.device).expand_as(chosen)
    return F.pad(owner, (0, 1)).scatter_reduce(1, chosen, numbers, "amax")[:, :nowhere]


def _inside(middles: Tensor, boxes: Tensor) -> Tensor:
    """Whether each place (P, 2) lies in each of (B, M, 6): (B, M, P)."""
    x, y = middles[:, 0], middles[:, 1]
    left, top, right, bottom = (boxes[..., i, None] for i in range(1, 5))
    return (x > left) & (x < right) & (y > top) & (y < bottom)


def _wanted(boxes: Tensor, middles: Tensor, steps: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Overlaps of anchors with boxes (B, M, 4), 0 for those under its threshold (B, M, P); nearest places (B, M).

    A box's is that of the map whose anchor there overlaps it most; NOBODY where none does.
    """
    half = (steps * ANCHOR / 2)[:, None]
    overlaps = pairwise_iou(boxes, torch.cat([middles - half, middles + half], 1))
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    far = (centres[..., None, :] - middles).square().sum(-1)
    near = [level.topk(min(NEAREST, level.shape[-1]), largest=False).indices for level in far.split(list(counts), -1)]
    starts = torch.tensor([0, *counts[:-1]]).cumsum(0).tolist()
    chosen = torch.cat([level + start for level, start in zip(near, starts, strict=True)], -1)
    candidates = overlaps.gather(-1, chosen)
    threshold = candidates.mean(-1) + candidates.std(-1, correction=int(chosen.shape[-1] > 1))
    kept = candidates.where(candidates >= threshold[..., None], 0.0)
    firsts = torch.stack([level[..., 0] + start for level, start in zip(near, starts, strict=True)], -1)
    best = overlaps.gather(-1, firsts).max(-1, keepdim=True)
    nearest = firsts.gather(-1, best.indices).where(best.values > 0, NOBODY)[..., 0]
    return torch.zeros_like(overlaps).scatter(-1, chosen, kept), nearest

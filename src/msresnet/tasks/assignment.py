"""Which places of a detector's maps learn which object: adaptive training sample selection (ATSS, arXiv 1912.02424).

For each object, of every map the 9 places nearest to its middle are candidates. Each stands for a square anchor; those
whose intersection over union with the object is at least the candidates' mean plus standard deviation, and whose middle
lies in the object, learn it. A place that several objects want learns the one that its anchor overlaps most.
B batch, M boxes, P places.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from msresnet.box_tensors import pairwise_iou
from msresnet.data.targets import NOTHING
from msresnet.nn.detection import ANCHOR, places

NEAREST = 9
BLOCK = 64
"""Boxes of an image that are looked at together, so that very many take time but no memory."""
BACKGROUND, IGNORED = -1, -2
"""Classes of places that learn nothing to be there, and of those that learn nothing at all."""


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
    fields = boxes.shape[2] - 1
    most, found = (
        boxes.new_zeros(len(boxes), len(middles)),
        boxes.new_full((len(boxes), len(middles), fields), BACKGROUND),
    )
    for part in boxes.split(BLOCK, 1):
        is_crowd = (part[..., 5] > 0) & (part[..., 0] != NOTHING)
        inside = _inside(middles, part)
        wanted = inside & (part[..., 0] != NOTHING)[..., None] & ~is_crowd[..., None]
        overlaps = _wanted(part[..., 1:5], middles, steps, counts).where(wanted, 0.0)
        best = overlaps.max(1)
        better = best.values > most
        most = torch.where(better, best.values, most)
        theirs = torch.cat([part[..., :5], part[..., 6:]], -1).take_along_dim(best.indices[..., None], 1)
        found = torch.where(better[..., None], theirs, found)
        hidden = (inside & is_crowd[..., None]).any(1) & (most == 0)
        found[..., 0] = torch.where(hidden, float(IGNORED), found[..., 0])
    return found


def _inside(middles: Tensor, boxes: Tensor) -> Tensor:
    """Whether each place (P, 2) lies in each of (B, M, 6): (B, M, P)."""
    x, y = middles[:, 0], middles[:, 1]
    left, top, right, bottom = (boxes[..., i, None] for i in range(1, 5))
    return (x > left) & (x < right) & (y > top) & (y < bottom)


def _wanted(boxes: Tensor, middles: Tensor, steps: Tensor, counts: Sequence[int]) -> Tensor:
    """Overlaps of anchors with boxes (B, M, 4), 0 for those under the object's threshold: (B, M, P)."""
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
    return torch.zeros_like(overlaps).scatter(-1, chosen, kept)

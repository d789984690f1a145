"""Arithmetic of boxes on tensors, with gradients: what boxes.py has on arrays, and GIoU. xyxy in absolute pixels."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 1024
"""Boxes that NMS compares with all others at once."""
TINY = 1e-7
"""Square pixels: what a loss divides by at least."""


def areas(boxes: Tensor) -> Tensor:
    """Areas (..., 4) -> (...) in square pixels; of corners in the wrong order 0."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).unbind(-1)
    return width * height


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes that stand beside each other: (..., 4), (..., 4) -> (...)."""
    shared, union = _shared(boxes, others)
    return shared / union.clamp_min(torch.finfo(union.dtype).tiny)  # 0 with a box without an area


def giou(boxes: Tensor, others: Tensor) -> Tensor:
    """Generalised IoU, -1 to 1 (arXiv 1902.09630), of boxes beside each other: (..., 4), (..., 4) -> (...)."""
    shared, union = _shared(boxes, others)
    low, high = torch.minimum(boxes[..., :2], others[..., :2]), torch.maximum(boxes[..., 2:], others[..., 2:])
    hull = areas(torch.cat([low, high], -1)).clamp_min(TINY)
    return shared / union.clamp_min(TINY) - (hull - union) / hull


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of each with each: (..., M, 4), (..., N, 4) -> (..., M, N)."""
    return iou(boxes[..., :, None, :], others[..., None, :, :])


def pairwise_giou(boxes: Tensor, others: Tensor) -> Tensor:
    """Generalised IoU of each with each: (..., M, 4), (..., N, 4) -> (..., M, N)."""
    return giou(boxes[..., :, None, :], others[..., None, :, :])


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (..., 4), cut at the edges of an image of (H, W)."""
    height, width = size
    edges = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp_min(0), edges)


def scale(boxes: Tensor, factors: tuple[float, float]) -> Tensor:
    """Boxes (..., 4) of an image that was made (vertical, horizontal) times as large."""
    down, across = factors
    return boxes * boxes.new_tensor([across, down, across, down])


def shift(boxes: Tensor, offset: tuple[float, float]) -> Tensor:
    """Boxes (..., 4), moved by (down, across) pixels."""
    down, across = offset
    return boxes + boxes.new_tensor([across, down, across, down])


def from_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) centre, w, h -> xyxy."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) xyxy -> centre, w, h."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)


@torch.no_grad()
def nms(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float, most: int | None = None) -> Tensor:
    """What `boxes.nms` gives, in few large steps, as a GPU likes it.

    Args:
        boxes: (M, 4) xyxy.
        scores: (M,).
        classes: (M,); boxes of different classes leave each other alone.
        threshold: intersection over union above which the lower score goes; of equal scores, the earlier box stays.
        most: boxes that are kept.

    Returns the indices (S,) by falling score. Memory grows with BLOCK times M.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes, classes = boxes[order], classes[order]
    stays = torch.zeros_like(order, dtype=torch.bool)
    for start in range(0, len(order), BLOCK):
        part = slice(start, start + BLOCK)
        covered = _covers(
            boxes[:start][stays[:start]], classes[:start][stays[:start]], boxes[part], classes[part], threshold
        )
        stays[part] = _settled(
            _covers(boxes[part], classes[part], boxes[part], classes[part], threshold).triu(1), ~covered.any(0)
        )
    return order[stays][:most]


def _settled(covers: Tensor, free: Tensor) -> Tensor:
    """Which boxes stay (B,): who covers whom (B, B), the better one first, and who is free of earlier ones (B,).

    Each round decides at least the next box for good, so the rounds end; most sets need three or four.
    """
    stays = free
    while True:
        following = free & ~(covers & stays[:, None]).any(0)
        if torch.equal(following, stays):
            return stays
        stays = following


def _covers(boxes: Tensor, classes: Tensor, others: Tensor, of_others: Tensor, threshold: float) -> Tensor:
    """Whether each covers each of the others of its class above the threshold: (M, N)."""
    shared, union = _shared(boxes[:, None], others[None])
    ratio = (shared / union).where(shared > 0, 0)
    return (ratio > threshold) & (classes[:, None] == of_others)


def _shared(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of intersection and of union (...) of boxes (..., 4) that broadcast."""
    low, high = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    width, height = (high - low).clamp_min(0).unbind(-1)
    shared = width * height
    return shared, areas(boxes) + areas(others) - shared

"""Arithmetic of boxes on tensors, with gradients: what losses need of boxes.py, and GIoU. xyxy in absolute pixels."""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-7
"""Square pixels: what a loss divides by at least."""


def areas(boxes: Tensor) -> Tensor:
    """Areas (..., 4) -> (...) in square pixels; of corners in the wrong order 0."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).unbind(-1)
    return width * height


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes that stand beside each other: (..., 4), (..., 4) -> (...)."""
    shared, union = _shared(boxes, others)
    return shared / union.where(union > 0, 1.0)  # 0 with a box without an area


def giou(boxes: Tensor, others: Tensor) -> Tensor:
    """Generalised IoU, -1 to 1 (arXiv 1902.09630), of boxes beside each other: (..., 4), (..., 4) -> (...)."""
    shared, union = _shared(boxes, others)
    low, high = torch.minimum(boxes[..., :2], others[..., :2]), torch.maximum(boxes[..., 2:], others[..., 2:])
    hull = areas(torch.cat([low, high], -1)).clamp_min(TINY)
    return shared / union.clamp_min(TINY) - (hull - union) / hull


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of each with each: (..., M, 4), (..., N, 4) -> (..., M, N)."""
    return iou(boxes[..., :, None, :], others[..., None, :, :])


def scale(boxes: Tensor, factors: tuple[float, float]) -> Tensor:
    """Boxes (..., 4) of an image that was made (vertical, horizontal) times as large."""
    down, across = factors
    return boxes * boxes.new_tensor([across, down, across, down])


def _shared(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of intersection and of union (...) of boxes (..., 4) that broadcast."""
    low, high = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    width, height = (high - low).clamp_min(0).unbind(-1)
    shared = width * height
    return shared, areas(boxes) + areas(others) - shared

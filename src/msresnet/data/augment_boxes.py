"""The random changes of augment.py for images with boxes: what moves a thing moves its box.

Changes of colour and light leave boxes as they are. What is left of a box in the image must be a quarter of it and two
pixels a side; of smaller remains nobody can say what they are of, so they are neither learnt nor missed, as crowds are.
Images are float (B, C, H, W) in 0 to 1, boxes (B, M, 6) as targets.py says.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from msresnet.box_tensors import areas
from msresnet.data.augment import Augment, affine_matrix, degrade, partners
from msresnet.data.draws import Draws
from msresnet.data.policy import apply_policy
from msresnet.data.targets import NOTHING

LEAST_SEEN, LEAST_SIDE = 0.25, 2.0
NEAREST, MOST_REDUCED = 0.25, 2.0
"""Of a mosaic: how near to an edge its parts may meet, as a share of the side, and by how much a part is reduced."""


def augment_boxes(images: Tensor, boxes: Tensor, settings: Augment, draws: Draws) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) and (B, M, 6) -> the same, each image changed on its own, of a mosaic with its neighbour."""
    if settings.mosaic:
        images, boxes = mosaic(images, boxes, settings.mosaic, draws)
    if settings.flip:
        images, boxes = _flipped(images, boxes, settings.flip, draws)
    if settings.shift or settings.warps:
        images, boxes = _moved(images, boxes, settings, draws)
    if settings.policy:
        images = apply_policy(images, settings.policy, draws, form=False)
    return degrade(images, settings, draws), packed(boxes)


def packed(boxes: Tensor) -> Tensor:
    """(B, M, 6) without the rows, at the end, that no image has a box in; at least one row stays."""
    order = (boxes[..., 0] == NOTHING).to(torch.uint8).argsort(dim=1, stable=True)
    most = max(1, int((boxes[..., 0] != NOTHING).sum(1).max()))
    return boxes.take_along_dim(order[..., None], 1)[:, :most]


def remaining(boxes: Tensor, moved: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Boxes (B, M, 6) at new places (B, M, 4), cut at corners x, y (B, 1, 2) of what is seen of their image."""
    cut = torch.cat([moved[..., :2].maximum(low).minimum(high), moved[..., 2:].maximum(low).minimum(high)], -1)
    sides = cut[..., 2:] - cut[..., :2]
    seen = areas(cut) >= LEAST_SEEN * areas(moved)
    clear = seen & (sides >= LEAST_SIDE).all(-1)
    kept = torch.where((sides > 0).all(-1), boxes[..., 0], float(NOTHING))
    crowd = torch.where(clear, boxes[..., 5], 1.0)
    return torch.cat([kept[..., None], cut, crowd[..., None], boxes[..., 6:]], -1)


def _edges(images: Tensor) -> tuple[Tensor, Tensor]:
    """The corners x, y (1, 1, 2) of the images in pixels."""
    high = images.new_tensor([images.shape[3], images.shape[2]]).view(1, 1, 2)
    return torch.zeros_like(high), high


def _flipped(images: Tensor, boxes: Tensor, probability: float, draws: Draws) -> tuple[Tensor, Tensor]:
    """Some images and their boxes mirrored left to right."""
    chosen = draws.uniform(1, images)[0] < probability
    mirrored = boxes.clone()
    mirrored[..., 1], mirrored[..., 3] = images.shape[3] - boxes[..., 3], images.shape[3] - boxes[..., 1]
    mirrored = torch.where(boxes[..., :1] == NOTHING, boxes, mirrored)
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images), torch.where(
        chosen.view(-1, 1, 1), mirrored, boxes
    )


def _moved(images: Tensor, boxes: Tensor, settings: Augment, draws: Draws) -> tuple[Tensor, Tensor]:
    """Moved, turned, slanted and resized; a box becomes the smallest around its four corners."""
    matrix = affine_matrix(images, settings, draws)
    low, high = _edges(images)
    if not settings.warps:  # by whole pixels: edges stay as sharp as they were
        matrix[:, :, 2] = (matrix[:, :, 2] * high[0] / 2).round() / high[0] * 2
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    corners = boxes[..., [1, 2, 3, 2, 1, 4, 3, 4]].unflatten(-1, (4, 2)) / high[..., None, :] * 2 - 1
    back = torch.linalg.inv(matrix[:, None, :, :2])
    places = (back @ (corners - matrix[:, None, None, :, 2]).transpose(2, 3)).transpose(2, 3)
    places = (places + 1) / 2 * high[..., None, :]
    moved = torch.cat([places.amin(2), places.amax(2)], -1)
    return F.grid_sample(images, grid, align_corners=False), remaining(boxes, moved, low, high)


class _Parts(NamedTuple):
    """The four parts of each mosaic, (B, 2, 2) by lower and right; x and y in pixels (..., 2).

    Args:
        low, high: corners in the mosaic.
        factor: by which a part is reduced.
        origin: what of its image lies at `low`.
    """

    low: Tensor
    high: Tensor
    factor: Tensor
    origin: Tensor


def mosaic(images: Tensor, boxes: Tensor, probability: float, draws: Draws) -> tuple[Tensor, Tensor]:
    """Some images put together from four parts: two of their own, across, and two of their neighbour.

    A part is a piece of an image, as it is or reduced to as little as half, never beyond its edges. The paper takes
    four images (arXiv 2004.10934, section 3.4); pairs stay together however many processes share a batch.
    """
    chosen, *numbers = draws.uniform(15, images)
    parts = _parts(torch.stack(numbers, 1), images)
    partner = partners(images)
    both = torch.stack([boxes, boxes[partner]])
    found = []
    for lower in (0, 1):
        for right in (0, 1):
            low, high, factor, origin = (value[:, lower, right, None] for value in parts)
            own = both[int(lower != right)]
            at = [(own[..., corner] - origin) / factor[..., None] + low for corner in (slice(1, 3), slice(3, 5))]
            found.append(remaining(own, torch.cat(at, -1), low, high))
    takes = (chosen < probability).view(-1, 1, 1)
    pad = torch.full_like(boxes, NOTHING).repeat(1, 3, 1)
    mixed = torch.where(takes, torch.cat(found, 1), torch.cat([boxes, pad], 1))
    return torch.where(takes[..., None], _pieced(images, partner, parts), images), packed(mixed)


def _parts(numbers: Tensor, images: Tensor) -> _Parts:
    """Random parts from numbers (B, 14) in 0 to 1."""
    _, high = _edges(images)
    size = high[0, 0]
    middle = (NEAREST + (1 - 2 * NEAREST) * numbers[:, :2]) * size
    zero, end = torch.zeros_like(middle), size.expand_as(middle)
    x = torch.stack([zero[:, 0], middle[:, 0], end[:, 0]], 1)
    y = torch.stack([zero[:, 1], middle[:, 1], end[:, 1]], 1)
    low = torch.stack([x[:, None, :2].expand(-1, 2, -1), y[:, :2, None].expand(-1, -1, 2)], -1)
    upper = torch.stack([x[:, None, 1:].expand(-1, 2, -1), y[:, 1:, None].expand(-1, -1, 2)], -1)
    most = (size / (upper - low)).amin(-1).clamp(max=MOST_REDUCED)
    factor = most ** numbers[:, 2:6].view(-1, 2, 2)
    room = (size - (upper - low) * factor[..., None]).clamp_min(0)
    return _Parts(low, upper, factor, room * numbers[:, 6:14].view(-1, 2, 2, 2))


def _pieced(images: Tensor, partner: Tensor, parts: _Parts) -> Tensor:
    """The pixels of the mosaics (B, C, H, W)."""
    height, width = images.shape[-2:]
    columns, rows = (torch.arange(side, device=images.device) + 0.5 for side in (width, height))
    right = (columns >= parts.high[:, 0, 0, :1]).long()  # (B, W)
    lower = (rows >= parts.high[:, 0, 0, 1:]).long()  # (B, H)
    which = torch.arange(len(images), device=images.device)[:, None, None], lower[:, :, None], right[:, None, :]
    low, factor, origin = parts.low[which], parts.factor[which][..., None], parts.origin[which]
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
    size = images.new_tensor([width, height])
    grid = (origin + (pixels - low) * factor) / size * 2 - 1
    own, other = (
        F.grid_sample(given, grid, align_corners=False, padding_mode="border") for given in (images, images[partner])
    )
    return torch.where((lower[:, :, None] == right[:, None, :])[:, None], own, other)

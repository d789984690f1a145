"""The random changes of augment.py for images whose pixels have classes: what moves a pixel moves its class.

Changes of colour and light leave masks as they are. What comes in from outside, and what is blanked, is IGNORED: nobody
knows its class. Images are float (B, C, H, W) in 0 to 1, masks uint8 (B, H, W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from msresnet.data.augment import Augment, beta, degrade, erased, flip, partners, pasted, translate, warped_grid
from msresnet.data.draws import Draws
from msresnet.data.policy import apply_policy
from msresnet.data.sample import IGNORED
from msresnet.data.upload import upload


def augment_masks(images: Tensor, masks: Tensor, settings: Augment, draws: Draws) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) and (B, H, W) -> the same shapes, each image changed on its own and its mask with it."""
    images, masks = _moved(images, masks, settings, draws)
    if settings.policy:
        images = apply_policy(images, settings.policy, draws, form=False)
    images = degrade(images, settings, draws)
    if settings.erase:
        box = erased(images, settings.erase, draws)
        images = torch.where(box, images.mean((2, 3), keepdim=True), images)
        masks = masks.masked_fill(box[:, 0], IGNORED)
    return _pasted(images, masks, settings, draws)


def _moved(images: Tensor, masks: Tensor, settings: Augment, draws: Draws) -> tuple[Tensor, Tensor]:
    """Mirror, move, turn, slant, resize, bend."""
    # From 1 on, so that the zeros of what comes in from outside are told apart; the last plane is the mask.
    known = torch.where(masks == IGNORED, 0, masks.to(images.dtype) + 1)
    planes = torch.cat([images, known[:, None]], 1)
    if settings.flip:
        planes = flip(planes, settings.flip, draws)
    if settings.warps:
        grid = warped_grid(planes, settings, draws)
        images = F.grid_sample(planes[:, :-1], grid, align_corners=False)
        known = F.grid_sample(planes[:, -1:], grid, mode="nearest", align_corners=False)[:, 0]
    else:
        planes = translate(planes, settings.shift, draws) if settings.shift else planes
        images, known = planes[:, :-1], planes[:, -1]
    return images, torch.where(known > 0, known - 1, IGNORED).to(torch.uint8)


def _pasted(images: Tensor, masks: Tensor, settings: Augment, draws: Draws) -> tuple[Tensor, Tensor]:
    """A part of each image's neighbour in its place, with its classes (arXiv 1905.04899)."""
    if not settings.cutmix or len(images) < 2:
        return images, masks
    partner = partners(images)
    box = upload(pasted(images, beta(settings.cutmix, draws.generator), draws), images)
    return torch.where(box, images[partner], images), torch.where(box[:, 0], masks[partner], masks)

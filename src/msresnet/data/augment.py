"""Random changes for training, on whole batches, on the device: pure functions with an explicit generator.

Images are float (B, C, H, W) in 0 to 1. The generator lives on the CPU, whatever the device, so that a run's random
numbers are the same everywhere.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augment:
    """How much of each change. Zero leaves a change out.

    Args:
        flip: probability of a mirror image.
        shift: farthest move, as a share of the side.
        rotate: largest angle in degrees.
        scale: largest relative change of size (0.2: from 1/1.2 to 1.2).
        erase: probability that a rectangle is blanked (arXiv 1708.04896).
        mixup: Beta parameter of blending two images (arXiv 1710.09412).
        cutmix: Beta parameter of pasting a part of another image (arXiv 1905.04899).
    """

    flip: float = 0.0
    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def augment(images: Tensor, settings: Augment, generator: torch.Generator) -> Tensor:
    """(B, C, H, W) -> the same shape, each image changed on its own."""
    if settings.flip:
        images = flip(images, settings.flip, generator)
    if settings.shift or settings.rotate or settings.scale:
        images = affine(images, settings.shift, settings.rotate, settings.scale, generator)
    if settings.erase:
        images = erase(images, settings.erase, generator)
    return images


def flip(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Mirror some images left to right."""
    chosen = _uniform(images, 1, generator)[0] < probability
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)


def affine(images: Tensor, shift: float, rotate: float, scale: float, generator: torch.Generator) -> Tensor:
    """Move, turn and resize each image at random; what comes in from outside is black."""
    turn, size, right, down = _uniform(images, 4, generator) * 2 - 1
    angle = turn * math.radians(rotate)
    factor = torch.exp(size * math.log1p(scale))
    cos, sin = angle.cos() * factor, angle.sin() * factor
    ratio = images.shape[3] / images.shape[2]  # grid coordinates are relative, angles are not
    rows = (
        torch.stack([cos, -sin / ratio, right * 2 * shift], 1),
        torch.stack([sin * ratio, cos, down * 2 * shift], 1),
    )
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False, padding_mode="zeros")


def erase(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Blank a rectangle of 2 to 20 % of some images with their mean."""
    chosen, area, aspect, x, y = _uniform(images, 5, generator)
    share = 0.02 + 0.18 * area
    ratio = torch.exp((aspect * 2 - 1) * math.log(3.0))
    box = _box((share * ratio).sqrt().clamp(max=1), (share / ratio).sqrt().clamp(max=1), x, y, images)
    box &= (chosen < probability).view(-1, 1, 1, 1)
    return torch.where(box, images.mean((2, 3), keepdim=True), images)


def mix(images: Tensor, targets: Tensor, settings: Augment, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Blend or paste pairs of images, and their targets (B, K) in the same proportions.

    With both mixup and cutmix set, each batch takes one of them at random.
    """
    choices = [name for name in ("mixup", "cutmix") if getattr(settings, name)]
    if not choices or len(images) < 2:
        return images, targets
    name = choices[int(torch.randint(len(choices), (1,), generator=generator))]
    order = torch.randperm(len(images), generator=generator).to(images.device)
    share = beta(getattr(settings, name), generator)
    if name == "mixup":
        mixed = images * share + images[order] * (1 - share)
    else:
        side = torch.full((1,), math.sqrt(1 - share))
        x, y = torch.rand(2, 1, generator=generator)
        box = _box(side, side, x, y, images[:1])
        mixed = torch.where(box, images[order], images)
        share = 1 - box.float().mean().item()
    return mixed, targets * share + targets[order] * (1 - share)


def beta(alpha: float, generator: torch.Generator) -> float:
    """One draw from Beta(alpha, alpha), by Jöhnk's method for alpha <= 1 and two gamma draws above."""
    if alpha <= 1:
        while True:  # in logarithms, since a small alpha leaves nothing of the powers
            logs = torch.rand(2, generator=generator, dtype=torch.float64).log() / alpha
            if logs.logsumexp(0) <= 0:
                return float(logs.softmax(0)[0])
    a, b = (torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64), generator)).tolist()
    return float(a / (a + b))


def _uniform(images: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """(rows, B) numbers in 0 to 1 on the images' device."""
    return torch.rand(rows, len(images), generator=generator).to(images.device, images.dtype)


def _box(height: Tensor, width: Tensor, x: Tensor, y: Tensor, images: Tensor) -> Tensor:
    """(B, 1, H, W) booleans, true inside a box of relative size (height, width) placed at random by (x, y)."""
    rows = (torch.arange(images.shape[2], device=images.device) + 0.5) / images.shape[2]
    columns = (torch.arange(images.shape[3], device=images.device) + 0.5) / images.shape[3]
    height, width, x, y = (t.to(images.device) for t in (height, width, x, y))
    top, left = y * (1 - height), x * (1 - width)
    inside_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    inside_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    return (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]

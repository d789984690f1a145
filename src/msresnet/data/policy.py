"""A policy of random changes in the manner of RandAugment (arXiv 1909.13719) and TrivialAugment (arXiv 2103.10158).

Each image gets two changes of the table, each as strong as chance says up to the policy's strength. All images of a
batch that drew the same change are changed together, on the device. Images are float (B, C, H, W) in 0 to 1; amounts
(B, 1, 1, 1) are -1 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from msresnet.data.draws import Draws
from msresnet.data.upload import upload

ROUNDS = 2
LUMA = (0.299, 0.587, 0.114)
Change = Callable[[Tensor, Tensor], Tensor]


def apply_policy(images: Tensor, strength: float, draws: Draws, form: bool = True) -> Tensor:
    """(B, C, H, W) -> the same shape: two changes for each image, up to `strength` (0 to 1) of the strongest.

    Without `form`, nothing moves: where each pixel has a class, its class would stay behind.
    """
    left_out = (*(() if images.shape[1] == 3 else COLOURFUL), *(() if form else MOVING))
    changes = [change for name, change in CHANGES.items() if name not in left_out]
    for _ in range(ROUNDS):
        which, amount = draws.numbers(2, len(images))
        chosen = (which * len(changes)).long()
        # Who gets what is known on the CPU, so that nobody waits for a GPU to say how many there are.
        counts = chosen.bincount(minlength=len(changes)).tolist()
        groups = upload(chosen.argsort(stable=True), images).split(counts)
        amounts = upload((amount * 2 - 1) * strength, images)
        result = images.clone()
        for change, members in zip(changes, groups, strict=True):
            if len(members):
                result[members] = change(images[members], amounts[members].view(-1, 1, 1, 1)).clamp(0, 1)
        images = result
    return images


def _identity(images: Tensor, amount: Tensor) -> Tensor:
    return images


def _brightness(images: Tensor, amount: Tensor) -> Tensor:
    return images * (1 + 0.9 * amount)


def _contrast(images: Tensor, amount: Tensor) -> Tensor:
    mean = _grey(images).mean((2, 3), keepdim=True)
    return mean + (images - mean) * (1 + 0.9 * amount)


def _saturation(images: Tensor, amount: Tensor) -> Tensor:
    grey = _grey(images)
    return grey + (images - grey) * (1 + 0.9 * amount)


def _sharpness(images: Tensor, amount: Tensor) -> Tensor:
    if min(images.shape[-2:]) < 3:
        return images
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return blurred + (images - blurred) * (1 + 0.9 * amount)


def _posterise(images: Tensor, amount: Tensor) -> Tensor:
    """Down to 2 bits a channel."""
    levels = torch.exp2((8 - 6 * amount.abs()).round())
    return (images * 255 / 256 * levels).floor() / (levels - 1)


def _solarise(images: Tensor, amount: Tensor) -> Tensor:
    """What is brighter than a level is inverted."""
    return torch.where(images > 1 - amount.abs(), 1 - images, images)


def _stretch(images: Tensor, amount: Tensor) -> Tensor:
    """The darkest becomes black and the brightest white."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp_min(1e-6), images)


def _equalise(images: Tensor, amount: Tensor) -> Tensor:
    """All grey levels as often, per channel."""
    flat = (images * 255).round().long().flatten(2)  # (B, C, H W)
    counts = images.new_zeros(*flat.shape[:2], 256).scatter_add_(2, flat, torch.ones_like(flat, dtype=images.dtype))
    ranks = counts.cumsum(2)
    first = counts.gather(2, flat.amin(2, keepdim=True))
    spread = (flat.shape[2] - first).clamp_min(1)
    levels = ((ranks.gather(2, flat) - first) / spread).clamp(0, 1)
    return torch.where((counts > 0).sum(2, keepdim=True) > 1, levels, flat.to(images.dtype) / 255).view_as(images)


def _turn(images: Tensor, amount: Tensor) -> Tensor:
    angle = amount[:, 0, 0, 0] * math.radians(45)
    ratio = images.shape[3] / images.shape[2]
    return _warp(images, angle.cos(), -angle.sin() / ratio, angle.sin() * ratio, angle.cos())


def _shear_x(images: Tensor, amount: Tensor) -> Tensor:
    slant = amount[:, 0, 0, 0] * 0.5
    return _warp(images, torch.ones_like(slant), slant, torch.zeros_like(slant), torch.ones_like(slant))


def _shear_y(images: Tensor, amount: Tensor) -> Tensor:
    slant = amount[:, 0, 0, 0] * 0.5
    return _warp(images, torch.ones_like(slant), torch.zeros_like(slant), slant, torch.ones_like(slant))


def _warp(images: Tensor, xx: Tensor, xy: Tensor, yx: Tensor, yy: Tensor) -> Tensor:
    """Each image through its own linear map of relative coordinates; what comes in from outside is black."""
    zero = torch.zeros_like(xx)
    grid = torch.stack((torch.stack((xx, xy, zero), 1), torch.stack((yx, yy, zero), 1)), 1)
    places = F.affine_grid(grid, list(images.shape), align_corners=False)
    return F.grid_sample(images, places, align_corners=False)


def _grey(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 1, H, W): ITU-R 601 luma."""
    if images.shape[1] == 1:
        return images
    weights = upload(torch.tensor(LUMA), images).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


CHANGES: dict[str, Change] = {
    "identity": _identity,
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "sharpness": _sharpness,
    "posterise": _posterise,
    "solarise": _solarise,
    "stretch": _stretch,
    "equalise": _equalise,
    "turn": _turn,
    "shear x": _shear_x,
    "shear y": _shear_y,
}
COLOURFUL = ("saturation",)
"""Changes that do nothing to grey images."""
MOVING = ("turn", "shear x", "shear y")

"""Random changes for training, on whole batches, on the device: pure functions of images and `Draws`.

Images are float (B, C, H, W) in 0 to 1.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from msresnet.data.draws import Draws
from msresnet.data.policy import apply_policy
from msresnet.data.upload import upload


@dataclass(frozen=True)
class Augment:
    """How much of each change. Zero leaves a change out.

    Args:
        flip: probability of a mirror image.
        shift: farthest move, as a share of the side.
        rotate: largest angle in degrees.
        scale: largest relative change of size (0.2: from 1/1.2 to 1.2).
        shear: largest slant, as a share of the side.
        elastic: largest move of a place by bending, as a share of the side (Simard et al., ICDAR 2003).
        policy: strength of two changes of colour or form (policy.py), 0 to 1.
        shade: most of the light that may be missing on one side, as a share (uneven illumination).
        noise: largest standard deviation of noise, as a share of white.
        erase: probability that a rectangle is blanked (arXiv 1708.04896).
        mixup: Beta parameter of blending two images (arXiv 1710.09412).
        cutmix: Beta parameter of pasting a part of another image (arXiv 1905.04899).
        mosaic: of images with boxes, probability of one put together from four parts (arXiv 2004.10934).
    """

    flip: float = 0.0
    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    policy: float = 0.0
    shade: float = 0.0
    noise: float = 0.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mosaic: float = 0.0

    @property
    def warps(self) -> bool:
        """Whether pixels come from between pixels."""
        return any((self.rotate, self.scale, self.shear, self.elastic))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def augment(images: Tensor, settings: Augment, draws: Draws) -> Tensor:
    """(B, C, H, W) -> the same shape, each image changed on its own."""
    if settings.flip:
        images = flip(images, settings.flip, draws)
    if settings.warps:
        images = warp(images, settings, draws)
    elif settings.shift:
        images = translate(images, settings.shift, draws)
    if settings.policy:
        images = apply_policy(images, settings.policy, draws)
    images = degrade(images, settings, draws)
    if settings.erase:
        images = erase(images, settings.erase, draws)
    return images


def degrade(images: Tensor, settings: Augment, draws: Draws) -> Tensor:
    """Bad light, then noise, each as strong as chance says."""
    if settings.shade:
        images = shade(images, settings.shade, draws)
    return noise(images, settings.noise, draws) if settings.noise else images


def flip(images: Tensor, probability: float, draws: Draws) -> Tensor:
    """Mirror some images left to right."""
    chosen = draws.uniform(1, images)[0] < probability
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)


def translate(images: Tensor, shift: float, draws: Draws) -> Tensor:
    """Move each image by whole pixels, up to a share of its side; what comes in from outside is black."""
    down, right = (round(shift * side) for side in images.shape[-2:])
    rows, columns = draws.uniform(2, images)
    padded = F.pad(images, (right, right, down, down))
    windows = padded.unfold(2, images.shape[2], 1).unfold(3, images.shape[3], 1)  # (B, C, moves, moves, H, W), no copy
    y, x = (rows * (2 * down + 1)).long(), (columns * (2 * right + 1)).long()
    return windows[torch.arange(len(images), device=images.device), :, y, x]


def warp(images: Tensor, settings: Augment, draws: Draws) -> Tensor:
    """Move, turn, slant, resize and bend each image at random; what comes in from outside is black."""
    return F.grid_sample(images, warped_grid(images, settings, draws), align_corners=False, padding_mode="zeros")


def warped_grid(images: Tensor, settings: Augment, draws: Draws) -> Tensor:
    """Where each pixel of the changed images comes from: (B, H, W, 2), relative x and y."""
    grid: Tensor = F.affine_grid(affine_matrix(images, settings, draws), list(images.shape), align_corners=False)
    return grid + bending(images, settings.elastic, draws) if settings.elastic else grid


KNOTS = 5
"""Places along each side whose moves are drawn; what lies between follows smoothly, and may move a little farther. On
28 pixels that is about as smooth as the published field (Gaussian of 4 pixels)."""


def bending(images: Tensor, strength: float, draws: Draws) -> Tensor:
    """By how much each place of an image moves, smoothly in both directions: (B, H, W, 2), relative x and y."""
    moves = (draws.uniform(2 * KNOTS**2, images) * 2 - 1) * 2 * strength
    knots = moves.T.reshape(len(images), 2, KNOTS, KNOTS)
    return F.interpolate(knots, images.shape[2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


def affine_matrix(images: Tensor, settings: Augment, draws: Draws) -> Tensor:
    """(B, 2, 3) from relative x, y, 1 (-1 to 1 over the image) in the changed images to those in the given ones."""
    turn, size, right, down, slant_x, slant_y = draws.uniform(6, images) * 2 - 1
    angle = turn * math.radians(settings.rotate)
    factor = torch.exp(size * math.log1p(settings.scale))
    cos, sin = angle.cos() * factor, angle.sin() * factor
    ratio = images.shape[3] / images.shape[2]  # grid coordinates are relative, angles are not
    slant_x, slant_y = slant_x * settings.shear, slant_y * settings.shear
    rows = (
        torch.stack([cos - sin * slant_y / ratio, cos * slant_x - sin / ratio, right * 2 * settings.shift], 1),
        torch.stack([sin * ratio + cos * slant_y, sin * ratio * slant_x + cos, down * 2 * settings.shift], 1),
    )
    return torch.stack(rows, 1)


MOST_PALE = 0.4
"""Share of white to which the strongest shading lifts black before it dims: paper and ink both reflect."""


def shade(images: Tensor, strength: float, draws: Draws) -> Tensor:
    """Light that falls from one side: black becomes grey, then all is dimmed along a ramp of any direction."""
    amount, pale, turn, bend = draws.uniform(4, images)
    rows, columns = (torch.linspace(-1, 1, side, device=images.device) for side in images.shape[-2:])
    angle = (turn * 2 * math.pi).view(-1, 1, 1)
    ramp = (angle.cos() * columns[None, None, :] + angle.sin() * rows[None, :, None]) / math.sqrt(2)  # -1 to 1
    # Rounding may lead out of 0 to 1, and a power of a negative number is not a number.
    ramp = ((ramp + 1) / 2).clamp(0, 1) ** torch.exp((bend.view(-1, 1, 1) * 2 - 1) * math.log(2.0))
    light = 1 - strength * amount.view(-1, 1, 1, 1) * ramp[:, None]
    lift = MOST_PALE * strength * pale.view(-1, 1, 1, 1)
    lit: Tensor = (lift + (1 - lift) * images) * light
    return lit


def noise(images: Tensor, strength: float, draws: Draws) -> Tensor:
    """Gaussian noise, up to a standard deviation of `strength`.

    All images take theirs from one row of numbers, each from a place of its own: drawing new ones for every pixel of
    every image would take longer than a step of a small network.
    """
    size = math.prod(images.shape[1:])
    row = upload(torch.randn(2 * size, generator=draws.generator), images)
    amount, place = draws.uniform(2, images)
    starts = (place * size).long().clamp(max=size)
    drawn = row.unfold(0, size, 1)[starts].view_as(images)
    noisy: Tensor = (images + strength * amount.view(-1, 1, 1, 1) * drawn).clamp(0, 1)
    return noisy


def erase(images: Tensor, probability: float, draws: Draws) -> Tensor:
    """Blank a rectangle of 2 to 20 % of some images with their mean."""
    return torch.where(erased(images, probability, draws), images.mean((2, 3), keepdim=True), images)


def erased(images: Tensor, probability: float, draws: Draws) -> Tensor:
    """(B, 1, H, W) booleans, true in a rectangle of 2 to 20 % of some images."""
    chosen, area, aspect, x, y = draws.uniform(5, images)
    share = 0.02 + 0.18 * area
    ratio = torch.exp((aspect * 2 - 1) * math.log(3.0))
    box = _box((share * ratio).sqrt().clamp(max=1), (share / ratio).sqrt().clamp(max=1), x, y, images)
    box &= (chosen < probability).view(-1, 1, 1, 1)
    return box


def mix(images: Tensor, targets: Tensor, settings: Augment, draws: Draws) -> tuple[Tensor, Tensor]:
    """Blend or paste pairs of images, and their targets (B, K) in the same proportions.

    Pairs are neighbours: a batch's order is random already. With both mixup and cutmix set, each batch takes one of
    them at random.
    """
    choices = [name for name in ("mixup", "cutmix") if getattr(settings, name)]
    if not choices or len(images) < 2:
        return images, targets
    name = choices[int(torch.randint(len(choices), (1,), generator=draws.generator))]
    partner, share = partners(images), beta(getattr(settings, name), draws.generator)
    if name == "mixup":
        mixed = images * share + images[partner] * (1 - share)
    else:
        box = pasted(images, share, draws)
        mixed = torch.where(upload(box, images), images[partner], images)
        share = 1 - box.float().mean().item()
    return mixed, targets * share + targets[partner] * (1 - share)


def partners(images: Tensor) -> Tensor:
    """The index of each image's neighbour (B,); an odd one out keeps to itself."""
    partner = torch.arange(len(images), device=images.device) ^ 1
    return torch.where(partner < len(images), partner, partner - 1)


def pasted(images: Tensor, share: float, draws: Draws) -> Tensor:
    """(1, 1, H, W) booleans on the CPU, true in a box somewhere that leaves `share` of the image outside."""
    side = torch.full((1,), math.sqrt(1 - share))
    x, y = torch.rand(2, 1, generator=draws.generator)
    return _box(side, side, x, y, torch.empty(1, 1, *images.shape[2:]))


def beta(alpha: float, generator: torch.Generator) -> float:
    """One draw from Beta(alpha, alpha), by Jöhnk's method for alpha <= 1 and two gamma draws above."""
    if alpha <= 1:
        while True:  # in logarithms, since a small alpha leaves nothing of the powers
            logs = torch.rand(2, generator=generator, dtype=torch.float64).log() / alpha
            if logs.logsumexp(0) <= 0:
                return float(logs.softmax(0)[0])
    a, b = (torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64), generator)).tolist()
    return float(a / (a + b))


def _box(height: Tensor, width: Tensor, x: Tensor, y: Tensor, images: Tensor) -> Tensor:
    """(B, 1, H, W) booleans, true inside a box of relative size (height, width) placed at random by (x, y)."""
    rows = (torch.arange(images.shape[2], device=images.device) + 0.5) / images.shape[2]
    columns = (torch.arange(images.shape[3], device=images.device) + 0.5) / images.shape[3]
    top, left = y * (1 - height), x * (1 - width)
    inside_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    inside_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    return (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]

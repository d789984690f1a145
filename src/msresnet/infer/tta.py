"""Test-time augmentation: a network's outputs, averaged over views of the same image.

The views are those of arXiv 2404.00498 ("multi-crop"): the image and its mirror image, each as it is and
moved by a little towards two opposite corners; and the image at other sizes (arXiv 1409.1556, section 3.2), which
networks that pool over all places take as they are. Here every view counts the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from msresnet.infer.config import TTA

SIDE_TO_MOVE = 32
"""The paper moves images of 32 pixels by one; larger ones move by the same share."""
SCALES = (0.8, 1.25)
"""Factors of both sides."""


def averaged(network: Callable[[Tensor], Tensor], images: Tensor, tta: TTA) -> Tensor:
    """The mean output (B, K) of a network over the views of normalised images (B, C, H, W)."""
    total = network(images)
    others = views(images, tta)[1:]
    for view in others:
        total = total + network(view.contiguous(memory_format=torch.channels_last))
    return total / (1 + len(others)) if others else total


def views(images: Tensor, tta: TTA) -> list[Tensor]:
    """The views of images (B, C, H, W), themselves first; each of their shape, but for those of other sizes."""
    found = [images]
    if tta in ("shifts", "flip+shifts"):
        found += moved(images)
    if tta in ("scales", "flip+scales"):
        found += scaled(images)
    if tta in ("flip", "flip+shifts", "flip+scales"):
        found += [view.flip(3) for view in found]
    return found


def moved(images: Tensor) -> list[Tensor]:
    """Images (B, C, H, W) moved down and right, and up and left; what comes in from outside is reflected."""
    height, width = images.shape[2:]
    down, right = (min(max(1, round(side / SIDE_TO_MOVE)), side - 1) for side in (height, width))
    padded = F.pad(images, (right, right, down, down), mode="reflect")
    return [padded[:, :, :height, :width], padded[:, :, 2 * down :, 2 * right :]]


def scaled(images: Tensor) -> list[Tensor]:
    """Images (B, C, H, W) reduced and enlarged, antialiased."""
    sizes = ([max(1, round(side * factor)) for side in images.shape[2:]] for factor in SCALES)
    return [F.interpolate(images, size=size, mode="bilinear", antialias=True) for size in sizes]

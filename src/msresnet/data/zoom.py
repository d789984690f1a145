"""The object of an image made smaller or larger within its frame, which keeps its size.

B batch, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from msresnet.data.sample import Batch
from msresnet.data.sets import Samples
from msresnet.errors import UsageError

PARTS, FINE = 1 << 12, 1 << 4
"""Weights are whole parts of one, and what lies between the two axes whole parts of a grey level, so that all sums are
exact in float32 and every device gives the same bytes."""
MIDDLE = 128


def zoom(images: Tensor, scale: float) -> Tensor:
    """Images (B, C, H, W) uint8, their content `scale` times as large, about the middle of the frame.

    Made smaller, each pixel is the mean over the area that it shows, and the frame is filled with the image's own
    border: the median of its outermost pixels, channel by channel. Made larger, pixels are interpolated linearly and
    what leaves the frame is lost. A pixel that is half content and half border is their mean.

    Raises UsageError for a scale that is not a number above zero.
    """
    check_scale(scale)
    if scale == 1 or not len(images):
        return images
    border = _border(images.float())
    upright = (_along(images.float().mT, border, scale) * FINE / PARTS + 0.5).floor()
    whole = _along(upright.mT, border * FINE, scale) / (FINE * PARTS)
    return (whole + 0.5).floor().to(torch.uint8)


def check_scale(scale: float) -> None:
    """Raise UsageError for what is not a scale."""
    if not 0 < scale < float("inf"):
        what = f"an object cannot be made {scale:g} times as large"
        raise UsageError(what, why="a scale is a number above 0", hint="0.5, 1 or 2")


def _along(values: Tensor, border: Tensor, scale: float) -> Tensor:
    """Values (B, C, H, W) of another scale along the last axis, times PARTS."""
    parts = _resampling(values.shape[3], scale).to(values.device)
    return values @ parts.T + (PARTS - parts.sum(1)) * border


def _resampling(side: int, scale: float) -> Tensor:
    """(side, side): how many of its PARTS each pixel of the result takes from each of the image, along an axis."""
    where = torch.arange(side, dtype=torch.float64)
    middle = side / 2
    if scale < 1:  # the share of the interval that a pixel shows, in pixels of the image
        low, high = (((where + edge - middle) / scale + middle)[:, None] for edge in (0, 1))
        taken = (torch.minimum(high, where + 1) - torch.maximum(low, where)).clamp(min=0) * scale
    else:
        centre = (where + 0.5 - middle) / scale + middle - 0.5
        taken = (1 - (centre.clamp(0, side - 1)[:, None] - where).abs()).clamp(min=0)
    upto = (taken.cumsum(1) * PARTS).round()  # sums are rounded, not shares, so that a row adds up
    return upto.diff(dim=1, prepend=torch.zeros(side, 1, dtype=torch.float64)).float()


def _border(values: Tensor) -> Tensor:
    """The median of the outermost pixels of each channel, (B, C, H, W) -> (B, C, 1, 1)."""
    sides = (values[:, :, 0], values[:, :, -1], values[:, :, 1:-1, 0], values[:, :, 1:-1, -1])
    return torch.cat(sides, 2).median(2).values[:, :, None, None]


class Zoomed(Samples):
    """A set whose images show their content `scale` times as large.

    Args:
        data: the set.
        scale: above 0.
        binary: whether its images are black and white, and stay so.
    """

    def __init__(self, data: Samples, scale: float, binary: bool) -> None:
        super().__init__(data.targets, data.ids)
        self.data, self.scale, self.binary = data, scale, binary

    @property
    def bad(self) -> list[tuple[str, str]]:
        """(id, reason) of each unreadable image."""
        return self.data.bad

    @property
    def notes(self) -> list[str]:
        """Those of the set."""
        return self.data.notes

    def image(self, index: int) -> Tensor:
        """One image (C, H, W) uint8."""
        return self._changed(self.data.image(index)[None])[0]

    def truth(self, index: int) -> Any:
        """What belongs to one sample, as the set has it."""
        return self.data.truth(index)

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of one sample's image as it came."""
        return self.data.size(index)

    def batches(self, parts: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        """The batches of the set, changed on the device."""
        return (replace(batch, images=self._changed(batch.images)) for batch in self.data.batches(parts, device))

    def _changed(self, images: Tensor) -> Tensor:
        changed = zoom(images, self.scale)
        return torch.where(changed >= MIDDLE, 255, 0).to(torch.uint8) if self.binary else changed

"""uint8 images to another shape, by an antialiased triangle filter (bilinear), as Pillow's within one grey level.

torch does it three times as fast as Pillow, whose images first have to be copied, and gives the same bytes on every
processor. A process that answers with an exported model has no torch, and loading it takes longer than many answers:
there numpy does the same sums (`data/triangle.py`). C channels, H and W pixels.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from msresnet.data.sample import IGNORED, Image
from msresnet.data.triangle import triangle

if TYPE_CHECKING:
    from torch import Tensor

Resize = Literal["squash", "crop", "pad"]
Size = tuple[int, int]


def resize(image: Image, size: Size, mode: Resize) -> Image:
    """uint8 (C, any H, any W) -> (C, H, W): all content, the middle, or all between black borders."""
    if image.shape[1:] == size:
        return image
    if mode == "squash":
        return _squash(image, size)
    whole = image.shape[1], image.shape[2]
    if mode == "crop":
        top, left, inner = _middle(whole, size)
        return _squash(image[:, top : top + inner[0], left : left + inner[1]], size)
    place = frame(whole, size, mode)
    padded = np.zeros((len(image), *size), np.uint8)
    padded[:, place.rows, place.columns] = _squash(image, place.inner)
    return padded


class Frame(NamedTuple):
    """Where an image of `size` (H, W) lies within the network's input: from (top, left), `inner` (H, W) pixels."""

    size: Size
    top: int
    left: int
    inner: Size

    @property
    def rows(self) -> slice:
        """The rows of the input that the image covers."""
        return slice(self.top, self.top + self.inner[0])

    @property
    def columns(self) -> slice:
        """The columns of the input that the image covers."""
        return slice(self.left, self.left + self.inner[1])


def frame(image: Size, size: Size, mode: Resize) -> Frame:
    """Where an image of (H, W) pixels lies in an input of `size`, all of it being there: not for 'crop'."""
    if mode == "squash":
        return Frame(image, 0, 0, size)
    inner = _scaled(image, min(size[0] / image[0], size[1] / image[1]), size)
    return Frame(image, (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2, inner)


def seen_at(pixel: tuple[int, int], image: Size, size: Size, mode: Resize) -> tuple[int, int]:
    """(row, column) of an image of (H, W) pixels under the middle of a pixel of an input of `size`.

    Of the borders of 'pad' it is the nearest that the image has.
    """
    if mode == "crop":
        top, left, part = _middle(image, size)
        begins, inner = (-top * size[0] / part[0], -left * size[1] / part[1]), size
    else:
        place, part = frame(image, size, mode), image
        begins, inner = (place.top, place.left), place.inner
    row, column = (
        min(max(0, int((at + 0.5 - begin) * own / shown)), last - 1)
        for at, begin, own, shown, last in zip(pixel, begins, part, inner, image, strict=True)
    )
    return row, column


def reduced(image: Image, longest: int) -> Image:
    """uint8 (C, H, W), its longer side at most so many pixels."""
    factor = longest / max(image.shape[1:])
    return (
        image if factor >= 1 else _squash(image, _scaled((image.shape[1], image.shape[2]), factor, (longest, longest)))
    )


def resize_mask(mask: Image, size: Size, mode: Resize) -> Image:
    """Class indices (any H, any W) -> (H, W), each from the nearest pixel; borders are IGNORED. Not for 'crop'."""
    if mask.shape == size:
        return mask
    import torch.nn.functional as F  # masks are for learning and measuring, which need torch anyway

    place = frame((mask.shape[0], mask.shape[1]), size, mode)
    framed = np.full(size, IGNORED, np.uint8)
    near = F.interpolate(as_tensor(mask)[None, None], size=place.inner, mode="nearest-exact")[0, 0]
    framed[place.rows, place.columns] = near.numpy()
    return framed


def _middle(image: Size, size: Size) -> tuple[int, int, Size]:
    """(top, left, (H, W)) of the largest part of an image in the middle that has the proportions of `size`."""
    inner = _scaled(size, 1 / max(size[0] / image[0], size[1] / image[1]), image)
    return (image[0] - inner[0]) // 2, (image[1] - inner[1]) // 2, inner


def _scaled(size: Size, factor: float, most: Size) -> Size:
    height, width = (min(m, max(1, round(side * factor))) for side, m in zip(size, most, strict=True))
    return height, width


def _squash(image: Image, size: Size) -> Image:
    if "torch" not in sys.modules:
        return triangle(image, size)
    import torch.nn.functional as F

    small = F.interpolate(batch_of_one(image), size=size, mode="bilinear", antialias=True)[0]
    return np.ascontiguousarray(small.numpy())


def batch_of_one(image: Image) -> Tensor:
    """(C, H, W) -> (1, C, H, W), its pixels as they lie.

    A decoder's have their channels side by side. Of a batch of one, torch knows that by the stride between images,
    which says nothing otherwise; taken for planes, they are resized in twice the time.
    """
    pixels = as_tensor(image)
    apart = max(side * step for side, step in zip(pixels.shape, pixels.stride(), strict=True))
    return pixels.as_strided((1, *pixels.shape), (apart, *pixels.stride()))


def as_tensor(image: Image) -> Tensor:
    """The same pixels as a tensor, copied only where torch cannot look at them: read-only, or laid out backwards."""
    import torch

    if not image.flags.writeable or min(image.strides) < 0:
        image = image.copy()
    return torch.from_numpy(image)

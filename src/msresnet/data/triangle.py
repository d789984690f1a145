"""Antialiased bilinear resizing of uint8 images in numpy: the sums that torch does, to the byte.

Each axis is a weighted mean whose triangle of weights is as wide as the reduction. Weights are rounded to integers of
16 bits with as many binary places as the largest allows, and every axis ends in whole grey levels, the columns' first.
"""

from __future__ import annotations

from functools import lru_cache
from math import floor

import numpy as np
import numpy.typing as npt

from msresnet.data.sample import Image

MOST_PLACES, WEIGHT_BITS = 22, 15
"""Of the weights, so that 255 times their sum fits into 32 bits."""


def triangle(image: Image, size: tuple[int, int]) -> Image:
    """uint8 (C, any H, any W) -> (C, H, W)."""
    for axis, length in ((2, size[1]), (1, size[0])):
        if image.shape[axis] != length:
            image = _along(image, axis, length)
    return np.ascontiguousarray(image)


def _along(image: Image, axis: int, length: int) -> Image:
    """uint8 (C, H, W) -> the same, one axis of another length."""
    first, weights, places = _weights(image.shape[axis], length)
    last = image.shape[axis] - 1
    shape = [*image.shape]
    shape[axis] = length
    sums = np.full(shape, 1 << (places - 1), np.int32)
    # One array for all taps: making and widening a new one for each takes two thirds of the time.
    wide, near = image.astype(np.int32), np.empty(shape, np.int32)
    for tap, column in enumerate(weights.T):
        np.take(wide, np.minimum(first + tap, last), axis, near, "clip")
        near *= column.reshape(-1, *[1] * (2 - axis))
        sums += near
    sums >>= places
    return np.clip(sums, 0, 255, sums).astype(np.uint8)


@lru_cache(64)
def _weights(old: int, new: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], int]:
    """The first pixel of each new one (new,), the whole-numbered weights from there on (new, taps), their places."""
    scale = old / new
    support = max(scale, 1.0)
    centres = scale * (np.arange(new) + 0.5)
    first = np.maximum(np.floor(centres - support + 0.5).astype(np.int64), 0)
    end = np.minimum(np.floor(centres + support + 0.5).astype(np.int64), old)
    pixels = first[:, None] + np.arange((end - first).max())
    shares = np.maximum(0.0, 1.0 - np.abs((pixels - centres[:, None] + 0.5) / support)) * (pixels < end[:, None])
    shares /= shares.sum(1, keepdims=True)
    places = 1
    while places + 1 < MOST_PLACES and floor(0.5 + shares.max() * 2.0 ** (places + 1)) < 1 << WEIGHT_BITS:
        places += 1
    return first, np.floor(shares * 2.0**places + 0.5).astype(np.int32), places

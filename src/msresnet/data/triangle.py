"""Antialiased bilinear resizing of uint8 images in numpy: the sums that torch does, to the byte.

Each axis is a weighted mean whose triangle of weights is as wide as the reduction. Weights are rounded to integers of
16 bits with as many binary places as the largest allows, and every axis ends in whole grey levels, the columns' first.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from math import floor
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.data.sample import Image

Ints = npt.NDArray[np.int32]
STRIP = 1 << 21
"""Values that are widened to 32 bits at a time: a large image is never there in four times its bytes."""
MOST_PLACES, WEIGHT_BITS = 22, 15
"""Of the weights, so that 255 times their sum fits into 32 bits."""


def triangle(image: Image, size: tuple[int, int]) -> Image:
    """uint8 (C, any H, any W) -> (C, H, W)."""
    channels, height, width = image.shape
    narrow = np.empty((height, channels, size[1]), np.int32)
    rows = max(1, STRIP // (channels * width))
    # What is summed stands first, so that whole rows of memory are added: (W, C, H), then (H, C, W).
    for start in range(0, height, rows):
        strip = image[:, start : start + rows].transpose(2, 0, 1).astype(np.int32, "C")
        if width != size[1]:
            strip = _along(strip.reshape(width, -1), size[1]).reshape(size[1], channels, -1)
        narrow[start : start + rows] = strip.transpose(2, 1, 0)
    if height != size[0]:
        narrow = _along(narrow.reshape(height, -1), size[0]).reshape(size[0], channels, size[1])
    return narrow.transpose(1, 0, 2).astype(np.uint8, "C")


def _along(wide: Ints, length: int) -> Ints:
    """Grey levels (N, M) -> (length, M)."""
    first, weights, places = _weights(len(wide), length)
    # Two to three times as fast, but 0.2 s to load, which a process that answers once does not have.
    sums = _matrix(len(wide), length) @ wide if "scipy.sparse" in sys.modules else _by_taps(wide, first, weights)
    sums += 1 << (places - 1)
    sums >>= places
    reduced: Ints = np.clip(sums, 0, 255, sums)
    return reduced


def _by_taps(wide: Ints, first: npt.NDArray[np.int64], weights: Ints) -> Ints:
    sums = np.zeros((len(first), wide.shape[1]), np.int32)
    near = np.empty_like(sums)
    for tap, column in enumerate(weights.T):
        np.take(wide, np.minimum(first + tap, len(wide) - 1), 0, near, "clip")
        near *= column[:, None]
        sums += near
    return sums


@lru_cache(64)
def _matrix(old: int, new: int) -> Any:
    """The weights as a sparse matrix (new, old)."""
    from scipy.sparse import csr_array

    first, weights, _ = _weights(old, new)
    pixels = np.minimum(first[:, None] + np.arange(weights.shape[1]), old - 1)
    rows = np.broadcast_to(np.arange(new)[:, None], pixels.shape)
    there = weights != 0
    return csr_array((weights[there], (rows[there], pixels[there])), shape=(new, old), dtype=np.int32)


@lru_cache(64)
def _weights(old: int, new: int) -> tuple[npt.NDArray[np.int64], Ints, int]:
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

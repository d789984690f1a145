"""JPEG by libjpeg-turbo, at a reduced scale where no more is needed.

Whole pictures equal Pillow's, pixel by pixel. Whatever is out of the ordinary is left to Pillow, which has the last
word on what is damaged.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg

START, FRAMES, SCAN, JFIF = b"\xff\xd8", (0xC0, 0xC1, 0xC2), 0xDA, 0xE0
PROFILE, ICC, ICC_LENGTH = 0xE2, b"ICC_PROFILE\0", 16
"""A part of a colour profile, which changes no value. All other segments may turn the picture, or be damaged."""
TABLES = (0xC4, 0xDB, 0xDD, 0xFE)
"""Huffman and quantisation tables, restart intervals, comments: they say nothing about how to read the pixels."""
APPLICATIONS = range(0xE0, 0xF0)
JFIF_LENGTH = 16
LEAST_FACTOR = 2
"""Scales between a half and the whole have no fast inverse DCT: they take longer than the whole."""


@dataclass(frozen=True)
class Frame:
    """What stands before the pixels. `described`: segments say more that Pillow must read, such as an orientation."""

    height: int
    width: int
    channels: int
    described: bool


def read_frame(data: bytes) -> Frame | None:
    """The frame of a baseline or progressive JPEG of 8 bits, grey or of three components; None for all else."""
    if not data.startswith(START):
        return None
    at, described, found = len(START), False, None
    try:
        while True:
            start, marker, length = struct.unpack_from(">BBH", data, at)
            if start != 0xFF or length < 2:
                return None
            if marker == SCAN:
                break
            if marker in FRAMES and found is None:
                found = struct.unpack_from(">BHHB", data, at + 4)
            elif marker in APPLICATIONS:
                profile = marker == PROFILE and length >= ICC_LENGTH and data.startswith(ICC, at + 4)
                described = described or not (profile or (marker == JFIF and length >= JFIF_LENGTH))
            elif marker not in TABLES:
                return None
            at += 2 + length
    except struct.error:  # the data ends before the pixels
        return None
    if found is None:
        return None
    bits, height, width, channels = found
    return Frame(height, width, channels, described) if bits == 8 and channels in (1, 3) else None


def decode_frame(data: bytes, channels: int, at_least: tuple[int, int] | None) -> npt.NDArray[np.uint8] | None:
    """Pixels (H, W, C), at no less than `at_least` (H, W), else whole; None where libjpeg-turbo has any objection."""
    low = {} if at_least is None else {"min_height": at_least[0], "min_width": at_least[1], "min_factor": LEAST_FACTOR}
    try:
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB" if channels == 3 else "GRAY", **low)
    except ValueError:
        return None
    return pixels

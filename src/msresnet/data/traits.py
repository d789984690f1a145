"""What is kept of an image once it has been looked at: 300 bytes from which all findings are made.

C channels, H and W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from msresnet.data.sample import Image, Source, mask_of
from msresnet.errors import DataError

ROWS, COLUMNS = 16, 18
TRAITS = np.dtype(
    [
        ("state", "u1"),
        ("colour", "?"),
        ("constant", "?"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("pixels", "<u8"),
        ("small", "u1", (ROWS, COLUMNS)),
    ]
)
"""state; whether the channels differ; whether all pixels are one; size in pixels; the first 64 bits of the SHA-256 of
size and pixels; the image as 16 rows of 18 grey levels."""
UNSEEN, GOOD, BAD = range(3)
Traits = npt.NDArray[np.void]
FEW = 4096
"""Pixels that settle most questions before all are asked."""
LUMA = (77, 150, 29)
"""ITU-R 601, in parts of 256."""


@dataclass(frozen=True)
class Outcome:
    """What looking at one image gave.

    Args:
        traits: the bytes of one TRAITS record; empty for an unreadable image.
        reason: why it cannot be read; empty where it can.
    """

    traits: bytes
    reason: str = ""


def look_at(source: Source, index: int) -> Outcome:
    """Decode one image and see what matters. Raises MemoryError for one that does not fit."""
    try:
        image = source.image(index)
        if source.planes:
            mask_of(source, index, image)
    except DataError as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from None
        return Outcome(b"", error.why or error.what)
    return Outcome(traits_of(image).tobytes())


def traits_of(image: Image) -> Traits:
    """The record of an image (C, H, W)."""
    record = np.zeros((), TRAITS)
    grey = image.shape[0] == 1 or _all(image, lambda part: bool((part == part[:1]).all()))
    image = np.ascontiguousarray(image[:1] if grey else image)
    record["colour"] = not grey
    record["constant"] = _all(image, lambda part: bool((part == image[:, :1, :1]).all()))
    record["height"], record["width"] = image.shape[1:]
    record["pixels"] = _digest(image.data, str(image.shape).encode())
    record["small"] = _small(image)
    record["state"] = GOOD
    return record


def _all(image: Image, test: Callable[[Image], bool]) -> bool:
    """Whether a test that holds for a whole image holds; some evenly spaced pixels are asked first."""
    step = max(1, int((image[0].size / FEW) ** 0.5))
    return test(image[:, ::step, ::step]) and test(image)


def _digest(data: bytes | memoryview, salt: bytes = b"") -> int:
    digest = hashlib.sha256(salt)
    digest.update(data)
    return int.from_bytes(digest.digest()[:8], "little")


def _small(image: Image) -> npt.NDArray[np.uint8]:
    """(C, H, W) -> (16, 18) grey levels, each a mean over its surroundings."""
    grey = image[0]
    if len(image) == 3:
        grey = (sum(plane * np.uint16(part) for plane, part in zip(image, LUMA, strict=True)) >> 8).astype(np.uint8)
    # Overlapping areas: with BOX, a copy of half the size has other pixels in each.
    return np.asarray(Pillow.fromarray(grey).resize((COLUMNS, ROWS), Pillow.Resampling.BILINEAR))

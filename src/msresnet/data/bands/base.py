"""An image that comes in bands of rows, so that its size costs no memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from msresnet.data.decode import MIN_SIDE, UPRIGHT, Turn
from msresnet.data.sample import Image
from msresnet.errors import DataError

MOST_PIXELS = 100_000_000_000
"""Of an image that comes in bands; what is decoded whole keeps to the lower limit of `decode`."""
MOST_ROW = 64 << 20
"""Bytes of a row of pixels, as the file holds them."""
BAND_BYTES = 8 << 20
"""About so much of an image is decoded at once."""


@dataclass
class Bands(ABC):
    """An image file that is decoded from top to bottom.

    Args:
        file: open, anywhere.
        where: what to call it in an error.
        height, width: in pixels, as the file holds them.
        turn: what makes it upright.
        note: why it is decoded whole; '' where it is not.

    Raises DataError for a size beyond the limits.
    """

    file: BinaryIO
    where: str
    height: int
    width: int
    turn: Turn = UPRIGHT
    note: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        size = f"{self.width:,}x{self.height:,}"
        if self.height * self.width > MOST_PIXELS:
            raise DataError(
                "the image is too large", where=self.where, why=f"{size}, the limit is {MOST_PIXELS:,} pixels"
            )
        if min(self.height, self.width) < MIN_SIDE:
            raise DataError("the image is too small", where=self.where, why=f"{size} pixels hold no picture")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels of the upright image."""
        return (self.width, self.height) if self.turn[0] else (self.height, self.width)

    @abstractmethod
    def rows(self) -> Iterator[Image]:
        """uint8 (C, h, W): the next rows, again and again, with the pixels that `decode_bytes` gives, not yet turned.

        Raises DataError for a file that is damaged or cut off, when its turn comes.
        """


def rows_at_once(row_bytes: int, where: str) -> int:
    """How many rows make a band. Raises DataError for rows that are too long."""
    if row_bytes > MOST_ROW:
        why = f"a row has {row_bytes:,} bytes, the limit is {MOST_ROW:,}"
        raise DataError("the image is too wide", where=where, why=why)
    return max(1, BAND_BYTES // row_bytes)


def exactly(file: BinaryIO, count: int, where: str) -> bytes:
    """The next bytes of a file. Raises DataError where it ends before."""
    data = file.read(count)
    if len(data) < count:
        raise cut_off(where)
    return data


def cut_off(where: str, rows: int | None = None) -> DataError:
    """What is said of a file that ends too early, perhaps after so many rows."""
    after = "" if rows is None else f" after {rows:,} rows"
    return DataError("the image is cut off", where=where, why=f"the file ends{after}", hint="copy it again")

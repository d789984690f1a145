"""Which reader takes an image file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from msresnet.data.bands.base import Bands
from msresnet.data.bands.jpeg import open_jpeg
from msresnet.data.bands.png import open_png
from msresnet.data.bands.tiff import open_tiff
from msresnet.data.decode import MAX_BYTES, MAX_PIXELS, bytes_size, decode_bytes, decoding, printable, refuse_pointer
from msresnet.data.sample import Image
from msresnet.errors import DataError

Opener = Callable[[BinaryIO, str], Bands | str]
OPENERS: dict[bytes, Opener] = {
    b"\x89PNG\r\n\x1a\n": open_png,
    b"\xff\xd8\xff": open_jpeg,
    b"II*\0": open_tiff,
    b"MM\0*": open_tiff,
    b"II+\0": open_tiff,
}
"""By how a file begins. Each gives a reader, or says why the image has to be decoded whole."""


class Whole(Bands):
    """An image that has to be decoded at once; upright already."""

    def rows(self) -> Iterator[Image]:
        """All of it."""
        self.file.seek(0)
        yield decode_bytes(self.file.read(), self.where)


def open_bands(file: BinaryIO, where: str) -> Bands:
    """A reader for an image file of any size.

    TIFF, PNG and JPEG come in bands, up to 100,000,000,000 pixels; what its format, or its kind of it, does not allow
    to be read so is decoded whole, up to `decode.MAX_PIXELS`.

    Raises DataError, naming the file, for what is not an image that can be read.
    """
    where = printable(where)
    start = file.read(64)
    if not start:
        raise DataError("the image file is empty", where=where)
    refuse_pointer(start, where)
    reason = "its format has no bands that could be read by themselves"
    for magic, opener in OPENERS.items():
        if start.startswith(magic):
            file.seek(0)
            with decoding(where):
                found = opener(file, where)
            if isinstance(found, Bands):
                return found
            reason = found
    return _whole(file, where, reason)


def _whole(file: BinaryIO, where: str, reason: str) -> Bands:
    size = file.seek(0, os.SEEK_END)
    if size > MAX_BYTES:
        why = f"{size:,} bytes, the limit is {MAX_BYTES:,}; {reason}"
        raise DataError(
            "the file is too large to be decoded whole", where=where, why=why, hint="save it as a tiled TIFF"
        )
    file.seek(0)
    try:
        height, width = bytes_size(file.read(), where)
    except DataError as error:
        if error.what != "the image is too large":
            raise
        why = f"{error.why} ({MAX_PIXELS:,}) where an image has to be decoded whole; {reason}"
        raise DataError(error.what, where=where, why=why, hint="save it as a tiled TIFF") from error
    return Whole(file, where, height, width, note=reason)

"""TIFF by its strips, or by its rows of tiles (Adobe, TIFF 6.0, and the BigTIFF design).

The segments that hold some rows are made a small TIFF of their own, with the tags of the large one, so that every
compression and every kind of pixel that Pillow reads is read here too, and becomes the same.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from msresnet.data.bands.base import Bands, exactly, rows_at_once
from msresnet.data.decode import MAX_PIXELS, TURNS, UPRIGHT, decode_part, decoding
from msresnet.data.sample import Image
from msresnet.errors import DataError

WIDTH, LENGTH, BITS, COMPRESSION, SAMPLES, ROWS_PER_STRIP, PLANAR = 256, 257, 258, 259, 277, 278, 284
STRIP_OFFSETS, STRIP_COUNTS, TILE_OFFSETS, TILE_COUNTS = 273, 279, 324, 325
TILE_WIDTH, TILE_LENGTH, ORIENTATION = 322, 323, 274
KEPT = (
    BITS, COMPRESSION, 262, 266, SAMPLES, PLANAR, 292, 293, 317, 320, TILE_WIDTH, TILE_LENGTH, 338, 339, 347,
    529, 530, 531, 532,
)  # fmt: skip
"""Tags that say how segments become pixels."""
UNCOMPRESSED, OLD_JPEG, SEPARATE = 1, 6, 2
LONG = 4
"""The type of a tag whose values have 32 bits."""
FIRST = 8
"""Where a directory may begin, in bytes."""


@dataclass(frozen=True)
class Layout:
    """Where the segments of an image lie.

    Args:
        offsets: of each segment, in bytes; of separate planes one plane after the other.
        counts: bytes of each.
        height: rows of a segment.
        across: segments side by side.
        planes: 1, or one for each sample.
        parts: so many segments, each of so many bytes, lie one behind the other from each offset on.
    """

    offsets: Sequence[int]
    counts: Sequence[int]
    height: int
    across: int
    planes: int
    parts: int = 1

    def segment(self, index: int) -> tuple[int, int]:
        """Where a segment begins, and its bytes."""
        at, part = divmod(index, self.parts)
        return self.offsets[at] + part * self.counts[at], self.counts[at]

    def rows(self, first: int, last: int) -> list[int]:
        """The segments of some rows of segments, plane by plane."""
        each = len(self.offsets) // self.planes
        return [p * each + i for p in range(self.planes) for i in range(first * self.across, last * self.across)]


def open_tiff(file: BinaryIO, where: str) -> Bands | str:
    """A reader for the first image of a TIFF, or why there is none. Raises DataError for one that makes no sense."""
    # Without Pillow's own limit of pixels: nothing is decoded here.
    with TiffImageFile(file) as image:
        tags = image.tag_v2
        width, height = int(tags[WIDTH]), int(tags[LENGTH])
        if tags.get(COMPRESSION, 1) == OLD_JPEG:
            return "a TIFF with JPEG of the old kind is read whole"
        layout = _layout(tags, width, height, where)
    pixels = layout.height * (tags[TILE_WIDTH] * layout.across if TILE_OFFSETS in tags else width)
    if pixels > MAX_PIXELS:
        return f"a row of the TIFF's strips or tiles has {pixels:,} pixels"
    return TiffBands(file, where, tags, layout)


class TiffBands(Bands):
    """A TIFF in strips or tiles."""

    def __init__(self, file: BinaryIO, where: str, tags: ImageFileDirectory_v2, layout: Layout) -> None:
        super().__init__(file, where, int(tags[LENGTH]), int(tags[WIDTH]), TURNS.get(tags.get(ORIENTATION), UPRIGHT))
        self.tags, self.layout = tags, layout
        self.at_once = max(1, rows_at_once(_row_bytes(tags), where) // layout.height)

    def rows(self) -> Iterator[Image]:
        """The next rows."""
        total = -(-self.height // self.layout.height)
        for first in range(0, total, self.at_once):
            last = min(first + self.at_once, total)
            parts = [self._segment(i) for i in self.layout.rows(first, last)]
            height = min(last * self.layout.height, self.height) - first * self.layout.height
            with decoding(self.where):
                pixels = decode_part(self._alone(parts, height), "TIFF")
            yield pixels

    def _segment(self, index: int) -> bytes:
        offset, count = self.layout.segment(index)
        self.file.seek(offset)
        return exactly(self.file, count, self.where)

    def _alone(self, parts: list[bytes], height: int) -> bytes:
        """Segments as a file of so many rows."""
        tiled = TILE_OFFSETS in self.tags
        tags = ImageFileDirectory_v2(
            ifh=self.tags.prefix + (b"*\0" if self.tags.prefix == b"II" else b"\0*") + bytes(4)
        )
        for tag in KEPT:
            if tag in self.tags:
                tags.tagtype[tag] = self.tags.tagtype[tag]
                tags[tag] = self.tags[tag]
        place, lengths = (TILE_OFFSETS, TILE_COUNTS) if tiled else (STRIP_OFFSETS, STRIP_COUNTS)
        starts = list(itertools.accumulate(map(len, parts), initial=0))[:-1]
        own: dict[int, Any] = {WIDTH: self.width, LENGTH: height, lengths: tuple(map(len, parts)), place: tuple(starts)}
        own |= {} if tiled else {ROWS_PER_STRIP: self.layout.height}
        for tag, value in own.items():
            tags.tagtype[tag] = LONG
            tags[tag] = value
        if tiled:  # to the places of strips, Pillow adds where the directory ends, to those of tiles it does not
            end = FIRST + len(tags.tobytes(FIRST))
            tags[place] = tuple(end + start for start in starts)
        order = "<" if self.tags.prefix == b"II" else ">"
        return b"".join([self.tags.prefix, struct.pack(f"{order}HI", 42, FIRST), tags.tobytes(FIRST), *parts])


def _layout(tags: ImageFileDirectory_v2, width: int, height: int, where: str) -> Layout:
    tiled = TILE_OFFSETS in tags
    offsets, counts = (
        tags.get(t, ()) for t in ((TILE_OFFSETS, TILE_COUNTS) if tiled else (STRIP_OFFSETS, STRIP_COUNTS))
    )
    rows = int(tags[TILE_LENGTH] if tiled else min(tags.get(ROWS_PER_STRIP, height), height))
    across = -(-width // int(tags[TILE_WIDTH])) if tiled else 1
    planes = int(tags.get(SAMPLES, 1)) if tags.get(PLANAR, 1) == SEPARATE else 1
    needed = planes * across * -(-height // rows)
    if len(offsets) < needed or len(counts) < needed:
        why = f"{needed:,} strips or tiles are needed, {min(len(offsets), len(counts)):,} are there"
        raise DataError("the image is cut off", where=where, why=why)
    if not tiled and planes == 1 and rows > 1 and tags.get(COMPRESSION, 1) == UNCOMPRESSED:
        # Without compression each row is a segment: some programs write one strip of all rows.
        return Layout(offsets[:needed], [_row_bytes(tags)] * needed, 1, 1, 1, parts=rows)
    return Layout(offsets[:needed], counts[:needed], rows, across, planes)


def _row_bytes(tags: ImageFileDirectory_v2) -> int:
    bits = tags.get(BITS, (1,))
    samples = int(tags.get(SAMPLES, 1))
    each = sum(bits) if len(bits) == samples else bits[0] * samples
    return -(-int(tags[WIDTH]) * each // 8)

"""PNG by bands of rows (W3C, Portable Network Graphics, third edition).

The file's one stream of compressed rows is inflated piece by piece. Each band of filtered rows is then made a small PNG
of its own, whose first row is the last one before it, so that the decoder in C undoes the filters. Pixels of a kind
that needs an interpretation (palettes, transparency, less or more than 8 bits) go through a second one, which has the
true header: what they become is decided in one place.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image as Pillow

from msresnet.data.bands.base import Bands, cut_off, exactly, rows_at_once
from msresnet.data.decode import decode_part, decoding, turn_of
from msresnet.data.sample import Image
from msresnet.errors import DataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel, by colour type."""
AS_BYTES = {1: 0, 2: 4, 3: 2, 4: 6}
"""The colour type whose pixels have so many bytes, of 8 bits each."""
COLOURS, DESCRIPTIONS = (b"PLTE", b"tRNS"), (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
MOST_CHUNK = 1 << 20
"""Bytes of a chunk that says something about the pixels; longer descriptions are passed over."""
PIECE = 1 << 18


@dataclass(frozen=True)
class Header:
    """What the first chunk says."""

    width: int
    height: int
    bits: int
    colour: int
    interlaced: bool

    @property
    def step(self) -> int:
        """Bytes from a byte to that of the pixel before, as filters count them."""
        return max(1, CHANNELS[self.colour] * self.bits // 8)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row without its filter."""
        return -(-self.width * CHANNELS[self.colour] * self.bits // 8)


def open_png(file: BinaryIO, where: str) -> Bands | str:
    """A reader for a PNG, or why there is none. Raises DataError for a damaged header."""
    exactly(file, len(SIGNATURE), where)
    length, kind = struct.unpack(">I4s", exactly(file, 8, where))
    if kind != b"IHDR" or length != 13:
        raise DataError("cannot decode the image", where=where, why="a PNG without a header")
    data = exactly(file, length, where)
    _check(zlib.crc32(kind + data), file, where)
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data)
    if colour not in CHANNELS or bits not in (1, 2, 4, 8, 16):
        raise DataError("cannot decode the image", where=where, why=f"a PNG of colour type {colour} with {bits} bits")
    header = Header(width, height, bits, colour, bool(interlaced))
    if header.interlaced:
        return "the rows of an interlaced PNG come in seven turns"
    if header.step not in AS_BYTES:
        return "a PNG with 16 bits for each colour is read whole"
    return PngBands(file, where, header)


class PngBands(Bands):
    """A PNG without interlacing."""

    def __init__(self, file: BinaryIO, where: str, header: Header) -> None:
        self.header = header
        self.at_once = rows_at_once(header.row_bytes, where)
        self.colours = b"".join(chunk for kind, chunk in _chunks(file, where) if kind in COLOURS)
        described = b"".join(chunk for kind, chunk in _chunks(file, where) if kind in DESCRIPTIONS)
        one = _png(Header(1, 1, 8, 0, False), described, b"\0\0")
        with Pillow.open(io.BytesIO(one), formats=("PNG",)) as picture:
            turn = turn_of(picture)
        super().__init__(file, where, header.height, header.width, turn)

    def rows(self) -> Iterator[Image]:
        """The next rows."""
        stream = _Inflated(self.file, self.where)
        before = bytes(self.header.row_bytes)
        plain = self.header.bits == 8 and self.header.colour in (0, 2) and not self.colours
        for top in range(0, self.height, self.at_once):
            count = min(self.at_once, self.height - top)
            filtered = stream.take(count * (1 + self.header.row_bytes), top)
            with decoding(self.where):
                raw = self._unfiltered(before, filtered, count)
                before = raw[-1].tobytes()
                pixels = raw.reshape(count, self.width, -1).transpose(2, 0, 1) if plain else self._interpreted(raw)
            yield pixels
        stream.finish(self.height)

    def _unfiltered(self, before: bytes, filtered: bytes, count: int) -> Image:
        """The bytes (h, row bytes) of rows whose filters look back at the row before them."""
        head = self.header
        as_bytes = Header(head.row_bytes // head.step, count + 1, 8, AS_BYTES[head.step], False)
        with Pillow.open(io.BytesIO(_png(as_bytes, b"", b"\0" + before + filtered)), formats=("PNG",)) as image:
            return np.asarray(image).reshape(count + 1, head.row_bytes)[1:]

    def _interpreted(self, raw: Image) -> Image:
        head = self.header
        unfiltered = np.concatenate([np.zeros((len(raw), 1), np.uint8), raw], 1)
        alone = Header(head.width, len(raw), head.bits, head.colour, False)
        return decode_part(_png(alone, self.colours, unfiltered.tobytes()), "PNG")


class _Inflated:
    """The rows of a PNG as its filters left them, in order."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self.inflater, self.where = zlib.decompressobj(), where
        self.pieces = _pixels_of(file, where)
        self.waiting = b""

    def take(self, count: int, row: int) -> bytes:
        """The next bytes; `row` is where they begin. Raises DataError."""
        parts = []
        while count:
            piece = self.waiting or next(self.pieces, b"")
            if not piece:
                raise cut_off(self.where, row)
            with decoding(self.where):
                part = self.inflater.decompress(piece, count)
                self.waiting = self.inflater.unconsumed_tail
            if self.inflater.eof and len(part) < count:
                raise cut_off(self.where, row)
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def finish(self, rows: int) -> None:
        """Read what is left, so that its checksums are known to be right. Raises DataError."""
        for piece in itertools.chain([self.waiting], self.pieces):
            with decoding(self.where):
                self.inflater.decompress(piece, PIECE)
            if self.inflater.eof:
                for _ in self.pieces:
                    pass
                return
        if not self.inflater.eof:
            raise cut_off(self.where, rows)


def _pixels_of(file: BinaryIO, where: str) -> Iterator[bytes]:
    """The content of the chunks of pixels, in pieces. Raises DataError for a bad checksum."""
    file.seek(len(SIGNATURE))
    while True:
        length, kind = struct.unpack(">I4s", exactly(file, 8, where))
        if kind == b"IEND":
            return
        if kind != b"IDAT":
            file.seek(length + 4, 1)
            continue
        checksum = zlib.crc32(kind)
        while length:
            piece = exactly(file, min(length, PIECE), where)
            checksum = zlib.crc32(piece, checksum)
            length -= len(piece)
            yield piece
        _check(checksum, file, where)


def _chunks(file: BinaryIO, where: str) -> Iterator[tuple[bytes, bytes]]:
    """(kind, chunk) of the chunks that are not pixels, each as it lies in the file. Raises DataError."""
    file.seek(len(SIGNATURE))
    while True:
        start = file.read(8)
        if len(start) < 8:
            return  # the rows will tell
        length, kind = struct.unpack(">I4s", start)
        if kind == b"IEND":
            return
        if kind not in COLOURS + DESCRIPTIONS or length > MOST_CHUNK:
            file.seek(length + 4, 1)
            continue
        data = exactly(file, length, where)
        _check(zlib.crc32(kind + data), file, where)
        yield kind, _chunk(kind, data)


def _check(checksum: int, file: BinaryIO, where: str) -> None:
    if exactly(file, 4, where) != struct.pack(">I", checksum):
        raise DataError("cannot decode the image", where=where, why="a checksum in the PNG is wrong")


def _png(header: Header, others: bytes, rows: bytes) -> bytes:
    """A PNG of rows with their filters, hardly compressed."""
    first = struct.pack(">IIBBBBB", header.width, header.height, header.bits, header.colour, 0, 0, 0)
    pixels = _chunk(b"IDAT", zlib.compress(rows, 0))
    return SIGNATURE + _chunk(b"IHDR", first) + others + pixels + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

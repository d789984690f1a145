"""Sequential JPEG by bands of rows (ITU-T T.81).

Each band is made a small JPEG of its own, which the usual decoder takes. It begins and ends a row of units outside the
band, since decoders smooth colours over the border of units; those rows are thrown away. Where the file has restart
markers at the rows' ends, bands are cut out between them. Where it has none, the codes are read to find where rows
begin (`huffman`), and a first row of units without content brings the means to where the band goes on from.
"""

from __future__ import annotations

import io
import re
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from msresnet.data.bands.base import Bands, cut_off, exactly, rows_at_once
from msresnet.data.bands.huffman import END_OF_BLOCK, LARGEST_MEAN, Mark, Stream, Table, steps
from msresnet.data.decode import Turn, decode_part, decoding, turn_of
from msresnet.data.jpeg import FRAMES, SCAN, START
from msresnet.data.sample import Image
from msresnet.errors import DataError

SEQUENTIAL, TABLES, INTERVAL, END = FRAMES[:2], 0xC4, 0xDD, b"\xff\xd9"
DESCRIPTIONS = (0xE1, 0xE2, 0xED, 0xFE)
"""Segments that say nothing about how codes become pixels: EXIF, colour profiles, Photoshop's, comments."""
NO_FRAMES = (TABLES, 0xC8, 0xCC)
"""Markers between those of frames."""
BLOCK_SIDE, PIECE = 8, 1 << 18
MOST_HEAD = 64 << 20
"""Bytes before the pixels."""
UNUSUAL = "a JPEG of this kind is read whole"
RESTARTS = re.compile(rb"\xff+([\xd0-\xd7])")
MARKER = re.compile(rb"\xff+([^\x00\xff])")
MEANS = range(LARGEST_MEAN + 1)
OTHERS = 16
"""From here on, numbers of tables are of those for other coefficients than means."""


@dataclass(frozen=True)
class Component:
    """A colour: its blocks across and down a unit, and the tables of its scan."""

    across: int
    down: int
    means: int
    others: int


@dataclass(frozen=True)
class Head:
    """What stands before the pixels.

    Args:
        segments: those that decoders need, in order: (marker, content).
        described: all segments, for what they say about the picture.
        height, width: in pixels.
        components: the colours.
        interval: units between restart markers; 0 where there are none.
        start: where the pixels begin, in bytes.
    """

    segments: list[tuple[int, bytes]]
    described: list[tuple[int, bytes]]
    height: int
    width: int
    components: list[Component]
    interval: int
    start: int

    @property
    def unit(self) -> tuple[int, int]:
        """(H, W) of a unit in pixels. A single colour's units are blocks, whatever it says."""
        if len(self.components) == 1:
            return BLOCK_SIDE, BLOCK_SIDE
        down, across = (max(n) for n in zip(*((c.down, c.across) for c in self.components), strict=True))
        return BLOCK_SIDE * down, BLOCK_SIDE * across

    @property
    def units(self) -> int:
        """Units in a row."""
        return -(-self.width // self.unit[1])

    @property
    def blocks(self) -> list[int]:
        """The component of each block of a unit."""
        if len(self.components) == 1:
            return [0]
        return [i for i, c in enumerate(self.components) for _ in range(c.across * c.down)]


def open_jpeg(file: BinaryIO, where: str) -> Bands | str:
    """A reader for a JPEG, or why there is none. Raises DataError for a damaged header."""
    head = _head(file, where)
    if isinstance(head, str):
        return head
    with Pillow.open(io.BytesIO(_start(head.described, BLOCK_SIDE)), formats=("JPEG",)) as picture:
        turn = turn_of(picture)
    if head.interval:
        if head.interval % head.units and head.units % head.interval:
            return "the JPEG's restart markers are not at the ends of rows"
        return RestartBands(file, where, head, turn)
    longer = {key: _longer(key, table) for key, table in _tables(head).items()}
    if None in longer.values():
        return "the JPEG's tables have no room for another code"
    return CodedBands(file, where, head, turn)


def _longer(key: int, table: Table) -> Table | None:
    """A table with the codes that a row of units without content needs."""
    return table.with_all(MEANS if key < OTHERS else [END_OF_BLOCK])


class _JpegBands(Bands):
    """What both kinds share."""

    def __init__(self, file: BinaryIO, where: str, head: Head, turn: Turn) -> None:
        super().__init__(file, where, head.height, head.width, turn)
        self.head = head
        self.total = -(-head.height // head.unit[0])
        rows = rows_at_once(len(head.components) * head.width, where)
        self.at_once = max(4, rows // head.unit[0])
        """Rows of units in a band; with fewer, those that are decoded twice would be most of the work."""

    def _band(self, data: bytes, before: int, first: int, last: int) -> Image:
        """The rows of units from `first` to `last`, of a JPEG that has so many rows before them."""
        high = self.head.unit[0]
        with decoding(self.where):
            pixels = decode_part(data, "JPEG")
        top = before * high
        return pixels[:, top : top + min(last * high, self.height) - first * high]

    def _height(self, rows: int, end: int) -> int:
        """Pixels of so many rows of units, the last of which is that before `end`."""
        high = self.head.unit[0]
        return rows * high - (self.total * high - self.height if end == self.total else 0)


class CodedBands(_JpegBands):
    """A JPEG whose pixels are one stream of codes."""

    def rows(self) -> Iterator[Image]:
        """The next rows."""
        stream, tables = self._stream()
        marks = {0: stream.mark()}
        for first in range(0, self.total, self.at_once):
            last = min(first + self.at_once, self.total)
            begin, end = max(0, first - 1), min(last + 1, self.total)
            for row in range(max(marks), end):
                stream.skip_row(row * self.head.unit[0])
                marks[row + 1] = stream.mark()
            bits = stream.bits(marks[begin].bit, marks[end].bit)
            yield self._decoded(bits, marks[begin], tables, (begin, first, last, end))
            marks = {row: mark for row, mark in marks.items() if row >= last - 1}
            stream.forget(marks[min(marks)].bit)

    def _stream(self) -> tuple[Stream, dict[int, Table]]:
        tables = _tables(self.head)
        ways = [steps(tables[c.means], tables[c.others]) for c in self.head.components]
        plan = [(i, ways[i]) for i in self.head.blocks]
        pieces = _unstuffed(self.file, self.head.start)
        components = len(self.head.components)
        return Stream(pieces, plan, self.head.units, components, self.where), tables

    def _decoded(
        self, bits: npt.NDArray[np.uint8], mark: Mark, tables: dict[int, Table], rows: tuple[int, int, int, int]
    ) -> Image:
        begin, first, last, end = rows
        longer = {key: _longer(key, table) or table for key, table in tables.items()}
        segments = [(m, _described(longer) if m == TABLES else s) for m, s in _once(self.head.segments)]
        empty = int(begin > 0)
        if empty:
            bits = np.concatenate([self._empty_row(mark, longer), bits])
        bits = np.concatenate([bits, np.ones(-len(bits) % 8, np.uint8)])
        codes = np.packbits(bits).tobytes().replace(b"\xff", b"\xff\0")
        start = _start(segments, self._height(end - begin + empty, end))
        return self._band(start + codes + END, first - begin + empty, first, last)

    def _empty_row(self, mark: Mark, tables: dict[int, Table]) -> npt.NDArray[np.uint8]:
        """The bits of a row of units without content, after which the means are those of a mark."""
        texts = [_codes(tables[c.means], tables[c.others], mean) for c, mean in
                 zip(self.head.components, mark.means, strict=True)]  # fmt: skip
        begun: set[int] = set()
        unit, again = "", "".join(texts[i][1] for i in self.head.blocks)
        for i in self.head.blocks:
            unit += texts[i][int(i in begun)]
            begun.add(i)
        return np.frombuffer((unit + again * (self.head.units - 1)).encode(), np.uint8) - ord("0")


class RestartBands(_JpegBands):
    """A JPEG with restart markers at the ends of rows: what lies between two of them can be decoded by itself."""

    def rows(self) -> Iterator[Image]:
        """The next rows."""
        rows = max(1, self.head.interval // self.head.units)  # between cuts
        many = max(1, self.head.units // self.head.interval)  # intervals between cuts
        cuts = -(-self.total // rows)
        at_once = max(1, self.at_once // rows)
        intervals, kept, begin = _intervals(self.file, self.head.start), deque[bytes](), 0
        for first in range(0, cuts, at_once):
            last = min(first + at_once, cuts)
            start, end = max(0, first - 1), min(last + 1, cuts)
            while begin < start:
                for _ in range(many):
                    kept.popleft()
                begin += 1
            while len(kept) < (end - begin) * many:
                if (interval := next(intervals, None)) is None:
                    raise cut_off(self.where, (begin + len(kept) // many) * rows * self.head.unit[0])
                kept.append(interval)
            yield self._cut(list(kept), [min(n * rows, self.total) for n in (start, first, last, end)])

    def _cut(self, intervals: list[bytes], rows: list[int]) -> Image:
        begin, first, last, end = rows
        between = [part for i, data in enumerate(intervals) for part in (data, bytes((0xFF, 0xD0 + i % 8)))][:-1]
        start = _start(self.head.segments, self._height(end - begin, end))
        return self._band(b"".join([start, *between, END]), first - begin, first, last)


def _segments(file: BinaryIO, where: str) -> list[tuple[int, bytes]] | None:
    """What stands before the pixels, (marker, content) each; None where it is out of the ordinary. Raises DataError."""
    exactly(file, len(START), where)
    segments: list[tuple[int, bytes]] = []
    while not segments or segments[-1][0] != SCAN:
        start, marker, length = struct.unpack(">BBH", exactly(file, 4, where))
        if start != 0xFF or length < 2 or file.tell() > MOST_HEAD:
            return None
        segments.append((marker, exactly(file, length - 2, where)))
    return segments


def _head(file: BinaryIO, where: str) -> Head | str:
    """What stands before the pixels, or why the image has to be decoded whole. Raises DataError."""
    segments = _segments(file, where)
    frames = [i for i, (m, _) in enumerate(segments or []) if 0xC0 <= m <= 0xCF and m not in NO_FRAMES]
    if segments is None or len(frames) != 1:
        return UNUSUAL
    marker, frame = segments[frames[0]]
    if marker not in SEQUENTIAL:
        return "a progressive or arithmetic JPEG has no row that is whole before its end"
    bits, height, width, count = struct.unpack(">BHHB", frame[:6])
    scan = segments[-1][1]
    if bits != BLOCK_SIDE or count not in (1, 3) or height == 0 or scan[0] != count or len(scan) != 4 + 2 * count:
        return UNUSUAL
    sides = {frame[6 + 3 * i]: frame[7 + 3 * i] for i in range(count)}
    chosen = [(scan[1 + 2 * i], scan[2 + 2 * i]) for i in range(count)]
    components = [Component(sides[c] >> 4, sides[c] & 15, t >> 4, OTHERS | t & 15) for c, t in chosen]
    intervals = [0, *(struct.unpack(">H", content)[0] for m, content in segments if m == INTERVAL)]
    needed = [(m, content) for m, content in segments if m not in DESCRIPTIONS]
    head = Head(needed, segments, height, width, components, intervals[-1], file.tell())
    if any(not {c.means, c.others} <= _tables(head).keys() for c in components):
        return UNUSUAL
    return head


def _tables(head: Head) -> dict[int, Table]:
    """The Huffman tables by class and number: 0 to 3 for means, from 16 on for other coefficients."""
    found: dict[int, Table] = {}
    for segment in (s for marker, s in head.segments if marker == TABLES):
        at = 0
        while at < len(segment):
            counts = tuple(segment[at + 1 : at + 17])
            symbols = segment[at + 17 : at + 17 + sum(counts)]
            if len(counts) < 16 or len(symbols) < sum(counts):
                raise DataError("a Huffman table of the JPEG is cut off")
            found[segment[at]] = Table(counts, symbols)
            at += 17 + len(symbols)
    return found


def _described(tables: dict[int, Table]) -> bytes:
    """Tables as the content of a segment."""
    return b"".join(bytes((key, *t.counts)) + t.symbols for key, t in sorted(tables.items()))


def _once(segments: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Segments with only the first of those that hold tables, which is to hold them all."""
    first = next((i for i, (marker, _) in enumerate(segments) if marker == TABLES), 0)
    return [s for i, s in enumerate(segments) if s[0] != TABLES or i == first]


def _start(segments: list[tuple[int, bytes]], height: int) -> bytes:
    """Segments as the beginning of a file whose picture has another height."""
    high = struct.pack(">H", height)
    changed = [(m, s[:1] + high + s[3:] if m in SEQUENTIAL else s) for m, s in segments]
    return START + b"".join(struct.pack(">BBH", 0xFF, m, 2 + len(s)) + s for m, s in changed)


def _codes(means: Table, others: Table, mean: int) -> tuple[str, str]:
    """The bits of a block that has a mean alone, and of one that has nothing."""
    size = abs(mean).bit_length()
    number = mean if mean >= 0 else mean + (1 << size) - 1
    codes, end = means.codes(), _text(*others.codes()[END_OF_BLOCK])
    if size not in codes:
        raise DataError("cannot decode the image", why="a JPEG whose means are out of bounds")
    return _text(*codes[size]) + (_text(size, number) if size else "") + end, _text(*codes[0]) + end


def _text(length: int, code: int) -> str:
    return format(code, f"0{length}b")


def _stuffed(file: BinaryIO, start: int) -> Iterator[bytes]:
    """The bytes of a scan in pieces, none of which ends within a marker."""
    file.seek(start)
    rest = b""
    while piece := file.read(PIECE):
        piece = rest + piece
        whole = len(piece.rstrip(b"\xff"))
        piece, rest = piece[:whole], piece[whole:]
        if piece:
            yield piece


def _unstuffed(file: BinaryIO, start: int) -> Iterator[bytes]:
    """The bits of a scan up to its end, in bytes."""
    for piece in _stuffed(file, start):
        end = MARKER.search(piece)
        yield (piece[: end.start()] if end else piece).replace(b"\xff\0", b"\xff")
        if end:
            return


def _intervals(file: BinaryIO, start: int) -> Iterator[bytes]:
    """What lies between restart markers, as it stands."""
    parts: list[bytes] = []
    for piece in _stuffed(file, start):
        at = 0
        for marker in MARKER.finditer(piece):
            parts.append(piece[at : marker.start()])
            yield b"".join(parts)
            parts, at = [], marker.end()
            if not RESTARTS.fullmatch(marker[0]):
                return
        parts.append(piece[at:])

"""Where the rows of a JPEG's blocks begin within its one stream of bits (ITU-T T.81, annex F).

A baseline JPEG can only be entered at its beginning: codes have no fixed length, and each block's mean is written as
the difference from that of the block before. Here the codes are read, not the pixels: afterwards it is known for any
row of blocks at which bit it begins, and from which means it goes on, so that it can be decoded by itself.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msresnet.data.bands.base import cut_off
from msresnet.errors import DataError

LOOK = 16
"""Bits of the longest code."""
CODES = 1 << LOOK
END_OF_BLOCK, SKIP_16, BLOCK = 0x00, 0xF0, 64
LARGEST_MEAN = 11
"""Bits of the largest difference between the means of 8-bit pixels."""
MOST_BITS = LOOK + 15
"""Of a code and the number after it."""


@dataclass(frozen=True)
class Table:
    """A Huffman table as the file has it: how many codes of each length from 1 to 16, and what they stand for."""

    counts: tuple[int, ...]
    symbols: bytes

    def codes(self) -> dict[int, tuple[int, int]]:
        """(length, code) of each symbol. Raises DataError for lengths that make no code."""
        found: dict[int, tuple[int, int]] = {}
        code, symbols = 0, iter(self.symbols)
        for length, count in enumerate(self.counts, 1):
            for symbol in (next(symbols) for _ in range(count)):
                found[symbol] = (length, code)
                code += 1
            if code > 1 << length:
                raise DataError("a Huffman table of the JPEG makes no sense")
            code <<= 1
        return found

    def with_all(self, wanted: Sequence[int]) -> Table | None:
        """The same codes, and longer ones for what had none; None where there is no room for them."""
        counts, symbols = [*self.counts], bytearray(self.symbols)
        for symbol in wanted:
            if symbol in symbols:
                continue
            longest = max((length for length, count in enumerate(counts, 1) if count), default=1)
            for length in range(longest, LOOK + 1):
                used = sum(count << (length - n) for n, count in enumerate(counts[:length], 1))
                if used < (1 << length) - 1:  # the code of ones alone is not to be used
                    counts[length - 1] += 1
                    symbols.append(symbol)
                    break
            else:
                return None
        return Table(tuple(counts), bytes(symbols))

    def spread(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """By the next 16 bits (65536,): the length of the code they begin with (0: none), and its symbol."""
        lengths, symbols = np.zeros(CODES, np.int64), np.zeros(CODES, np.int64)
        for symbol, (length, code) in self.codes().items():
            place = slice(code << (LOOK - length), (code + 1) << (LOOK - length))
            lengths[place], symbols[place] = length, symbol
        return lengths, symbols


@dataclass(frozen=True)
class Steps:
    """What to do at each pattern of 16 bits.

    Args:
        means: bits of the code, plus 256 times the bits of the number after it.
        one: bits of a code and its number, plus 256 times the coefficients it fills, plus ENDED where the block ends.
        many: the same for as many codes as 16 bits hold.
    """

    means: list[int]
    one: list[int]
    many: list[int]


ENDED = 1 << 16


def steps(means: Table, others: Table) -> Steps:
    """The steps through blocks of these tables, for means and other coefficients; what is not a code ends a block."""
    lengths, sizes = means.spread()
    first = np.maximum(lengths, 1) | np.minimum(sizes, LOOK) << 8
    lengths, symbols = others.spread()
    bits = np.where(lengths > 0, lengths + (symbols & 15), 1)
    ends = (lengths == 0) | ((symbols & 15 == 0) & (symbols != SKIP_16))
    fills = np.where(ends, 0, (symbols >> 4) + 1)
    many = bits.copy(), fills.copy(), ends.copy()
    while True:
        following = (np.arange(CODES) << np.minimum(many[0], LOOK)) & (CODES - 1)
        known = (lengths[following] > 0) & (many[0] + bits[following] <= LOOK) & ~many[2]
        if not known.any():
            break
        many[1][known] += fills[following][known]
        many[2][known] = ends[following][known]
        many[0][known] += bits[following][known]
    return Steps(first.tolist(), _joined(bits, fills, ends), _joined(*many))


def _joined(bits: npt.NDArray[np.int64], fills: npt.NDArray[np.int64], ends: npt.NDArray[np.bool_]) -> list[int]:
    # An end counts as a coefficient: where a block is full already, there is none.
    joined: list[int] = (bits | (fills + ends) << 8 | np.where(ends, ENDED, 0)).tolist()
    return joined


@dataclass(frozen=True)
class Mark:
    """Where a row of blocks begins: at which bit, and from which mean each component goes on."""

    bit: int
    means: tuple[int, ...]


class Stream:
    """The bits of a scan, with a memory that is cut off at the front when asked.

    Args:
        pieces: the scan's bytes, without what is stuffed into them.
        plan: for each block of a unit, its component and its steps.
        units: in a row.
        components: their number.
        where: what to call the file in an error.
    """

    def __init__(
        self, pieces: Iterator[bytes], plan: Sequence[tuple[int, Steps]], units: int, components: int, where: str
    ) -> None:
        self.pieces, self.plan, self.units, self.where = pieces, plan, units, where
        self.data, self.windows = b"", array("I")
        self.begin, self.ended, self.at = 0, False, 0  # in bits of the scan: of `data`, and where the reading is
        self.means = [0] * components
        self.row_bytes = units * len(plan) * BLOCK * MOST_BITS // 8

    def mark(self) -> Mark:
        """Where the reading is."""
        return Mark(self.at, tuple(self.means))

    def skip_row(self, row: int) -> None:
        """Go on by a row of units; `row` is its number, for messages. Raises DataError where the file ends."""
        self._fill()
        windows, means, at = self.windows, self.means, self.at - self.begin
        plan = [(component, s.means, s.one, s.many) for component, s in self.plan]
        try:
            for _ in range(self.units):
                for component, first, one, many in plan:
                    step = first[windows[at >> 3] >> (16 - (at & 7)) & 0xFFFF]
                    at += step & 255
                    size = step >> 8
                    if size:
                        number = (windows[at >> 3] >> (16 - (at & 7)) & 0xFFFF) >> (16 - size)
                        means[component] += number if number >> (size - 1) else number - (1 << size) + 1
                        at += size
                    filled = 1
                    while filled < BLOCK:
                        pattern = windows[at >> 3] >> (16 - (at & 7)) & 0xFFFF
                        step = many[pattern]
                        if filled + (step >> 8 & 255) > BLOCK:  # what follows belongs to the next block
                            step = one[pattern]
                        at += step & 255
                        if step & ENDED:
                            break
                        filled += step >> 8
        except IndexError:
            raise cut_off(self.where, row) from None
        self.at = self.begin + at
        if self.ended and at > 8 * len(self.data):
            raise cut_off(self.where, row)

    def bits(self, first: int, last: int) -> npt.NDArray[np.uint8]:
        """The bits from one place to another, one a byte."""
        start, end = (first - self.begin) // 8, -(-(last - self.begin) // 8)
        found = np.unpackbits(np.frombuffer(self.data, np.uint8, end - start, start))
        return found[(first - self.begin) % 8 :][: last - first]

    def forget(self, bit: int) -> None:
        """Let go of what stands before a bit."""
        count = (bit - self.begin) // 8
        self.data, self.windows = self.data[count:], self.windows[count:]
        self.begin += 8 * count

    def _fill(self) -> None:
        """Have the longest row that there can be."""
        here = (self.at - self.begin) // 8
        if self.ended or len(self.data) - here > self.row_bytes:
            return
        parts = [self.data]
        needed = here + 2 * self.row_bytes - len(self.data)
        while needed > 0 and not self.ended:
            piece = next(self.pieces, None)
            self.ended = piece is None
            parts.append(piece or b"")
            needed -= len(parts[-1])
        self.data = b"".join(parts)
        self.windows = _windows(self.data)


def _windows(data: bytes) -> array[int]:
    """At each byte, the 32 bits that begin there."""
    wide = np.frombuffer(data + bytes(4), np.uint8).astype(np.uint32)
    joined = wide[:-4] << 24 | wide[1:-3] << 16 | wide[2:-2] << 8 | wide[3:-1]
    found = array("I")
    found.frombytes(joined.tobytes())
    return found

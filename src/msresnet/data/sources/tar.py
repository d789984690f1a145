"""The members of a tar file by their places in it; nothing is ever extracted.

Only headers are read, and what comes between is stepped over, so a member can be read later without those before it.
Formats: POSIX.1-2017, `pax` (ustar and pax), and GNU tar's manual (its long names and large numbers).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from msresnet.data.decode import printable, refuse_pointer
from msresnet.errors import DataError

BLOCK = 512
MOST_EXTRA = 1 << 16
"""Bytes of a pax header or a long name; no path is longer."""
_PAX, _PAX_ALL, _LONG_NAME, _LONG_LINK, _SPARSE = b"x", b"g", b"L", b"K", b"S"
_PLAIN = (b"0", b"\0", b"7")
_EMPTY = (b"1", b"2", b"3", b"4", b"5", b"6")
"""Links, devices, folders, pipes: whatever size their headers give, no content follows."""
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""How gzip, bzip2, xz and zstandard files begin."""

Reader = Callable[[int, int], bytes]
"""Up to so many bytes, from a place on."""


class Member(NamedTuple):
    """A member's name, where its content begins, and how long it is, in bytes.

    `plain` says whether it is a regular file; `head` is the beginning of its content, up to a block.
    """

    name: str
    start: int
    size: int
    plain: bool
    head: bytes


def members(path: Path) -> Iterator[Member]:
    """The members of a tar file, in order. Raises DataError for one that is damaged, cut off, or compressed."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DataError("cannot open the file", where=printable(path), why=error.strerror or "") from error
    try:
        yield from walk(lambda size, place: os.pread(handle, size, place), os.fstat(handle).st_size, path)
    except OSError as error:
        raise DataError("cannot read the file", where=printable(path), why=error.strerror or "") from error
    finally:
        os.close(handle)


def read_at(path: Path, start: int, size: int) -> bytes:
    """Some bytes of a file. Raises DataError when they are not there any more."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            data = os.pread(handle, size, start)
        finally:
            os.close(handle)
    except OSError as error:
        raise DataError("cannot read the file", where=printable(path), why=error.strerror or "") from error
    if len(data) < size:
        raise DataError("the file is shorter than before", where=printable(path), why="it was changed or cut off")
    return data


def walk(read: Reader, total: int | None, path: Path) -> Iterator[Member]:
    """The members of what `read` gives, in order; it is never asked for what lies two blocks before the last place.

    Args:
        read: up to so many bytes from a place on.
        total: bytes that there are; None where that is not known.
        path: for messages.

    Raises DataError.
    """
    head = read(BLOCK, 0)
    refuse_pointer(head, printable(path))
    if head.startswith(_PACKED):
        raise _bad(path, 0, "it is compressed", "decompress it: members are read where they lie")
    place, name, size = 0, "", -1  # name and size: what a header before says of the next member
    while total is None or place + BLOCK <= total:
        blocks = read(2 * BLOCK, place)
        block = blocks[:BLOCK]
        if len(block) < BLOCK:
            raise _bad(path, place, "it ends within a header")
        if not block.strip(b"\0"):
            return  # the end is an empty block
        kind, start = block[156:157], place + BLOCK
        described = kind in (_PAX, _PAX_ALL, _LONG_NAME, _LONG_LINK)
        length = _length(block, place, path) if size < 0 or described else size
        length = 0 if kind in _EMPTY else length
        if total is not None and start + length > total:
            raise _bad(path, start, f"a member of {length:,} bytes goes beyond the end of the file")
        place = start + -(-length // BLOCK) * BLOCK
        if kind == _LONG_NAME:
            name = _text(_extra(read, start, length, path).split(b"\0", 1)[0])
        elif kind == _PAX:
            said = _pax(_extra(read, start, length, path), start, path)
            name, size = _text(said.get(b"path", b"")) or name, _number(said.get(b"size", b"-1"), start, path)
        elif kind == _SPARSE:
            raise _bad(path, start, "it holds a sparse file", "pack it again, without --sparse")
        elif not described:
            yield Member(name or _name(block), start, length, kind in _PLAIN, blocks[BLOCK : BLOCK + length])
            name, size = "", -1
    if total is not None and place < total:
        raise _bad(path, place, "it ends within a header")


def _length(block: bytes, place: int, path: Path) -> int:
    """The size that a header gives. Raises DataError for what is not a header."""
    try:
        given = int(block[148:156].strip(b"\0 "), 8)
        field = block[124:136]
        if field[0] & 0x80:  # GNU: binary, the top bit marks it
            size = int.from_bytes(field, "big") - (0x80 << 88)
        else:
            size = int(field.split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        raise _bad(path, place, "there is no valid header") from None
    if sum(block) - sum(block[148:156]) + 8 * ord(" ") != given or not 0 <= size < 1 << 63:
        raise _bad(path, place, "there is no valid header")
    return size


def _name(block: bytes) -> str:
    name, prefix = block[:100].split(b"\0", 1)[0], b""
    if block[257:263] == b"ustar\0":  # GNU's own format keeps other things there
        prefix = block[345:500].split(b"\0", 1)[0]
    return _text(prefix + b"/" + name if prefix else name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _extra(read: Reader, start: int, size: int, path: Path) -> bytes:
    if size > MOST_EXTRA:
        raise _bad(path, start, f"a description of a member has {size:,} bytes, the limit is {MOST_EXTRA:,}")
    return read(size, start)


def _pax(data: bytes, start: int, path: Path) -> dict[bytes, bytes]:
    """The records 'length key=value' of a pax header."""
    said: dict[bytes, bytes] = {}
    place, end = 0, len(data.rstrip(b"\0"))
    while place < end:
        gap = data.find(b" ", place, place + 20)
        length = _number(data[place:gap], start, path) if gap > 0 else 0
        equals = data.find(b"=", gap, place + length)
        if equals < 0 or place + length > len(data):
            raise _bad(path, start, "a pax header is malformed")
        said[data[gap + 1 : equals]] = data[equals + 1 : place + length - 1]
        place += length
    return said


def _number(digits: bytes, start: int, path: Path) -> int:
    if digits == b"-1":
        return -1
    if not digits.isdigit() or len(digits) > 18:
        raise _bad(path, start, "a pax header is malformed")
    return int(digits)


def _bad(path: Path, place: int, what: str, hint: str = "") -> DataError:
    return DataError(
        "the file is not a whole tar file", where=f"{printable(path)}, byte {place:,}", why=what, hint=hint
    )

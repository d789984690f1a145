"""The images in .zip and .tar files, one by one; nothing is ever unpacked onto the disk.

A member that is encrypted, damaged or too large is told, and the others are answered. What would swell while it is
inflated is refused: members have a limit, and so has the growth of a whole compressed .tar file.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO, cast

from msresnet.data.decode import open_regular, printable
from msresnet.data.sources.folder import is_picture
from msresnet.data.sources.tar import Member, members, read_at, walk
from msresnet.errors import DataError

ZIPS, PLAIN_TARS = (".zip",), (".tar",)
PACKED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2")
MOST_MEMBER = 128 << 20
"""Bytes of an image in an archive."""
MOST_DIRECTORY = 16 << 20
"""Bytes of a .zip file's list of members, which is read at once: some 200,000 of them."""
MOST_GROWTH, FREE_GROWTH = 200, 1 << 30
"""How many times larger than its file a .tar may become in inflating, beyond its first bytes."""
PIECE = 1 << 16
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
_END, _END_SIZE, _MOST_COMMENT = b"PK\x05\x06", 22, 1 << 16
_FAILURES = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)
Found = tuple[str, Callable[[], bytes]]
"""An image's name, and how its bytes are read."""


def is_archive(path: str) -> bool:
    """Whether a name is that of an archive which is read here."""
    return path.lower().endswith(ZIPS + PLAIN_TARS + PACKED_TARS)


def images_in(path: str) -> Iterator[Found]:
    """The images of an archive; names are `archive.zip/path/in/it`. Raises DataError for an archive that is damaged."""
    if path.lower().endswith(ZIPS):
        yield from _zipped(path)
    elif path.lower().endswith(PLAIN_TARS):
        for member in _images(members(Path(path))):
            yield printable(f"{path}/{member.name}"), partial(_member_of_tar, Path(path), member)
    else:
        yield from _packed(path)


def _zipped(path: str) -> Iterator[Found]:
    where = printable(path)
    with open_regular(path) as file, _reading(where):
        _check_directory(file, where)
    with _reading(where):
        archive = zipfile.ZipFile(path)  # closed when the last of its images is read
        infos = [info for info in archive.infolist() if not info.is_dir() and is_picture(Path(info.filename))]
    for info in infos:
        yield printable(f"{path}/{info.filename}"), partial(_member_of_zip, archive, info)


def _member_of_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Raises DataError for a member that cannot be read."""
    if info.flag_bits & 1:
        raise DataError("the image is encrypted", hint="unpack the archive")
    if info.compress_type not in METHODS:
        raise DataError("the image is compressed in a way that is not read", hint="unpack the archive")
    _check_size(info.file_size)
    with _reading(""), archive.open(info) as file:
        return file.read()


def _check_directory(file: BinaryIO, where: str) -> None:
    """Raise DataError for a list of members that is too long."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END_SIZE - _MOST_COMMENT))
    tail = file.read()
    place = tail.rfind(_END)
    if place < 0 or len(tail) < place + _END_SIZE:
        raise DataError(
            "the archive is damaged", where=where, why="it has no list of its members", hint="copy it again"
        )
    length = int.from_bytes(tail[place + 12 : place + 16], "little")
    if length == 0xFFFFFFFF or length > MOST_DIRECTORY:
        raise DataError("the archive has too many members", where=where, hint="unpack it, or make it a .tar file")


def _member_of_tar(path: Path, member: Member) -> bytes:
    _check_size(member.size)
    return read_at(path, member.start, member.size)


def _packed(path: str) -> Iterator[Found]:
    where = printable(path)
    with open_regular(path) as file:
        opened = bz2.BZ2File(file) if "bz" in path.lower().rpartition(".")[2] else gzip.GzipFile(fileobj=file)
        with opened as inflated:
            stream = _Forward(cast(IO[bytes], inflated), file, where)
            for member in walk(stream.read, None, Path(path)):
                if member.size > MOST_MEMBER:
                    why = f"{printable(member.name)} has {member.size:,} bytes, the limit is {MOST_MEMBER:,}"
                    raise DataError("the archive cannot be gone through", where=where, why=why, hint="unpack it")
                if member.plain and is_picture(Path(member.name)):
                    data = stream.read(member.size, member.start)
                    yield printable(f"{path}/{member.name}"), partial(_whole, data, member.size)


def _whole(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise DataError("the image is cut off", why="the archive ends within it")
    return data


class _Forward:
    """Bytes that are inflated as they are asked for; the last ones are kept."""

    def __init__(self, inflated: IO[bytes], file: BinaryIO, where: str) -> None:
        self.inflated, self.file, self.where = inflated, file, where
        self.kept, self.begin = b"", 0

    def read(self, size: int, place: int) -> bytes:
        """Up to so many bytes from a place on, which is never far behind the last one. Raises DataError."""
        parts, end = [self.kept], self.begin + len(self.kept)
        while end < place + size:
            with _reading(self.where):
                part = self.inflated.read(min(PIECE, place + size - end))
            if not part:
                break
            end += len(part)
            self._check(end)
            if end <= place:
                parts = []
            parts.append(part)
        joined = b"".join(parts)
        begin = end - len(joined)
        self.kept = joined[max(0, place - begin) :]
        self.begin = end - len(self.kept)
        return self.kept[:size]

    def _check(self, inflated: int) -> None:
        if inflated > FREE_GROWTH + MOST_GROWTH * self.file.tell():
            why = f"{self.file.tell():,} bytes of it became {inflated:,}"
            raise DataError("the archive swells too much", where=self.where, why=why, hint="unpack it")


def _images(found: Iterator[Member]) -> Iterator[Member]:
    return (member for member in found if member.plain and is_picture(Path(member.name)))


def _check_size(size: int) -> None:
    if size > MOST_MEMBER:
        raise DataError("the image is too large", why=f"{size:,} bytes, the limit in archives is {MOST_MEMBER:,}")


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turn what readers of archives raise into a DataError."""
    try:
        yield
    except _FAILURES as error:
        if isinstance(error, DataError):
            raise
        raise DataError("the archive is damaged", where=where, why=str(error) or type(error).__name__) from error

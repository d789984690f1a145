"""Decoded images on the disk, so that the second epoch decodes nothing.

A file of equal slots, one a sample: a checksum, then the pixels. A slot counts when its checksum agrees, so a process
that is killed, a machine that loses power, a file that is cut short, and several processes that fill the same slots do
no harm. Slots are read and written by system calls rather than through mapped memory: a full disk is then an error and
no fatal signal, and what was read does not count as memory of this process.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import weakref
import zlib
from importlib import metadata
from pathlib import Path

import numpy as np

from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import Image, Source
from msresnet.files import cache_folder, check_space, disk_errors, make_folder

FOLDER, SUM_BYTES = "decoded", 4
MOST_ASKED = 50_000
"""Files whose size and time tell whether a set has changed; of larger sets, so many evenly spaced ones."""
PIECE = 1 << 16
DECODERS = ("pillow", "simplejpeg", "torch")


class Store:
    """Slots for the preprocessed images (C, H, W) uint8 of a set, masks among their planes.

    Args:
        path: the file; made where there is none.
        count: samples of the set.
        shape: (C, H, W).

    Raises ResourceError when the file cannot be made.
    """

    def __init__(self, path: Path, count: int, shape: tuple[int, int, int]) -> None:
        self.path, self.shape = path, shape
        self.slot = SUM_BYTES + int(np.prod(shape))
        self.trouble = ""
        """Why nothing more can be written, if so."""
        with disk_errors(path):
            make_folder(path.parent)
            self.handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            weakref.finalize(self, os.close, self.handle)
            if os.fstat(self.handle).st_size != count * self.slot:
                os.ftruncate(self.handle, count * self.slot)
        self.checked = np.zeros(count, np.bool_)
        self.lock = threading.Lock()

    def missing_bytes(self) -> int:
        """Bytes that the disk will still be asked for."""
        status = os.fstat(self.handle)
        return max(0, status.st_size - 512 * status.st_blocks)

    def read(self, index: int) -> Image | None:
        """The image in a slot, or None where there is none yet, or a damaged one."""
        at = index * self.slot
        try:
            if not self.checked[index] and not any(os.pread(self.handle, SUM_BYTES, at)):
                return None
            data = os.pread(self.handle, self.slot, at)
        except OSError:
            return None
        if len(data) < self.slot:
            return None
        if not self.checked[index]:
            if zlib.crc32(memoryview(data)[SUM_BYTES:]) != int.from_bytes(data[:SUM_BYTES], "big"):
                return None
            self.checked[index] = True
        return np.frombuffer(data, np.uint8, offset=SUM_BYTES).reshape(self.shape)

    def write(self, index: int, image: Image) -> None:
        """Fill a slot; a disk that takes no more is left alone from then on."""
        if self.trouble:
            return
        pixels = image.tobytes()
        data = zlib.crc32(pixels).to_bytes(SUM_BYTES, "big") + pixels
        try:
            written = os.pwrite(self.handle, data, index * self.slot)
            if written < len(data):  # a disk that is almost full takes a part, and says why at the next try
                os.pwrite(self.handle, data[written:], index * self.slot + written)
        except OSError as error:
            with self.lock:
                self.trouble = self.trouble or error.strerror or str(error)


def open_store(source: Source, preprocess: Preprocess) -> Store:
    """The store for a set of files, which several processes may share.

    Raises ResourceError, with bytes needed and free, when the disk lacks room.
    """
    path = cache_folder() / FOLDER / f"{store_key(source, preprocess)}.u8"
    store = Store(path, len(source), preprocess.shape(source))
    check_space(path.parent, store.missing_bytes())
    return store


def store_key(source: Source, preprocess: Preprocess) -> str:
    """What decides the pixels of a set: its files with their sizes and times, the preprocess, the decoders."""
    versions = [f"{name} {metadata.version(name)}" for name in DECODERS]
    classes = source.classes if source.planes else ()  # they decide what the pixels of masks mean
    digest = hashlib.sha256("\n".join([preprocess.steps(), str(len(source)), *versions, *classes]).encode())
    for start in range(0, len(source), PIECE):
        digest.update("\n".join(source.ids[start : start + PIECE]).encode("utf-8", "surrogateescape"))
    for index in range(0, len(source), max(1, -(-len(source) // MOST_ASKED))):
        for path in source.files(index):
            digest.update(_facts(path))
    return digest.hexdigest()[:32]


def _facts(path: Path) -> bytes:
    name = os.fsencode(os.path.abspath(path))  # noqa: PTH100 - several times faster, for a million of them
    try:
        status = os.stat(path)  # noqa: PTH116 - as above
    except (OSError, ValueError):
        return name
    return name + f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode()


def free_disk() -> int:
    """Bytes that the cache's disk has free; 0 where there is no place for a cache."""
    folder = cache_folder() / FOLDER
    try:
        make_folder(folder)
        return shutil.disk_usage(folder).free if os.access(folder, os.W_OK) else 0
    except OSError:
        return 0

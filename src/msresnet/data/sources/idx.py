"""IDX files, the format of MNIST and its kin, plain or gzipped: a magic number, the dimensions, then bytes.

A header is believed only after it was compared with the size of the file, so a false one allocates nothing.
"""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from msresnet.data.decode import refuse_pointer
from msresnet.data.sample import ArraySource
from msresnet.errors import DataError

UNSIGNED_BYTE = 0x08
MAX_BYTES = 1 << 30
DEFLATE_MOST = 1032
"""The most that deflate can shrink by: a gzip of n bytes never holds more than 1032 n."""
PIECE = 1 << 20
PAIRS = {"train": ("train-images", "train-labels"), "test": ("t10k-images", "t10k-labels")}
FORM = "images: magic 0x00000803, labels: magic 0x00000801"


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes. Raises DataError, naming the file, for any other."""
    try:
        with path.open("rb") as raw:
            size = path.stat().st_size
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not zipped:
                return _read(raw, path, dimensions, size)
            with gzip.open(raw) as file:
                return _read(file, path, dimensions, size * DEFLATE_MOST)
    except EOFError as error:
        raise DataError("the gzip file is truncated", where=str(path), why=str(error), hint="fetch it again") from error
    except (OSError, zlib.error) as error:
        raise DataError("cannot read the IDX file", where=str(path), why=str(error)) from error


def _read(file: IO[bytes] | gzip.GzipFile, path: Path, dimensions: int, at_most: int) -> npt.NDArray[np.uint8]:
    start = file.read(4)
    if start == b"vers":
        refuse_pointer(start + file.read(64), str(path))
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] != UNSIGNED_BYTE or start[3] != dimensions:
        raise DataError(
            f"no IDX file of {dimensions} dimensions", where=str(path), why=f"it starts with 0x{start.hex()}", hint=FORM
        )
    header = file.read(4 * dimensions)
    if len(header) < 4 * dimensions:
        raise DataError("the IDX header is truncated", where=str(path))
    shape = tuple(int.from_bytes(header[4 * i : 4 * i + 4], "big") for i in range(dimensions))
    needed = prod(shape)
    text = " x ".join(f"{n:,}" for n in shape)
    if needed > at_most or needed > MAX_BYTES:
        limit = min(at_most, MAX_BYTES)
        raise DataError(
            "the IDX header claims more than there can be",
            where=str(path),
            why=f"{text} bytes, at most {limit:,} are possible",
        )
    data = _take(file, needed)
    if len(data) < needed:
        raise DataError(
            "the IDX file is too short", where=str(path), why=f"{text} needs {needed:,}, it holds {len(data):,}"
        )
    if file.read(1):
        raise DataError(
            "the IDX file is too long", where=str(path), why=f"more follows after {text} = {needed:,} bytes"
        )
    try:
        return np.frombuffer(data, np.uint8).reshape(shape)
    except ValueError as error:  # no images, of a size that numpy cannot even name
        raise DataError("the IDX header claims what cannot be", where=str(path), why=text) from error


def _take(file: IO[bytes] | gzip.GzipFile, count: int) -> bytearray:
    """Up to `count` bytes, in pieces, since asking for all at once would allocate what a false header claims."""
    data = bytearray()
    while piece := file.read(min(PIECE, count - len(data))):
        data += piece
    return data


def idx_pair(images_path: Path, labels_path: Path) -> ArraySource:
    """Images and their labels from two IDX files. Raises DataError when they do not belong together."""
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(
            "images and labels differ in number",
            where=f"{images_path.name}, {labels_path.name} in {images_path.parent}",
            why=f"{len(images):,} images, {len(labels):,} labels",
        )
    if images.size == 0:
        raise DataError("the IDX files hold no image", where=str(images_path), why=f"the header says {images.shape}")
    classes = [str(c) for c in range(int(labels.max()) + 1)]
    return ArraySource(images[:, None], labels.astype(np.int64), classes, images_path.name)


def labels_beside(images_path: Path) -> Path:
    """The labels' file that belongs to an images' file. Raises DataError when it is not there."""
    stem = images_path.name.replace("images", "labels").replace("idx3", "idx1")
    for name in (stem, stem.removesuffix(".gz"), f"{stem}.gz"):
        if "images" in images_path.name and (found := images_path.with_name(name)).is_file():
            return found
    raise DataError("the labels' file is missing", where=str(images_path), hint=f"put {stem} beside it")


def idx_splits(folder: Path) -> dict[str, ArraySource]:
    """The train and test pairs in a folder, under MNIST's names; empty when there are none."""
    found = {}
    for split, (images, _) in PAIRS.items():
        matches = sorted(p for p in folder.glob(f"{images}*ubyte*") if p.is_file())
        if matches:
            found[split] = idx_pair(matches[0], labels_beside(matches[0]))
    return found

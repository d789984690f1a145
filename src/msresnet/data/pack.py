"""Sets written down for faster reading: decoded and preprocessed, or as they are in tar files that stream.

Both are the same bytes each time they are made of the same data. N images, C channels, H and W pixels.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image as Pillow

from msresnet.data.decode import decode_bytes, image_suffix, read_regular
from msresnet.data.lazy import Lazy
from msresnet.data.options import DataOptions
from msresnet.data.order import epoch_order
from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import UNLABELLED, Image, Source
from msresnet.data.sources.packed import FORMAT, MARKER, UNFINISHED, images_of, samples_of
from msresnet.data.splits import Splits
from msresnet.data.unreadable import Unreadable
from msresnet.errors import DataError
from msresnet.files import check_free, sweep, write_atomic, write_json, write_text

HELD_OTHERWISE = "training reads images and masks from their files once, and keeps them in memory or with --cache disk"
CLASSES = "classes.txt"
OURS = re.compile(
    rf"(train|val|test)-(images\.npy|samples\.json|\d{{6,}}\.tar)|{re.escape(MARKER)}|{re.escape(CLASSES)}"
)
"""The names that are written here, and no others: those may be the user's."""
BATCH = 64
HEADER_BYTES = 128
Progress = Callable[[str, int, int], None]
"""Told of the set, and how many of how many images are done."""


@contextmanager
def begun(folder: Path) -> Iterator[None]:
    """Within this, a folder is being packed, which a killed process leaves to be seen: its remains are taken away.

    Raises UsageError for a folder that holds anything else.
    """
    sweep(folder)
    if (folder / UNFINISHED).exists():
        for old in [path for path in folder.iterdir() if OURS.fullmatch(path.name)]:
            old.unlink()
    check_free(folder, ours=(UNFINISHED,))
    write_text(folder / UNFINISHED, "")
    yield
    (folder / UNFINISHED).unlink()


def pack_cache(
    folder: Path, splits: Splits, preprocess: Preprocess, options: DataOptions, progress: Progress
) -> dict[str, list[tuple[str, str]]]:
    """Write sets decoded, as sources/packed.py reads them; returns what could not be read of each.

    Raises DataError for too many unreadable images, ResourceError for a full disk.
    """
    _refuse_masks(splits)
    sets = splits.named()
    unreadable = Unreadable({name: len(source) for name, source in sets.items()}, options.on_bad)
    digests = {}
    for split, source in sets.items():
        preprocess.is_applied(source)
        data = Lazy(source, preprocess, options.workers, unreadable=unreadable, name=split)
        digests[split] = _pack_set(folder, split, data, progress)
    said = {"format": FORMAT, "classes": splits.classes, "preprocess": preprocess.to_dict()}
    write_json(folder / MARKER, said | {"splits": list(sets), "sha256": digests})
    return {name: unreadable.of(name) for name in sets}


def _refuse_masks(splits: Splits) -> None:
    """Raise DataError for images with masks or boxes: what is packed has a class for each image."""
    if splits.train.planes or splits.train.boxed:
        what = f"images with {'boxes' if splits.train.boxed else 'masks'} are not packed"
        raise DataError(what, why=HELD_OTHERWISE, hint="msresnet train --data with them")


def _pack_set(folder: Path, split: str, data: Lazy, progress: Progress) -> str:
    """Write one set; returns the digest of its pixels."""
    shape = (data.preprocess.channels, *data.preprocess.size)
    digest, kept = hashlib.sha256(), list[int]()

    def write(part: Path) -> None:
        with part.open("wb") as file:
            _header(file, len(data), shape)
            for batch in data.in_order(BATCH, torch.device("cpu")):
                pixels = batch.images.numpy().tobytes()
                file.write(pixels)
                digest.update(pixels)
                kept.extend(batch.indices.tolist())
                progress(split, len(kept), len(data))
            file.seek(0)  # now it is known how many could be read
            _header(file, len(kept), shape)

    write_atomic(images_of(folder, split), write, HEADER_BYTES + len(data) * int(np.prod(shape)))
    ids, targets = [data.ids[i] for i in kept], data.targets[kept].tolist()
    text = json.dumps({"targets": targets, "ids": ids}, ensure_ascii=True)
    write_text(samples_of(folder, split), text + "\n")
    return digest.hexdigest()


def _header(file: IO[bytes], count: int, shape: tuple[int, int, int]) -> None:
    fields = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(file, fields)
    assert file.tell() == HEADER_BYTES


def pack_shards(
    folder: Path, splits: Splits, size: int, options: DataOptions, progress: Progress
) -> dict[str, list[tuple[str, str]]]:
    """Write sets as WebDataset shards of up to `size` images; returns what could not be read of each.

    A sample is a file's own bytes (of other data, a PNG) and the number of its class in a .cls file. Samples stand in
    a fixed random order, since shards are read from first to last.

    Raises DataError for too many unreadable images, ResourceError for a full disk.
    """
    _refuse_masks(splits)
    sets = splits.named()
    unreadable = Unreadable({name: len(source) for name, source in sets.items()}, options.on_bad)
    for split, source in sets.items():
        samples = _encoded(split, source, options.workers, unreadable, progress)
        number = 0
        while (first := next(samples, None)) is not None:
            _write_shard(folder / f"{split}-{number:06d}.tar", chain([first], islice(samples, size - 1)))
            number += 1
    write_text(folder / CLASSES, "".join(f"{name}\n" for name in splits.classes))
    return {name: unreadable.of(name) for name in sets}


@dataclass(frozen=True)
class _Encoded:
    """The bytes of an image, how its name ends, its class, and its place in the set."""

    data: bytes
    suffix: str
    target: int
    place: int


def _encoded(
    split: str, source: Source, workers: int, unreadable: Unreadable, progress: Progress
) -> Iterator[_Encoded]:
    """The readable samples of a set, in a random order that never changes."""
    order = epoch_order(len(source), 0, 0).split(BATCH)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for done, part in enumerate(order):
            for index, found in zip(part.tolist(), pool.map(partial(_encode, source), part.tolist()), strict=True):
                if isinstance(found, DataError):
                    unreadable.add(split, index, source.ids[index], found)
                    unreadable.judge(" met so far")
                else:
                    yield found
            progress(split, min((done + 1) * BATCH, len(source)), len(source))


def _encode(source: Source, index: int) -> _Encoded | DataError:
    path, target = source.path(index), int(source.targets[index])
    try:
        if path is None:
            return _Encoded(_png(source.image(index)), "png", target, index)
        data = read_regular(path)
        decode_bytes(data, str(path), (1, 1))  # so that what is damaged is found now
        return _Encoded(data, image_suffix(data, str(path)), target, index)
    except DataError as error:
        return error


def _png(image: Image) -> bytes:
    pixels, buffer = image.transpose(1, 2, 0), io.BytesIO()
    Pillow.fromarray(np.ascontiguousarray(pixels if len(image) == 3 else pixels[:, :, 0])).save(buffer, "PNG")
    return buffer.getvalue()


def _write_shard(path: Path, samples: Iterable[_Encoded]) -> None:
    """A tar file without times and owners, so that equal data gives equal bytes."""

    def write(part: Path) -> None:
        with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as shard:
            for sample in samples:
                _add(shard, f"{sample.place:09d}.{sample.suffix}", sample.data)
                if sample.target != UNLABELLED:
                    _add(shard, f"{sample.place:09d}.cls", str(sample.target).encode())

    write_atomic(path, write)


def _add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    shard.addfile(member, io.BytesIO(data))

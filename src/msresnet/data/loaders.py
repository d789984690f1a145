"""From sources to sets: decoded into memory, or decoded when they are asked for.

Every image is decoded and preprocessed to uint8, by threads or not; the outcome is the same. N images, B batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from msresnet.data.cache import FOLDER, Store, free_disk, open_store
from msresnet.data.lazy import Lazy
from msresnet.data.options import DataOptions
from msresnet.data.preprocess import Preprocess, with_statistics
from msresnet.data.resize import as_tensor
from msresnet.data.sample import ArraySource, Image, Relabelled, Source
from msresnet.data.sets import Decoded, Samples, evenly
from msresnet.data.targets import BoxTable, rows_of
from msresnet.data.unreadable import Unreadable, class_lost
from msresnet.errors import DataError, ResourceError, UsageError
from msresnet.files import cache_folder
from msresnet.machine import free_memory, human, processes_here

CHUNK = 1024
Kept = Literal["ram", "disk", "none"]
MEMORY_SHARE, DISK_SHARE = 0.5, 0.5
"""Of what is free, at most so much is taken where nobody says how images are to be held."""
MOST_FILES = 100_000
"""Decoding more than these before the first step keeps a person waiting."""
LEARNT, LEARNT_OF_MANY = 10_000, 2_000
"""Images that mean and standard deviation are learnt from: of sets up to MOST_FILES, and of larger ones."""


def open_sets(
    sets: Mapping[str, Source], preprocess: Preprocess, options: DataOptions, once: bool = False
) -> tuple[dict[str, Samples], list[str]]:
    """Sets as `--cache` says, and how they are held, in words.

    Args:
        sets: by name; how many images may be unreadable is judged over all of them together.
        preprocess: what every image goes through.
        options: cache, workers and on_bad.
        once: the sets are gone through once, so that keeping what was decoded would not pay.

    Raises DataError for unreadable images, at once or when they are met; ResourceError for lack of memory or disk.
    """
    held, why = choose_cache(sets, preprocess, options, once)
    if held == "ram":
        return dict(decode_sets(sets, preprocess, options.workers, options.on_bad)), [why]
    unreadable = Unreadable({name: len(source) for name, source in sets.items()}, options.on_bad)
    stores: dict[str, Store] = {}
    if held == "disk":
        try:
            stores = {name: open_store(source, preprocess) for name, source in sets.items()}
        except ResourceError as error:
            if options.cache == "disk":
                raise
            why = f"images decoded in every epoch: {error.what}, {error.why}"
    opened: dict[str, Samples] = {}
    for name, source in sets.items():
        preprocess.is_applied(source)
        store = stores.get(name)
        opened[name] = Lazy(source, preprocess, options.workers, store=store, unreadable=unreadable, name=name)
    return opened, [why]


class Opener:
    """Opens sets for one training after another: those of the last one again, as long as they are read alike."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._how: tuple[object, ...] = ()
        self._opened: tuple[dict[str, Samples], list[str]] = ({}, [])

    def __call__(
        self, sets: Mapping[str, Source], preprocess: Preprocess, options: DataOptions
    ) -> tuple[dict[str, Samples], list[str]]:
        """As `open_sets`. The sets that were opened before go first, so that there is room for others."""
        how = (preprocess.steps(), options.cache, options.workers, options.on_bad)
        same = sets.keys() == self._sources.keys() and all(sets[name] is self._sources[name] for name in sets)
        if not same or how != self._how:
            self._sources, self._how, self._opened = {}, (), ({}, [])
            self._opened = open_sets(sets, preprocess, options)
            self._sources, self._how = dict(sets), how
        return self._opened


def choose_cache(
    sets: Mapping[str, Source], preprocess: Preprocess, options: DataOptions, once: bool = False
) -> tuple[Kept, str]:
    """'ram', 'disk' or 'none', and the reason. Raises UsageError for a disk store of what is not files."""
    needed = sum(_bytes(source, preprocess) for source in sets.values())
    in_files = all(source.path(0) is not None for source in sets.values() if len(source))
    size, where = human(needed), {"ram": "in memory", "disk": "on the disk", "none": "decoded when they are needed"}
    if options.cache == "disk" and not in_files:
        raise UsageError("--cache disk keeps what was decoded from files, and the data has none", hint="--cache auto")
    if options.cache != "auto":
        return options.cache, f"images {where[options.cache]} ({size}), as asked"
    free, files = free_memory() // processes_here(), in_files * sum(map(len, sets.values()))
    if files <= MOST_FILES and needed <= MEMORY_SHARE * free:
        return "ram", f"images in memory: {size} of {human(free)} free"
    why = f"{files:,} files" if files > MOST_FILES else f"{size} is more than half of the free memory, {human(free)}"
    if once:
        return "none", f"images decoded when they are needed: {why}"
    room = free_disk()
    if in_files and needed <= DISK_SHARE * room:
        place = cache_folder() / FOLDER
        return "disk", f"images decoded once and kept in {place}, {size}: {why} (--cache none keeps nothing)"
    full = f"the cache's disk has {human(room)} free" if in_files else "the data does not consist of files"
    return "none", f"images decoded in every epoch: {why}, and {full}"


def _bytes(source: Source, preprocess: Preprocess) -> int:
    if _ready(source, preprocess) is not None:
        return 0
    return len(source) * prod(preprocess.shape(source))


def decode_sets(
    sets: Mapping[str, Source], preprocess: Preprocess, workers: int = 0, on_bad: str | None = None
) -> dict[str, Decoded]:
    """Read and preprocess whole sets; how many images may be unreadable is judged over all of them together.

    Args:
        sets: by name.
        preprocess: what every image goes through.
        workers: threads that decode; 0 uses the calling one.
        on_bad: 'fail' at the first unreadable image, 'skip' any number, None up to 1 %.

    Raises DataError for unreadable images, with their number and the first reasons; ResourceError for lack of memory.
    """
    unreadable = Unreadable({name: len(source) for name, source in sets.items()}, on_bad)
    decoded = {name: _decode(name, source, preprocess, workers, unreadable) for name, source in sets.items()}
    unreadable.judge()
    for name, data in decoded.items() if "train" in decoded else ():  # what is only measured may lack a class
        lost = np.setdiff1d(sets[name].targets, data.targets.numpy())
        if len(lost):
            raise class_lost([sets[name].classes[c] for c in lost], data.bad)
    return decoded


def decode(source: Source, preprocess: Preprocess, workers: int = 0, on_bad: str | None = None) -> Decoded:
    """`decode_sets` for one set."""
    return decode_sets({"train": source}, preprocess, workers, on_bad)["train"]


def _decode(name: str, source: Source, preprocess: Preprocess, workers: int, unreadable: Unreadable) -> Decoded:
    if (ready := _ready(source, preprocess)) is not None:
        return Decoded(ready, torch.from_numpy(np.array(source.targets)), source.ids)

    preprocess.is_applied(source)  # what was packed for another preprocess is not an unreadable image

    def one(index: int) -> tuple[Image, Tensor] | DataError:
        try:
            return preprocess.read(source, index), rows_of(source, index, preprocess) if source.boxed else torch.empty(
                0
            )
        except DataError as error:
            return error

    images = _allocate((len(source), *preprocess.shape(source)))
    pixels = images.numpy()
    kept, boxes = list[int](), list[Tensor]()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for start in range(0, len(source), CHUNK):
            chunk = range(start, min(start + CHUNK, len(source)))
            results = pool.map(one, chunk) if workers else map(one, chunk)
            for index, result in zip(chunk, results, strict=True):
                if isinstance(result, DataError):
                    unreadable.add(name, index, source.ids[index], result)
                else:
                    pixels[len(kept)], rows = result
                    kept.append(index)
                    boxes.append(rows)
    targets, ids = torch.from_numpy(np.asarray(source.targets)[kept].copy()), [source.ids[i] for i in kept]
    planes, channels = images[: len(kept)], preprocess.channels
    masks = planes[:, channels] if source.planes else None
    instead = BoxTable(boxes) if source.boxed else masks
    return Decoded(planes[:, :channels], targets, ids, unreadable.of(name), instead=instead, origin=(source, kept))


def _ready(source: Source, preprocess: Preprocess) -> Tensor | None:
    """The images of arrays that need no work, without a copy: they may be mapped from a file."""
    while isinstance(source, Relabelled):
        source = source.source
    if not isinstance(source, ArraySource) or source.boxed or source.images.shape[1:] != preprocess.shape(source):
        return None
    untouched = source.applied is None and preprocess.threshold is None
    usable = source.images.flags.writeable and source.images.flags.c_contiguous
    return as_tensor(source.images) if usable and (untouched or preprocess.is_applied(source)) else None


def _allocate(shape: tuple[int, ...]) -> Tensor:
    try:
        return torch.empty(shape, dtype=torch.uint8)
    except RuntimeError as error:
        text = " x ".join(f"{n:,}" for n in shape)
        raise ResourceError(
            "the images do not fit into memory",
            why=f"{text} bytes are needed",
            hint="--cache disk, or a smaller --image-size",
        ) from error


def learn_statistics(preprocess: Preprocess, data: Samples) -> Preprocess:
    """The same preprocess with mean and std of a set, of evenly spaced images where it is large."""
    chosen = evenly(len(data), LEARNT if len(data) <= MOST_FILES else LEARNT_OF_MANY)
    batches = data.batches(chosen.split(256), torch.device("cpu"))
    return with_statistics(preprocess, (batch.images for batch in batches))

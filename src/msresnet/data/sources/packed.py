"""Folders that `msresnet data pack` wrote: preprocessed images that are mapped into memory, not decoded.

A folder counts as packed when packed.json is in it, which is written last. For each set there are an .npy file of the
images (N, C, H, W) uint8, and a .json file of targets and ids. Nothing is unpickled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import UNLABELLED, ArraySource
from msresnet.errors import DataError

MARKER, UNFINISHED, FORMAT = "packed.json", ".unfinished", 1
HINT = "msresnet data pack again"


class PackedSource(ArraySource):
    """One set of a packed folder; `applied` says what its images went through."""

    def __init__(self, folder: Path, split: str, classes: list[str], applied: dict[str, Any]) -> None:
        images, targets, ids = _read(folder, split, len(classes))
        super().__init__(images, targets, classes)
        self.ids, self.applied = ids, applied


def packed_splits(folder: Path) -> dict[str, PackedSource]:
    """The sets of a packed folder, by split; empty where the folder is none. Raises DataError for a damaged one."""
    path = folder / MARKER
    if not path.is_file():
        return {}
    said = _json(path)
    try:
        if said["format"] != FORMAT:
            why = f"format {said['format']}, this msresnet reads {FORMAT}"
            raise DataError("the packed data is of another version", where=str(path), why=why, hint=HINT)
        classes, splits = [str(name) for name in said["classes"]], [str(name) for name in said["splits"]]
        applied = Preprocess.from_dict(said["preprocess"]).to_dict()
    except (LookupError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError("this is not packed data", where=str(path), why=str(error), hint=HINT) from error
    sources = {split: PackedSource(folder, split, classes, applied) for split in splits}
    shape = (applied["channels"], *applied["size"])
    for split, source in sources.items():
        if source.images.shape[1:] != shape:
            why = f"{source.images.shape[1:]}, {MARKER} says {shape}"
            raise DataError("the images have another shape", where=str(images_of(folder, split)), why=why, hint=HINT)
    return sources


def images_of(folder: Path, split: str) -> Path:
    """The file of a set's images."""
    return folder / f"{split}-images.npy"


def samples_of(folder: Path, split: str) -> Path:
    """The file of a set's targets and ids."""
    return folder / f"{split}-samples.json"


def _read(folder: Path, split: str, classes: int) -> tuple[Any, Any, list[str]]:
    """Images, mapped and copied only where they are written to; targets (N,); ids."""
    path, samples = images_of(folder, split), samples_of(folder, split)
    try:
        images = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError("the packed images cannot be read", where=str(path), why=str(error), hint=HINT) from error
    said = _json(samples)
    try:
        targets, ids = np.array(said["targets"], np.int64), [str(name) for name in said["ids"]]
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise DataError("this is not a list of samples", where=str(samples), why=str(error), hint=HINT) from error
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images) == len(targets) == len(ids):
        why = f"images {images.shape} {images.dtype}, {len(targets):,} targets, {len(ids):,} ids"
        raise DataError("the packed files do not belong together", where=str(path), why=why, hint=HINT)
    if len(targets) and not UNLABELLED <= targets.min() <= targets.max() < classes:
        why = f"{targets.min()} to {targets.max()}, there are {classes} classes"
        raise DataError("a target is not a class", where=str(samples), why=why, hint=HINT)
    return np.asarray(images), targets, ids


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("the file cannot be read", where=str(path), why=str(error), hint=HINT) from error

"""What trainings that are held against each other began with, beyond their settings: images, weights and teachers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from msresnet.boxes import Boxes
from msresnet.data.sample import Source
from msresnet.data.sets import FINGERPRINTED, evenly
from msresnet.errors import DataError, ModelError
from msresnet.hub import WEIGHTS

DATA = "the training data"
PART = 1 << 20
"""Bytes of a file that are looked at, beside its size."""


def of_data(train: Source) -> dict[str, str]:
    """A digest of classes, names, labels, and up to a thousand images with what belongs to them; files stay undecoded.

    What cannot be read counts as nothing: trainings leave it out, or say so.
    """
    digest = hashlib.sha256()
    for name in (*train.classes, "", *train.ids):
        digest.update(name.encode("utf-8", "surrogateescape") + b"\n")
    digest.update(np.ascontiguousarray(train.targets).tobytes())
    looked_at = set[Path]()
    for index in evenly(len(train), FINGERPRINTED).tolist():
        files = train.files(index)
        for path in files:
            if path not in looked_at:
                looked_at.add(path)
                with suppress(OSError), path.open("rb") as file:
                    digest.update(f"{path.stat().st_size} ".encode() + file.read(PART))
        with suppress(DataError):
            if not files:
                digest.update(_bytes(train.image(index)))
            if train.boxed or not files:
                digest.update(_bytes(train.truth(index)))
    return {DATA: digest.hexdigest()[:16]}


def of_files(places: Iterable[str | None]) -> dict[str, str]:
    """A digest of each of some weights, by where they are; what is no file or folder of this machine has none."""
    found = {}
    for place in places:
        if place is not None and (path := _weights(place)) is not None:
            with suppress(OSError), path.open("rb") as file:
                found[place] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return found


def check_same(before: Mapping[str, str], now: Mapping[str, str], what: str, where: str) -> None:
    """Raise DataError or ModelError where `what` (a comparison, a search) would go on from something else."""
    for name, digest in now.items():
        if before.get(name) != digest:
            kind = DataError if name == DATA else ModelError
            raise kind(f"{name} is not what the {what} began with", where=where, hint="another --output")


def _weights(place: str) -> Path | None:
    path = Path(place)
    path = path / WEIGHTS if path.is_dir() else path
    return path if path.is_file() else None


def _bytes(value: Any) -> bytes:
    """An image, and what belongs to it."""
    parts = (value.xyxy, value.classes, value.crowd) if isinstance(value, Boxes) else (np.asarray(value),)
    return b"".join(str(part.shape).encode() + np.ascontiguousarray(part).tobytes() for part in parts)

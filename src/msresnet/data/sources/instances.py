"""COCO instances as images with boxes to find. Crowds, and what is marked to be ignored, stay and are known as such."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from msresnet.data.boxed import BoxedFiles
from msresnet.data.decode import printable
from msresnet.data.sample import Source
from msresnet.data.sources.annotated import Raw, settled
from msresnet.data.sources.coco import coco_files, image_folder, read_coco

FORM = "COCO instances"


def instance_file(path: Path) -> tuple[dict[str, Source], list[str]]:
    """The set in one file of instances, and what was inferred. Raises DataError."""
    raw, names = _raw(path)
    sets, notes = settled({"train": raw}, FORM, names)
    return {split: BoxedFiles(found) for split, found in sets.items()}, notes


def instance_sets(folder: Path) -> tuple[dict[str, Source], list[str]]:
    """The sets in a folder with files of instances, by split, and what was inferred; none where it holds no such.

    Raises DataError.
    """
    files = coco_files(folder)
    if not files:
        return {}, []
    read = {split: _raw(path) for split, path in files.items()}
    names = list(dict.fromkeys(name for _, more in read.values() for name in more))
    listed = ", ".join(printable(path.relative_to(folder)) for path in files.values())
    sets, notes = settled({split: raw for split, (raw, _) in read.items()}, f"{FORM} in {listed}", names)
    return {split: BoxedFiles(found) for split, found in sets.items()}, notes


def _raw(path: Path) -> tuple[Raw, tuple[str, ...]]:
    """What a file holds, and the names of its categories by ascending id."""
    coco = read_coco(path)
    root = image_folder(coco)
    return Raw(
        root, coco.files, coco.sizes, [path], coco.classes, coco.images, coco.targets, coco.boxes, coco.crowd,
        np.zeros(len(coco.boxes), np.int64), coco.notes,
    ), coco.classes  # fmt: skip

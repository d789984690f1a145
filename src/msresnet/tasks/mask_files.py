"""Masks as files: palette PNGs whose values are the class indices, in colours that people can look at."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from msresnet.data.decode import printable
from msresnet.data.sample import Image
from msresnet.files import make_folder, write_atomic
from msresnet.results import Segmentation
from msresnet.tasks.palette import palette

UNSAFE = re.compile(r"[^\w.\-]+")
LONGEST = 200


def save_masks(results: Segmentation, folder: Path) -> list[Path]:
    """Write each image's mask into a folder; returns the files. Raises ResourceError when that fails.

    A name comes from the image's id: `photos/a.jpg` gives `photos_a.png`, with a number where that is taken.
    """
    make_folder(folder)
    paths, taken = list[Path](), set[str]()
    for name, mask in zip(results.ids, results.masks, strict=True):
        path = folder / f"{_free(_stem(name), taken)}.png"
        save_mask(mask, len(results.class_names), path)
        paths.append(path)
    return paths


def save_mask(mask: Image, classes: int, path: Path) -> None:
    """Write class indices (H, W) as a palette PNG. Raises ResourceError when that fails."""
    # Not a copy: a mask may be as large as what a machine can hold.
    picture = Pillow.frombuffer("P", (mask.shape[1], mask.shape[0]), np.ascontiguousarray(mask), "raw", "P", 0, 1)
    picture.putpalette(palette(classes).tobytes())
    write_atomic(path, lambda part: picture.save(part, "PNG"))


def _stem(name: str) -> str:
    """What a file can be called after an image: no folders, no odd characters."""
    plain = printable(name)
    head, dot, ending = plain.rpartition(".")
    stem = head if dot and len(ending) <= 5 and ending.isalnum() else plain
    return UNSAFE.sub("_", stem).strip("._")[-LONGEST:] or "image"


def _free(stem: str, taken: set[str]) -> str:
    chosen = next(name for name in (stem, *(f"{stem}-{i}" for i in range(2, len(taken) + 3))) if name not in taken)
    taken.add(chosen)
    return chosen

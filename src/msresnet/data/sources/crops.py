"""The boxes of COCO instances as images to classify: one sample for each object, cut from its image.

Crowds and what is marked to be ignored are left out, and so are boxes too small to hold a picture. All crops of an
image stand on the same side of a split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from msresnet.data.decode import MIN_SIDE, decode_bytes, printable, read_regular
from msresnet.data.names import Names, Printed
from msresnet.data.sample import Image, Source
from msresnet.data.sources.coco import Coco, coco_files, image_folder, read_coco
from msresnet.errors import DataError

EIGHTHS = 8
"""JPEG is decoded at so many eighths of its size."""


class CropSource(Source):
    """Annotated boxes; a sample's id is the image's path and the annotation's id, as in `cats/1.jpg#17`."""

    def __init__(self, root: Path, coco: Coco) -> None:
        owners = (coco.files[int(image)] for image in coco.images)
        names = Names(f"{name}#{box}" for name, box in zip(owners, coco.box_ids, strict=True))
        super().__init__(coco.classes, coco.targets, Printed(names))
        self.root, self.coco = root, coco

    def image(self, index: int, at_least: tuple[int, int] | None = None) -> Image:
        """Decode an image and cut the box out (C, H, W). Raises DataError, naming the image's id."""
        owner = int(self.coco.images[index])
        size, box = self.coco.sizes[owner], self.coco.boxes[index]
        path = self.root / self.coco.files[owner]
        name = f"{printable(path)}, image id {self.coco.image_ids[owner]}"
        whole = None if at_least is None else _whole(at_least, size, box)
        return _cut(decode_bytes(_read(path, name), name, whole), size, box, name, whole is not None)

    def split_key(self, index: int) -> bytes:
        """The image's path."""
        return self.coco.files[int(self.coco.images[index])].encode("utf-8", "surrogateescape")


def crops(path: Path) -> tuple[CropSource, list[str]]:
    """The boxes in one file of instances, and what was left out. Raises DataError."""
    coco = read_coco(path)
    notes = [f"COCO instances: {len(coco.files):,} images, {len(coco.boxes):,} boxes, each cut out", *coco.notes]
    corners = _corners(coco.boxes)
    small = (corners[:, 2:] - corners[:, :2] < MIN_SIDE).any(axis=1)
    for mask, what in ((coco.crowd, "around crowds or to be ignored"), (small & ~coco.crowd, "too small")):
        notes += [f"{int(mask.sum()):,} boxes {what} were left out"] if mask.any() else []
    coco = _chosen(coco, ~(coco.crowd | small))
    if not len(coco.boxes):
        raise DataError("the file holds no box to cut out", where=printable(path), why="; ".join(notes))
    used = np.unique(coco.targets)
    unused = sorted(set(coco.classes) - {coco.classes[c] for c in used})
    notes += [f"no box is of {', '.join(unused[:5])}{', ...' if len(unused) > 5 else ''}"] if unused else []
    lookup = np.searchsorted(used, coco.targets)
    coco = replace(coco, classes=tuple(coco.classes[c] for c in used), targets=lookup)
    return CropSource(image_folder(coco), coco), notes


def crop_sets(folder: Path) -> tuple[dict[str, Source], list[str]]:
    """The sets in a folder with files of instances, by split, and what was inferred; empty when there are none."""
    sets: dict[str, Source] = {}
    notes: list[str] = []
    for split, path in coco_files(folder).items():
        sets[split], more = crops(path)
        notes += [f"{split}: {printable(path.relative_to(folder))}", *more]
    return sets, notes


def _chosen(coco: Coco, mask: npt.NDArray[np.bool_]) -> Coco:
    def names() -> Iterator[str]:
        return (coco.box_ids[int(row)] for row in np.flatnonzero(mask))

    return replace(
        coco, box_ids=Names(names()), images=coco.images[mask], targets=coco.targets[mask], boxes=coco.boxes[mask],
        crowd=coco.crowd[mask],
    )  # fmt: skip


def _corners(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """(..., 4) xyxy: all pixels that a box touches."""
    return np.concatenate([np.floor(boxes[..., :2]), np.ceil(boxes[..., 2:])], axis=-1).astype(np.int64)


def _read(path: Path, name: str) -> bytes:
    try:
        return read_regular(path)
    except DataError as error:
        raise DataError(error.what, where=name, why=error.why, hint=error.hint) from error


def _whole(at_least: tuple[int, int], size: npt.NDArray[np.int64], box: npt.NDArray[np.float64]) -> tuple[int, int]:
    """(H, W) that the image needs for the box in it to have no less than `at_least` (H, W)."""
    height, width = np.ceil(np.array(at_least) * size / np.array([box[3] - box[1], box[2] - box[0]]))
    return int(height), int(width)


def _cut(image: Image, size: npt.NDArray[np.int64], box: npt.NDArray[np.float64], name: str, reduced: bool) -> Image:
    """The box (xyxy, of an image of `size`) out of that image (C, H, W), which may be smaller by some eighths."""
    given = tuple(int(n) for n in size)
    fits = [tuple(-(-n * k // EIGHTHS) for n in given) for k in range(1 if reduced else EIGHTHS, EIGHTHS + 1)]
    if image.shape[1:] not in fits:
        raise DataError(
            "the image has another size than its annotations say",
            where=name,
            why=f"upright it is {image.shape[2]}x{image.shape[1]}, they say {given[1]}x{given[0]}",
        )
    scale = np.tile(np.array(image.shape[:0:-1]) / size[::-1], 2)  # W, H, W, H
    left, top, right, bottom = _corners(np.round(box * scale, 6))
    return np.ascontiguousarray(image[:, top:bottom, left:right])

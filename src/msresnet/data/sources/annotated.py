"""What readers of boxes have in common: boxes are gathered, cut at the edges of their images, and told in words.

N images, M boxes in all of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from msresnet.boxes import Boxes
from msresnet.data.boxed import Annotations
from msresnet.data.decode import file_size, printable
from msresnet.data.names import Names
from msresnet.data.sample import Texts
from msresnet.errors import DataError

ROUNDING = 1.0
"""Pixels beyond the edge of an image that are no news."""
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Raw:
    """The images and boxes of one set, as a file or a folder has them.

    Args:
        root: folder of the images.
        names: their paths below it (N).
        sizes: (N, 2) H and W in pixels; 0 where nothing is said and the image was not looked at.
        records: the file of annotations of each image, or the one for all.
        labels: names of the classes.
        images: (M,) which image a box lies in.
        classes: (M,) index into `labels`.
        boxes: (M, 4) xyxy.
        crowd: (M,) whether a box is around a crowd, or marked to be ignored.
        tags: (M,) a number that belongs to each box; it means something to its reader alone.
        notes: what was inferred or left out, in words.
    """

    root: Path
    names: Names
    sizes: Ints
    records: Sequence[Path]
    labels: tuple[str, ...]
    images: Ints
    classes: Ints
    boxes: Floats
    crowd: Bools
    tags: Ints
    notes: list[str]


@dataclass
class Gathered:
    """Images and boxes, added one after the other; boxes belong to the last image."""

    root: Path
    names: Names = field(default_factory=Names)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    records: list[Path] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    images: array[int] = field(default_factory=lambda: array("q"))
    classes: array[int] = field(default_factory=lambda: array("q"))
    corners: array[float] = field(default_factory=lambda: array("d"))
    crowd: array[int] = field(default_factory=lambda: array("b"))
    tags: array[int] = field(default_factory=lambda: array("q"))
    places: Names = field(default_factory=Names)

    def image(self, name: str, size: tuple[int, int], record: Path) -> None:
        """One more image: its path below the root, (H, W) or (0, 0), and the file that describes it."""
        self.names.append(name)
        self.sizes.extend(size)
        self.records.append(record)

    def box(self, label: str, corners: Iterable[float], place: str, crowd: bool = False, tag: int = 0) -> None:
        """One more box, xyxy, in the last image; `place` says where it was read."""
        self.images.append(len(self.names) - 1)
        self.classes.append(self.labels.setdefault(label, len(self.labels)))
        self.corners.extend(corners)
        self.crowd.append(crowd)
        self.tags.append(tag)
        self.places.append(place)

    def cut(self, edges: tuple[float, float] | None = None, slack: float = ROUNDING) -> Raw:
        """All of it, the boxes cut at the edges (H, W) of all images, or of each: as annotated, else as in its file.

        Boxes in an image whose file cannot be read are cut on the sides of its origin alone.
        """
        boxes = np.array(self.corners, np.float64).reshape(-1, 4)
        images, sizes = np.array(self.images, np.int64), np.array(self.sizes, np.int64).reshape(-1, 2)
        limits = self._edges(images, sizes)[images] if edges is None else np.broadcast_to(edges, (len(images), 2))
        inside, kept, notes = cut(boxes, limits, self.places, slack=slack)
        classes, tags = (np.array(column, np.int64)[kept] for column in (self.classes, self.tags))
        crowd = np.array(self.crowd, np.bool_)[kept]
        names, labels = self.names, tuple(self.labels)
        return Raw(
            self.root, names, sizes, self.records, labels, images[kept], classes, inside[kept], crowd, tags, notes
        )  # fmt: skip

    def _edges(self, images: Ints, sizes: Ints) -> Floats:
        """H and W (N, 2) of all images that hold a box; infinite where neither annotations nor file say them.

        What only the file says is noted in `sizes`, so that no file is asked again.
        """
        for index in np.unique(images[(sizes[images] == 0).any(axis=1)]).tolist():
            with suppress(DataError):  # whoever asks for the image is told
                sizes[index] = file_size(self.root / self.names[index])
        return np.where(sizes > 0, sizes, np.inf)


def cut(
    boxes: Floats, limits: Floats, places: Texts, noun: str = "", slack: float = ROUNDING
) -> tuple[Floats, Bools, list[str]]:
    """Boxes (M, 4) cut at the edges (M, 2) H and W of their images.

    Returns the boxes, which of them have an area then (M,), and what was done in words.
    """
    inside = np.clip(boxes, 0, np.tile(limits[:, ::-1], 2))
    beyond = (np.abs(inside - boxes) > slack).any(axis=1)
    kept = (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
    notes = counted(beyond & kept, places, noun, "reached beyond their image and were cut")
    return inside, kept, notes + counted(~kept, places, noun, "have no area within their image and were left out")


def counted(chosen: Bools, places: Texts, noun: str, what: str) -> list[str]:
    """How many boxes something befell, and the first of them; nothing for none."""
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return []
    listed = ", ".join(printable(places[int(row)][-60:]) for row in rows[:3])
    return [f"{len(rows):,} boxes {what} ({noun}{listed}{', ...' if len(rows) > 3 else ''})"]


def settled(
    found: dict[str, Raw], form: str, names: Sequence[str] | None = None
) -> tuple[dict[str, Annotations], list[str]]:
    """Sets of the same classes, and what was inferred.

    Classes are those that some box of some set is of: in the order of `names`, or else by the alphabet.
    """
    used = {raw.labels[index] for raw in found.values() for index in np.unique(raw.classes)}
    classes = sorted(used) if names is None else [name for name in names if name in used]
    listed = f": {', '.join(classes[:8])}{', ...' if len(classes) > 8 else ''}" if classes else ""
    notes = [f"{form}, {len(classes)} classes{listed}"]
    unused = [name for name in names or () if name not in used]
    notes += [f"no box is of {', '.join(unused[:5])}{', ...' if len(unused) > 5 else ''}"] if unused else []
    for split, raw in found.items():
        notes += [f"{split}: {_words(raw)}", *raw.notes]
    return {split: of_classes(raw, classes) for split, raw in found.items()}, notes


def of_classes(raw: Raw, classes: Sequence[str]) -> Annotations:
    """The images and boxes of a set with these classes, the boxes by image."""
    lookup = np.array([classes.index(label) if label in classes else -1 for label in raw.labels], np.int64)
    order = np.argsort(raw.images, kind="stable")
    boxes = Boxes.of(raw.boxes[order], lookup[raw.classes[order]] if len(order) else (), raw.crowd[order])
    counts = np.bincount(raw.images, minlength=len(raw.names)).astype(np.int64)
    return Annotations(raw.root, raw.names, raw.sizes, raw.records, tuple(classes), counts, boxes)


def _words(raw: Raw) -> str:
    """How many images and boxes a set has."""
    empty = len(raw.names) - len(np.unique(raw.images))
    parts = [f"{len(raw.names):,} images", f"{len(raw.boxes):,} boxes"]
    parts += [f"{empty:,} images without a box"] * bool(empty)
    parts += [f"{int(raw.crowd.sum()):,} boxes to be ignored"] * bool(raw.crowd.any())
    return ", ".join(parts)

"""Images with boxes around their objects. N images, M boxes in all of them, C channels, H and W pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from msresnet.boxes import Boxes, scale
from msresnet.data.decode import decode_file, file_size, printable
from msresnet.data.names import Names, Printed
from msresnet.data.sample import Image, Source
from msresnet.errors import DataError

EIGHTHS = 8
"""JPEG is decoded at so many eighths of its size."""
Sizes = npt.NDArray[np.int64]


class BoxedSource(Source):
    """Samples whose boxes are known without reading an image.

    Args:
        classes: names.
        ids: N texts.
        counts: how many boxes each image has (N,).
        boxes: of all images, one after the other (M), in each image's own pixels.
    """

    task = "detection"
    boxed = True

    def __init__(self, classes: Sequence[str], ids: Sequence[str], counts: npt.NDArray[np.int64], boxes: Boxes) -> None:
        super().__init__(classes, np.zeros(len(ids), np.int64), ids)
        self.first, self.boxes = np.concatenate([[0], counts.cumsum()]), boxes

    def truth(self, index: int) -> Boxes:
        """The boxes of one image, in its own pixels."""
        return self.boxes.chosen(slice(self.first[index], self.first[index + 1]))

    def present(self) -> npt.NDArray[np.int64]:
        """Indices of the classes that some box is of, crowds aside."""
        return np.unique(self.boxes.classes[~self.boxes.crowd])

    def counts(self) -> npt.NDArray[np.int64]:
        """How many boxes are of each class (K,), crowds aside."""
        return np.bincount(self.boxes.classes[~self.boxes.crowd], minlength=len(self.classes)).astype(np.int64)


class BoxedArrays(BoxedSource):
    """Images (C, H, W) uint8 in memory, of any sizes, and their boxes."""

    def __init__(
        self, images: Sequence[Image] | Image, boxes: Sequence[Boxes], classes: Sequence[str], name: str = "array"
    ) -> None:
        if len(images) != len(boxes):
            raise DataError("each image needs its boxes", why=f"{len(images)} images, boxes of {len(boxes)}")
        counts = np.array([len(part) for part in boxes], np.int64)
        super().__init__(classes, [f"{name}[{i}]" for i in range(len(images))], counts, Boxes.joined(boxes))
        self.images = images

    def image(self, index: int, at_least: tuple[int, int] | None = None) -> Image:
        """One image (C, H, W)."""
        return self.images[index]

    def split_key(self, index: int) -> bytes:
        """The pixels themselves, so that equal images never stand on both sides of a split."""
        return self.images[index].tobytes()


@dataclass(frozen=True)
class Annotations:
    """What annotations say of N images in files, and of the M boxes in all of them.

    Args:
        root: folder of the images.
        names: their paths below it (N).
        sizes: (N, 2) H and W in pixels; 0 where the annotations do not say, until the image was looked at.
        records: the file of annotations of each image, or the one for all.
        classes: names.
        counts: how many boxes each image has (N,).
        boxes: of all images, one after the other.
        shares: whether boxes are shares of their image, 0 to 1, and not pixels.
    """

    root: Path
    names: Names
    sizes: Sizes
    records: Sequence[Path]
    classes: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    boxes: Boxes
    shares: bool = False


class BoxedFiles(BoxedSource):
    """Images in files; a sample's id is its image's path below the root."""

    def __init__(self, found: Annotations) -> None:
        super().__init__(found.classes, Printed(found.names), found.counts, found.boxes)
        self.found = found

    def image(self, index: int, at_least: tuple[int, int] | None = None) -> Image:
        """Decode one image (C, H, W). Raises DataError where it has another size than its annotations say."""
        path = self.path(index)
        image = decode_file(path, at_least)
        given = self._known_size(index)
        if given is None and at_least is None:
            self.found.sizes[index] = image.shape[1:]
        if given is not None and not fits((image.shape[1], image.shape[2]), given, at_least is not None):
            raise DataError(
                "the image has another size than its annotations say",
                where=f"{printable(path)}, {printable(self.record(index))}",
                why=f"upright it is {image.shape[2]}x{image.shape[1]}, they say {given[1]}x{given[0]}",
            )
        return image

    def truth(self, index: int) -> Boxes:
        """The boxes of one image, in its own pixels. Raises DataError where its size is needed and cannot be read."""
        boxes = super().truth(index)
        if not self.found.shares:
            return boxes
        height, width = self.size(index)
        return boxes.moved(scale(boxes.xyxy, (height, width)))

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of one image as it came, from the annotations or else from its file, which is read once for it."""
        if (known := self._known_size(index)) is not None:
            return known
        self.found.sizes[index] = size = file_size(self.path(index))
        return size

    def _known_size(self, index: int) -> tuple[int, int] | None:
        height, width = (int(side) for side in self.found.sizes[index])
        return (height, width) if height and width else None

    def path(self, index: int) -> Path:
        """The image's file."""
        return self.found.root / self.found.names[index]

    def record(self, index: int) -> Path:
        """The file of the image's annotations."""
        records = self.found.records
        return records[index] if len(records) == len(self) else records[0]

    def files(self, index: int) -> list[Path]:
        """The image's file and that of its annotations."""
        return [self.path(index), self.record(index)]


def fits(size: tuple[int, int], given: tuple[int, int], reduced: bool) -> bool:
    """Whether an image decoded to (H, W), perhaps at some eighths of its size, is of the size that was given."""
    eighths = range(1 if reduced else EIGHTHS, EIGHTHS + 1)
    return size in [(-(-given[0] * k // EIGHTHS), -(-given[1] * k // EIGHTHS)) for k in eighths]

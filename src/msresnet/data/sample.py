"""What flows from data to everything else. Images are uint8 (C, H, W), RGB or grey; C channels, H and W pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from msresnet.boxes import Boxes
from msresnet.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

Image = npt.NDArray[np.uint8]
UNLABELLED = -1
IGNORED = 255
"""In a mask: a pixel whose class nobody knows; it is neither learnt nor measured."""


@dataclass(frozen=True)
class Sample:
    """One image (C, H, W) uint8, what belongs to it, and where it comes from.

    What belongs to it is its class index (-1: unlabelled), a mask (H, W) uint8 of the class of each pixel, or boxes.
    """

    image: Image
    target: Any
    id: str


@dataclass(frozen=True)
class Batch:
    """Preprocessed images (B, C, H, W) uint8, targets, and the indices (B,) of the samples.

    Targets are class indices (B,), masks (B, H, W) uint8, or boxes (B, M, 6 or 7) as `targets.py` says.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)


class Source(ABC):
    """A sequence of samples whose labels are known without reading an image.

    Attributes:
        task: what a network is to learn from it, by the task's name.
        planes: how many planes of pixels beside the image's channels belong to a sample: 1 for a mask.
        boxed: whether boxes belong to a sample (`msresnet.boxes.Boxes`, in the image's own pixels).
        classes: names, in the order of the class indices.
        targets: class index of each sample (N,); 0 where a sample is not of one class, -1 without a label.
        ids: where each sample comes from: a path, or a file and a record.
        applied: what the images went through already, as `Preprocess.to_dict` says it; None for images as they came.
    """

    task: str = "classification"
    planes: int = 0
    boxed: bool = False
    applied: dict[str, Any] | None = None

    def __init__(self, classes: Sequence[str], targets: npt.NDArray[np.int64], ids: Sequence[str]) -> None:
        self.classes, self.targets, self.ids = tuple(classes), targets, ids

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def image(self, index: int, at_least: tuple[int, int] | None = None) -> Image:
        """Decode one image (C, H, W). Raises DataError for one that cannot be read.

        Args:
            index: of the sample.
            at_least: (H, W) in pixels: decode at no less than this where the format can reduce. None: whole.
        """

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.image(index), self.truth(index), self.ids[index])

    def truth(self, index: int) -> Any:
        """What belongs to one image, at the image's own size. Raises DataError for what cannot be read."""
        return int(self.targets[index])

    def identities(self, index: int) -> npt.NDArray[np.int64] | None:
        """Which of all objects of the source each box of one image shows (M,), from 1; 0 for one that nobody knows.

        None from sources that do not say who is who.
        """
        return None

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of one image as it came. Raises DataError for one that cannot be read."""
        image = self.image(index)
        return image.shape[1], image.shape[2]

    def present(self) -> npt.NDArray[np.int64] | None:
        """Indices of the classes that some sample is of; None where that is not known without reading them."""
        return None if self.planes or self.boxed else np.unique(self.targets[self.targets >= 0])

    def counts(self) -> npt.NDArray[np.int64] | None:
        """How many samples, or boxes, are of each class (K,); None where only their pixels say it."""
        if self.planes:
            return None
        targets = self.targets[self.targets >= 0]
        if self.boxed:
            boxes = Boxes.joined([self.truth(index) for index in range(len(self))])
            targets = boxes.classes[~boxes.crowd]
        return np.bincount(targets, minlength=len(self.classes)).astype(np.int64)

    def split_key(self, index: int) -> bytes:
        """What decides the split of a sample: its id, unless the source knows better."""
        return self.ids[index].encode("utf-8", "surrogateescape")

    def path(self, index: int) -> Path | None:
        """The file that holds this sample and nothing else; None where there is none."""
        return None

    def files(self, index: int) -> list[Path]:
        """All files that decide what a sample is."""
        path = self.path(index)
        return [] if path is None else [path]


class Pictures(Source):
    """Images (C, H, W) uint8 that are in memory already, of any sizes, each of one class."""

    def __init__(
        self,
        images: Sequence[Image] | Image,
        targets: npt.NDArray[np.int64],
        classes: Sequence[str],
        name: str = "array",
    ) -> None:
        super().__init__(classes, targets, [f"{name}[{i}]" for i in range(len(targets))])
        self.images = images

    def image(self, index: int, at_least: tuple[int, int] | None = None) -> Image:
        """One image (C, H, W)."""
        return self.images[index]

    def split_key(self, index: int) -> bytes:
        """The pixels themselves, so that equal images never stand on both sides of a split."""
        return bytes(self.images[index].tobytes())


class ArraySource(Pictures):
    """The same of one size, in one array (N, C, H, W), which may be used where it lies."""

    images: Image


class MaskedArrays(Source):
    """Images (C, H, W) and masks (H, W) in memory, uint8; masks are of class indices or IGNORED. Sizes may differ."""

    task = "segmentation"
    planes = 1

    def __init__(
        self,
        images: Sequence[Image] | Image,
        masks: Sequence[Image] | Image,
        classes: Sequence[str],
        name: str = "array",
    ) -> None:
        super().__init__(classes, np.zeros(len(images), np.int64), [f"{name}[{i}]" for i in range(len(images))])
        self.images, self.masks = images, masks

    def image(self, index: int, at_least: tuple[int, int] | None = None) -> Image:
        """One image (C, H, W)."""
        return self.images[index]

    def truth(self, index: int) -> Image:
        """The mask (H, W) of one image."""
        return self.masks[index]

    def split_key(self, index: int) -> bytes:
        """The pixels themselves, so that equal images never stand on both sides of a split."""
        return self.images[index].tobytes()


def mask_of(source: Source, index: int, image: Image) -> Image:
    """The mask (H, W) of an image that was decoded whole. Raises DataError for one of another size."""
    mask: Image = source.truth(index)
    if mask.shape != image.shape[1:]:
        why = f"the mask is {mask.shape[0]}x{mask.shape[1]}, the image {image.shape[1]}x{image.shape[2]}"
        raise DataError("the mask has another size than its image", where=source.ids[index], why=why)
    return mask


class Texts(Sequence[str], ABC):
    """Many texts that are made when they are asked for, without a list of them."""

    @abstractmethod
    def text(self, index: int) -> str:
        """The text of a place from 0 on."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        places = range(len(self))[index]
        return [self.text(place) for place in places] if isinstance(places, range) else self.text(places)


class Chosen(Texts):
    """Some of many texts, by their indices (N,)."""

    def __init__(self, texts: Sequence[str], indices: npt.NDArray[np.int64]) -> None:
        self.texts, self.indices = texts, indices

    def __len__(self) -> int:
        return len(self.indices)

    def text(self, index: int) -> str:
        """One of the chosen."""
        return self.texts[int(self.indices[index])]


class Derived(Source):
    """Samples of another source, perhaps at other places or by other class numbers."""

    def __init__(
        self, source: Source, classes: Sequence[str], targets: npt.NDArray[np.int64], ids: Sequence[str]
    ) -> None:
        super().__init__(classes, targets, ids)
        self.source, self.applied = source, source.applied
        self.task, self.planes, self.boxed = source.task, source.planes, source.boxed

    def _at(self, index: int) -> int:
        """Where a sample is in the other source."""
        return index

    def image(self, index: int, at_least: tuple[int, int] | None = None) -> Image:
        """One image (C, H, W)."""
        return self.source.image(self._at(index), at_least)

    def truth(self, index: int) -> Any:
        """What belongs to one image."""
        return self.source.truth(self._at(index))

    def identities(self, index: int) -> npt.NDArray[np.int64] | None:
        """Which objects of the other source one image shows."""
        return self.source.identities(self._at(index))

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of one image as it came."""
        return self.source.size(self._at(index))

    def split_key(self, index: int) -> bytes:
        """The key in the other source."""
        return self.source.split_key(self._at(index))

    def path(self, index: int) -> Path | None:
        """The file in the other source."""
        return self.source.path(self._at(index))

    def files(self, index: int) -> list[Path]:
        """The files in the other source."""
        return self.source.files(self._at(index))


class Subset(Derived):
    """Some samples of a source, with the classes of the whole."""

    def __init__(self, source: Source, indices: npt.NDArray[np.int64]) -> None:
        super().__init__(source, source.classes, source.targets[indices], Chosen(source.ids, indices))
        self.indices = indices

    def _at(self, index: int) -> int:
        return int(self.indices[index])


class OfClasses(Subset):
    """The samples of some of a source's classes, which are numbered anew. For sources of one class a sample."""

    def __init__(self, source: Source, classes: Collection[str]) -> None:
        chosen = np.array([name in classes for name in source.classes])
        super().__init__(source, np.flatnonzero(chosen[source.targets]).astype(np.int64))
        self.classes = tuple(name for name in source.classes if name in classes)
        self.targets = (np.cumsum(chosen) - 1)[self.targets]

    def truth(self, index: int) -> Any:
        """The class of one sample, in the new numbers."""
        return int(self.targets[index])


class Relabelled(Derived):
    """A source whose classes are renumbered to those of another, by name."""

    def __init__(self, source: Source, classes: Sequence[str]) -> None:
        lookup = np.array([classes.index(name) for name in source.classes] or [0], dtype=np.int64)
        targets = source.targets
        if not source.planes and not source.boxed:
            targets = np.where(source.targets >= 0, lookup[source.targets], UNLABELLED)
        super().__init__(source, classes, targets, source.ids)
        self.class_lookup = lookup
        self.mask_lookup = np.full(256, IGNORED, np.uint8)  # masks hold no more classes
        self.mask_lookup[: min(len(lookup), IGNORED)] = lookup[:IGNORED]

    def truth(self, index: int) -> Any:
        """What belongs to one image, in the new numbers."""
        if self.boxed:
            boxes: Boxes = self.source.truth(index)
            return boxes.renumbered(self.class_lookup)
        return self.mask_lookup[self.source.truth(index)] if self.planes else int(self.targets[index])

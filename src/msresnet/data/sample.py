"""What flows from data to everything else. Images are uint8 (C, H, W), RGB or grey; C channels, H and W pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

Image = npt.NDArray[np.uint8]
UNLABELLED = -1


@dataclass(frozen=True)
class Sample:
    """One image (C, H, W) uint8, its class index (-1: unlabelled), and where it comes from."""

    image: Image
    target: int
    id: str


@dataclass(frozen=True)
class Batch:
    """Preprocessed images (B, C, H, W) uint8, class indices (B,), and the indices (B,) of the samples."""

    images: Tensor
    targets: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.targets)


class Source(ABC):
    """A sequence of samples whose labels are known without reading an image.

    Attributes:
        classes: names, in the order of the class indices.
        targets: class index of each sample (N,).
        ids: where each sample comes from: a path, or a file and a record.
    """

    def __init__(self, classes: Sequence[str], targets: npt.NDArray[np.int64], ids: Sequence[str]) -> None:
        self.classes, self.targets, self.ids = tuple(classes), targets, ids

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def image(self, index: int) -> Image:
        """Decode one image (C, H, W). Raises DataError for one that cannot be read."""

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.image(index), int(self.targets[index]), self.ids[index])

    def split_key(self, index: int) -> bytes:
        """What decides the split of a sample: its id, unless the source knows better."""
        return self.ids[index].encode("utf-8", "surrogateescape")


class ArraySource(Source):
    """Images that are in memory already: (N, C, H, W) uint8."""

    def __init__(
        self, images: Image, targets: npt.NDArray[np.int64], classes: Sequence[str], name: str = "array"
    ) -> None:
        super().__init__(classes, targets, [f"{name}[{i}]" for i in range(len(targets))])
        self.images = images

    def image(self, index: int) -> Image:
        """One image (C, H, W)."""
        return self.images[index]  # type: ignore[no-any-return]

    def split_key(self, index: int) -> bytes:
        """The pixels themselves, so that equal images never stand on both sides of a split."""
        return bytes(self.images[index].tobytes())


class Subset(Source):
    """Some samples of a source, with the classes of the whole."""

    def __init__(self, source: Source, indices: npt.NDArray[np.int64]) -> None:
        super().__init__(source.classes, source.targets[indices], [source.ids[i] for i in indices])
        self.source, self.indices = source, indices

    def image(self, index: int) -> Image:
        """One image (C, H, W)."""
        return self.source.image(int(self.indices[index]))

    def split_key(self, index: int) -> bytes:
        """The key in the whole."""
        return self.source.split_key(int(self.indices[index]))


class Relabelled(Source):
    """A source whose classes are renumbered to those of another, by name."""

    def __init__(self, source: Source, classes: Sequence[str]) -> None:
        lookup = np.array([classes.index(name) for name in source.classes] or [0], dtype=np.int64)
        targets = np.where(source.targets >= 0, lookup[source.targets], UNLABELLED)
        super().__init__(classes, targets, source.ids)
        self.source = source

    def image(self, index: int) -> Image:
        """One image (C, H, W)."""
        return self.source.image(index)

    def split_key(self, index: int) -> bytes:
        """The key before relabelling."""
        return self.source.split_key(index)

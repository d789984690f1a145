"""What flows from data to everything else. Images are uint8 (C, H, W), RGB or grey; C channels, H and W pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

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
        applied: what the images went through already, as `Preprocess.to_dict` says it; None for images as they came.
    """

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
        return Sample(self.image(index), int(self.targets[index]), self.ids[index])

    def split_key(self, index: int) -> bytes:
        """What decides the split of a sample: its id, unless the source knows better."""
        return self.ids[index].encode("utf-8", "surrogateescape")

    def path(self, index: int) -> Path | None:
        """The file that holds this sample and nothing else; None where there is none."""
        return None


class ArraySource(Source):
    """Images that are in memory already: (N, C, H, W) uint8."""

    def __init__(
        self, images: Image, targets: npt.NDArray[np.int64], classes: Sequence[str], name: str = "array"
    ) -> None:
        super().__init__(classes, targets, [f"{name}[{i}]" for i in range(len(targets))])
        self.images = images

    def image(self, index: int, at_least: tuple[int, int] | None = None) -> Image:
        """One image (C, H, W)."""
        return self.images[index]  # type: ignore[no-any-return]

    def split_key(self, index: int) -> bytes:
        """The pixels themselves, so that equal images never stand on both sides of a split."""
        return bytes(self.images[index].tobytes())


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


class Subset(Source):
    """Some samples of a source, with the classes of the whole."""

    def __init__(self, source: Source, indices: npt.NDArray[np.int64]) -> None:
        super().__init__(source.classes, source.targets[indices], Chosen(source.ids, indices))
        self.source, self.indices, self.applied = source, indices, source.applied

    def image(self, index: int, at_least: tuple[int, int] | None = None) -> Image:
        """One image (C, H, W)."""
        return self.source.image(int(self.indices[index]), at_least)

    def split_key(self, index: int) -> bytes:
        """The key in the whole."""
        return self.source.split_key(int(self.indices[index]))

    def path(self, index: int) -> Path | None:
        """The file in the whole."""
        return self.source.path(int(self.indices[index]))


class Relabelled(Source):
    """A source whose classes are renumbered to those of another, by name."""

    def __init__(self, source: Source, classes: Sequence[str]) -> None:
        lookup = np.array([classes.index(name) for name in source.classes] or [0], dtype=np.int64)
        targets = np.where(source.targets >= 0, lookup[source.targets], UNLABELLED)
        super().__init__(classes, targets, source.ids)
        self.source, self.applied = source, source.applied

    def image(self, index: int, at_least: tuple[int, int] | None = None) -> Image:
        """One image (C, H, W)."""
        return self.source.image(index, at_least)

    def split_key(self, index: int) -> bytes:
        """The key before relabelling."""
        return self.source.split_key(index)

    def path(self, index: int) -> Path | None:
        """The file before relabelling."""
        return self.source.path(index)

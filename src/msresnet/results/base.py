"""What all results have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

DIGITS = 4
"""Decimal places of a probability, wherever one is printed or written."""
SHOWN = 20
"""Images that a notebook is shown."""


class Results(ABC):
    """What a model answered about some images: as long as there are images, and sliceable by them.

    Attributes:
        ids: where each image comes from (N).
        class_names: in the order of the class indices (K).
    """

    ids: tuple[str, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int | slice) -> Self:
        """Some of the images, as the same kind of object."""
        if isinstance(index, int) and not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return self.part(slice(index, index + 1 or None) if isinstance(index, int) else index)

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    @abstractmethod
    def part(self, rows: slice) -> Self:
        """The answers about some of the images."""

    @classmethod
    @abstractmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The answers of several objects, at least one, behind each other."""

    @abstractmethod
    def to_dict(self, k: int = 5) -> list[dict[str, Any]]:
        """One plain dictionary for each image; of each at most the `k` most important classes."""

    @abstractmethod
    def agreement(self, other: Self) -> npt.NDArray[np.float64]:
        """How far other answers about the same images are the same, for each image from 0 to 1 (N,)."""

    @property
    def mask(self) -> npt.NDArray[np.uint8] | None:
        """The class index of each pixel, uint8 (H, W), of answers about one image that say so; None of all others."""
        return None

    def with_exits(self, exits: npt.NDArray[np.int64]) -> Self:
        """The same, with the exit that gave each answer (N,); of answers that networks with several exits give."""
        raise NotImplementedError(type(self).__name__)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The answers as arrays by name, the first axis being the images; empty where they have no such form."""
        return {}

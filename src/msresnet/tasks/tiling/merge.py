"""What the answers for tiles become: an answer about the whole image, and what is known of its parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from msresnet.data.sample import Image
from msresnet.results import Results
from msresnet.tasks.tiling.grid import Grid, Place

Features = list[dict[str, Any]]
"""Polygons in pixels, (x, y) from the upper left corner, as GeoJSON has features."""
Answer = TypeVar("Answer", bound=Results)


@dataclass(frozen=True, kw_only=True)
class Tiled(ABC, Generic[Answer]):
    """A large image's answer.

    Args:
        answer: of the whole image, which is its only one.
        grid: of the tiles.
        overview: the image, reduced (C, h, w).
        note: why the image was decoded whole; '' where it was not.
    """

    answer: Answer
    grid: Grid
    overview: Image
    note: str

    counted: ClassVar[tuple[str, ...]]
    """The columns of `counts`."""

    @abstractmethod
    def counts(self) -> list[tuple[str | int | float, ...]]:
        """A row for each class, its name first."""

    @abstractmethod
    def features(self) -> Features:
        """What lies where."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What else there is to say, as plain values."""

    @abstractmethod
    def described(self) -> str:
        """The tiles and what came of them, in words."""

    def save(self, folder: Path) -> None:
        """Write what only this kind of answer has into the image's folder."""


class Merge(ABC):
    """Takes the answers for tiles, in any order, and makes one of them.

    Args:
        grid: of the tiles.
        class_names: of the model (K).
    """

    def __init__(self, grid: Grid, class_names: tuple[str, ...]) -> None:
        self.grid, self.class_names = grid, class_names

    @abstractmethod
    def add(self, places: Sequence[Place], results: Results) -> None:
        """Add the answers for the tiles that begin at each (top, left)."""

    @abstractmethod
    def finish(self, name: str, overview: Image, note: str) -> Tiled[Any]:
        """The image's answer, after all tiles."""

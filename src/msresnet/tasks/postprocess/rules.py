"""Which of the boxes that a network speaks for are answers; saved with every detector."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

KINDS: dict[str, type] = {"most": int, "pixels": bool}
"""Of rules that are not just numbers."""


@dataclass(frozen=True)
class Rules:
    """Which boxes are answers. The values are FCOS's (arXiv 1904.01355), and COCO's number of boxes.

    Args:
        least: the lowest score of an answer, above 0.
        overlap: intersection over union with a surer box of its class above which a box is left out.
        most: boxes of an image.
        sure: the lowest score of what people are shown, unless a set says which serves them best.
        pixels: whether corners are whole pixels of the image, as people and programs mostly annotate them.

    Raises ValueError for numbers out of range.
    """

    least: float = 0.05
    overlap: float = 0.6
    most: int = 100
    sure: float = 0.3
    pixels: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.least < 1 or not 0 <= self.overlap <= 1 or not 0 <= self.sure <= 1 or self.most < 1:
            raise ValueError(f"no rules for boxes: {self}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From plain values; what is not there is as usual. Raises TypeError for values of other kinds."""
        given = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        for name, value in given.items():
            kind = KINDS.get(name, (int, float))
            if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
                raise TypeError(f"{name} {value!r} is of another kind")
        return cls(**given)

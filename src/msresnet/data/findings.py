"""What a check says: findings, and the words that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["error", "warning", "note"]
UNBALANCED = 10
"""Times that the largest class may exceed the smallest."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Args:
        kind: one word.
        level: 'error', 'warning' or 'note'.
        count: images, or classes.
        text: what was found, with the count.
        advice: what to do.
        items: all of them, as plain values: an image, a group of images, a class.
    """

    kind: str
    level: Level
    count: int
    text: str
    advice: str
    items: list[dict[str, Any]]


def first_of(names: list[str]) -> str:
    """The first three of some names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")

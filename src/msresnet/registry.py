"""A strict, tiny registry: a name stands for one builder, and a wrong name is answered with the nearest."""

from __future__ import annotations

import fnmatch
from typing import Generic, TypeVar

from msresnet.errors import UsageError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Names and what they stand for, in the order of registration.

    Args:
        kind: the word for one entry in messages, such as 'model'.
        listing: the command that lists the names, for hints.
    """

    def __init__(self, kind: str, listing: str = "") -> None:
        self.kind, self.listing = kind, listing
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Register an entry. Raises ValueError when the name is taken."""
        if name in self._entries:
            raise ValueError(f"the {self.kind} {name!r} is registered twice")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        """The entry. Raises UsageError, with the nearest names, for an unknown one."""
        if name not in self._entries:
            close = nearest(name, self._entries)
            listing = f"; {self.listing} lists all" if self.listing else f"; known: {', '.join(self._entries)}"
            raise UsageError(f"unknown {self.kind} {name!r}", hint=(close or "another name") + listing)
        return self._entries[name]

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def names(self, pattern: str = "*") -> list[str]:
        """Registered names that match a shell pattern, in order."""
        return [name for name in self._entries if fnmatch.fnmatch(name, pattern)]

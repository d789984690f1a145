"""Every error that a user can meet.

Each says what is wrong, where, why, and what to type; each knows the exit code of the command line.

    MsresnetError                1  a bug of ours
    ├── UsageError     2  a flag, a config key, an argument (a ValueError too)
    ├── DataError      3  images, labels, folders, tables (a ValueError too)
    ├── ModelError     4  a bundle, a checkpoint, weights
    ├── ResourceError  5  memory, disk, a port, a missing extra
    │   └── HeldError     a folder that another process writes
    ├── DivergedError  6  the loss is not finite
    ├── PeerLostError  7  another process of the same training is gone
    ├── QualityGateError  8  a figure is under the bound that was set
    └── Interrupted  130  asked to stop (143 for SIGTERM); everything was saved
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


class MsresnetError(Exception):
    """Base of all errors that carry a message for a person.

    Args:
        what: what is wrong, one sentence.
        where: the file, line, record, flag or key.
        why: the rule or the cause.
        hint: what to type or do next.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "") -> None:
        self.what, self.where, self.why, self.hint = what, where, why, hint
        super().__init__(str(self))

    def __str__(self) -> str:
        rows = [self.what]
        rows += [f"  {label}: {text}" for label, text in self.details() if text]
        return "\n".join(rows)

    def details(self) -> list[tuple[str, str]]:
        """The labelled rows below the first line."""
        return [("where", self.where), ("why", self.why), ("try", self.hint)]


class UsageError(MsresnetError, ValueError):
    """A flag, a config key or an argument that cannot be used."""

    exit_code = 2


class DataError(MsresnetError, ValueError):
    """Images, labels or tables that cannot be used."""

    exit_code = 3


class ModelError(MsresnetError):
    """A bundle, a checkpoint or weights that cannot be used."""

    exit_code = 4


class ResourceError(MsresnetError):
    """The machine lacks something: memory, disk, a permission, an extra."""

    exit_code = 5


class HeldError(ResourceError):
    """Another process holds a folder."""


class DivergedError(MsresnetError):
    """Training produced a loss or a gradient that is not finite."""

    exit_code = 6


class PeerLostError(MsresnetError):
    """Another process of a training of several is gone, or cannot be reached."""

    exit_code = 7


class QualityGateError(MsresnetError):
    """A figure is under the bound that the user set."""

    exit_code = 8


class Interrupted(MsresnetError):
    """A signal asked to stop, and everything was saved first."""

    def __init__(self, what: str, *, exit_code: int, hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.exit_code = exit_code


def nearest(word: str, words: Iterable[str], n: int = 3) -> str:
    """The closest of some words, as text for a hint ('' when none is close)."""
    close = difflib.get_close_matches(word, list(words), n=n, cutoff=0.5)
    return " or ".join(close)


def some(count: int, word: str, plural: str = "") -> str:
    """A number and its noun."""
    return f"{count:,} {word if count == 1 else plural or word + 's'}"


def first_line(error: BaseException, most: int = 200) -> str:
    """The first line of an error's message that is not empty, up to `most` characters; its type's name without one."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:most]


def at_least(bounds: Mapping[str, tuple[float | None, float]]) -> None:
    """Raise UsageError for a flag below its bound: (value, bound) by its name; a value of None is not given."""
    for name, (value, low) in bounds.items():
        if value is not None and not value >= low:  # NaN is below all
            hint = f"leave it out for its usual value, or --{name} {low} and more"
            raise UsageError(f"--{name} {value}", why=f"it must be at least {low}", hint=hint)

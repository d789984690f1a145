"""Checks of what a user says about a network: rows are made from command lines and files too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msresnet.errors import UsageError

MOST_BLOCKS, MOST_CHANNELS = 1000, 16_384
"""More would only be a mistake, or a file that wants to keep the machine busy."""


def check_count(name: str, value: Any, most: int = MOST_CHANNELS) -> None:
    """Raise UsageError for anything but a whole number from 1 to `most`."""
    if not _is_count(value, most):
        what, why = f"the model argument {name}={value!r}", f"whole numbers from 1 to {most}"
        raise UsageError(what, why=why, hint=f"--model-args {name}={min(2, most)}")


def check_counts(name: str, values: Any, length: int | None = None, most: int = MOST_CHANNELS) -> tuple[int, ...]:
    """Whole numbers from 1 to `most` as a tuple, of a length if one is given. Raises UsageError for anything else."""
    sound = isinstance(values, (list, tuple)) and bool(values) and length in (None, len(values))
    if not sound or not all(_is_count(v, most) for v in values):
        many = "" if length is None else f", {length} of them"
        given = len(values) if isinstance(values, (list, tuple)) else 0
        hint = f"--model-args {name}=[{','.join([str(min(2, most))] * (length or given or 2))}]"
        what, why = f"the model argument {name}={values!r}", f"whole numbers from 1 to {most}{many}"
        raise UsageError(what, why=why, hint=hint)
    return tuple(values)


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def check_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raise UsageError for a value that is none of those allowed."""
    if not any(value is a or (type(value) is type(a) and value == a) for a in allowed):
        raise UsageError(f"the model argument {name}={value!r}", hint=f"one of {', '.join(map(str, allowed))}")

"""Which column of a table holds what: by the name that the user gives, else by the names that people use."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

import numpy as np
import numpy.typing as npt

from msresnet.data.names import class_name
from msresnet.errors import DataError, UsageError, nearest

PATHS = frozenset(
    ("path", "file", "filename", "filepath", "image", "imagepath", "imagefile", "imagename", "img", "imgpath")
)
LABELS = frozenset(("label", "labels", "class", "classname", "classid", "category", "target"))
MASKS = frozenset(("mask", "masks", "maskpath", "maskfile", "annotation", "segmentation"))
SPLITS = frozenset(("split", "set", "subset", "partition"))

MOST_CLASS = 1_000_000
"""The largest class number."""
SHOWN = 12
"""Names in a message."""
_WHOLE = re.compile(r"(0|[1-9][0-9]*)(\.0*)?|[0-9]\.[0-9]+e\+[0-9]+")
"""A whole number as people and programs write it: 7, 7.0, and 7.000e+00 of `numpy.savetxt`; not 07, 7_0, 7e1."""


def plain(name: str) -> str:
    """A column's name without what people write differently: 'File_Name ' is 'filename'."""
    return "".join(c for c in name.casefold() if c.isalnum())


def guessed(header: Sequence[str], names: Collection[str]) -> list[int]:
    """The columns that bear one of some names."""
    return [i for i, name in enumerate(header) if plain(name) in names]


def asked(flag: str, value: str, header: Sequence[str], count: int, where: str) -> int:
    """The column that a flag's value means: 'first', 'last', or a name in the header. Raises UsageError."""
    if value in ("first", "last"):
        return 0 if value == "first" else count - 1
    found = [i for i, name in enumerate(header) if name.strip() == value]
    found = found or [i for i, name in enumerate(header) if plain(name) == plain(value)]
    if len(found) == 1:
        return found[0]
    names = [name.strip() for name in header]
    raise UsageError(
        f"{flag} {value}: there is no such column" if not found else f"{flag} {value}: several columns have this name",
        where=where,
        why=f"the columns are {listed(names)}" if names else "the table has no header",
        hint=f"{flag} {nearest(value, names, 1) or 'first or last'}",
    )


def listed(names: Sequence[str]) -> str:
    """Some names for a message, not more than a line."""
    text = ", ".join(name[:40] for name in names[:SHOWN])
    return text + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


def classes(
    labels: Sequence[str],
    where: Callable[[int], str],
    hint: str = "--label-column NAME, or labels that are names",
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """The class index of each different label, and the names: whole numbers by value, texts by alphabet.

    Labels are numbers only where all are plain ones: 001 and 1, 1_0 and 10 are different names.

    Args:
        labels: all different, not empty.
        where: a label of a place comes from.
        hint: what to do about numbers that are not classes.

    Raises DataError for numbers that are not classes, where all labels are numbers.
    """
    assert len(set(labels)) == len(labels)
    numbers = [value for label in labels if (value := number(label)) is not None]
    if len(numbers) == len(labels):
        for index, value in enumerate(numbers):
            if not (0 <= value <= MOST_CLASS and value.is_integer()):
                raise DataError(
                    f"the label {labels[index]} is not a class",
                    where=where(index),
                    why="where all labels are numbers, they are whole numbers from 0",
                    hint=hint,
                )
    if len(numbers) < len(labels) or not all(_WHOLE.fullmatch(label) for label in labels):
        named = [class_name(label) for label in labels]
        names, lookup = np.unique(np.array(named, dtype=object), return_inverse=True)
        return lookup.astype(np.int64), names.tolist()
    values, targets = np.unique(np.array(numbers, dtype=np.int64), return_inverse=True)
    return targets.astype(np.int64), [str(value) for value in values]


def number(cell: str) -> float | None:
    """A text as a number; None for one that is none, such as 1_0, which only Python takes for one."""
    try:
        return float(cell) if cell.isascii() and "_" not in cell else None
    except ValueError:
        return None

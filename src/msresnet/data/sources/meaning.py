"""What the values in masks mean: which number is which class, by what is seen and what classes.txt says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from msresnet.data.decode import printable
from msresnet.data.names import class_name
from msresnet.data.sample import IGNORED, Image
from msresnet.errors import DataError

CLASSES = "classes.txt"
TWO = ("background", "foreground")
UNKNOWN = -1
MOST_GUESSED = 64
"""More values than this, and no names, are the grey levels of a picture."""


@dataclass(frozen=True)
class Meaning:
    """Class names, and the class of each value from 0 to 255: an index, IGNORED or UNKNOWN."""

    classes: tuple[str, ...]
    lookup: npt.NDArray[np.int64]

    def indices(self, values: npt.NDArray[np.int64], where: str) -> Image:
        """Values (H, W) -> class indices, uint8. Raises DataError, naming the first value that is not a class."""
        found = np.where((values >= 0) & (values <= IGNORED), self.lookup[values.clip(0, IGNORED)], UNKNOWN)
        if (found == UNKNOWN).any():
            row, column = (int(i) for i in np.argwhere(found == UNKNOWN)[0])
            known = ", ".join(f"{v} ({self._name(v)})" for v in np.flatnonzero(self.lookup != UNKNOWN)[:12])
            raise DataError(
                f"the mask holds {values[row, column]}, which is not a class",
                where=f"{where}, row {row + 1}, column {column + 1}",
                why=f"{values[row, column]} in row {row + 1}, column {column + 1}; known are {known}",
                hint=f"mend the mask, or name all classes in {CLASSES}, one a line",
            )
        return found.astype(np.uint8)

    def _name(self, value: int) -> str:
        index = int(self.lookup[value])
        return "ignored" if index == IGNORED else self.classes[index]

    def __str__(self) -> str:
        shown = [f"{value} {self._name(int(value))}" for value in np.flatnonzero(self.lookup != UNKNOWN)]
        return "values of masks: " + ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")


def meaning(values: Collection[int], names: Sequence[str], where: str) -> Meaning:
    """What the values that were seen in masks mean.

    With names: 0 is the first and so on; 255 is ignored where it is not a class; of two names, 255 is the second where
    no mask holds 1. Without: 0 and 1, or 0 and 255, are background and foreground; else the classes are numbers from 0
    on without a gap, and 255 is ignored.

    Raises DataError for values that cannot be meant so, and for a single class.
    """
    seen, lookup = set(values), np.full(IGNORED + 1, UNKNOWN, np.int64)
    of_two = len(names) == 2 and IGNORED in seen and 1 not in seen
    if of_two if names else seen <= {0, 1, IGNORED}:
        lookup[[0, IGNORED if 1 not in seen else 1]] = [0, 1]
        lookup[IGNORED] = IGNORED if 1 in seen else 1
        return Meaning(tuple(names) or TWO, lookup) if len(seen) > 1 else _single(seen, where)
    if not names:
        classes = seen - {IGNORED}
        if max(seen) > IGNORED or len(seen) > MOST_GUESSED:
            why = f"{len(seen):,} different values, up to {max(seen)}"
            raise DataError("the masks look like pictures", where=where, why=why, hint=f"name the classes in {CLASSES}")
        if len(classes) < 2:
            return _single(classes, where)
        if gaps := set(range(max(classes))) - classes:
            shown = ", ".join(map(str, sorted(seen)[:12]))
            why = f"they hold {shown}{' and others' if len(seen) > 12 else ''}, but no {min(gaps)}"
            hint = f"mend the masks, or name all classes in {CLASSES}, one a line, from 0 on"
            raise DataError("it is not clear which values of the masks are classes", where=where, why=why, hint=hint)
        names = [str(value) for value in range(max(classes) + 1)]
    lookup[IGNORED] = IGNORED
    lookup[: len(names)] = np.arange(len(names))
    return Meaning(tuple(names), lookup)


def _single(seen: Collection[int], where: str) -> Meaning:
    what = "the masks show only one class" if seen else "the masks show no class"
    raise DataError(what, where=where, why=f"all known pixels are {next(iter(seen), 'unknown')}")


def class_names(folders: Sequence[Path]) -> list[str]:
    """The names in the first classes.txt of some folders, one a line; none where there is no such file.

    Raises DataError for one that cannot be read, names fewer than two classes or one twice.
    """
    path = next((folder / CLASSES for folder in folders if (folder / CLASSES).is_file()), None)
    if path is None:
        return []
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("cannot read the names of the classes", where=printable(path), why=str(error)) from error
    names = [class_name(line) for line in lines if line]
    if not 2 <= len(names) <= IGNORED or len(set(names)) < len(names):
        twice = next((name for name in names if names.count(name) > 1), None)
        why = f"{twice!r} stands there twice" if twice else f"{len(names)} names, from 2 to {IGNORED} make sense"
        raise DataError("these names of classes cannot be used", where=printable(path), why=why)
    return names

"""Folders of images: one subfolder a class, perhaps below train/, val/ and test/.

What is not an image (hidden files, thumbnails' databases, texts) is left aside and counted. Links that lead
nowhere or in circles are not followed into.
"""

from __future__ import annotations

import os
import re
from array import array
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from msresnet.data.decode import EXTENSIONS, FOREIGN, decode_file, printable
from msresnet.data.names import Names, Printed, class_name
from msresnet.data.sample import UNLABELLED, Image, Source
from msresnet.errors import DataError

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_NUMBER = re.compile(r"(\d+)")


class FileSource(Source):
    """Images in files below a folder; a sample's id is its path from there, in characters that can be printed."""

    def __init__(self, root: Path, names: Names, targets: npt.NDArray[np.int64], classes: list[str]) -> None:
        super().__init__(classes, targets, Printed(names))
        self.root, self.names = root, names

    def image(self, index: int, at_least: tuple[int, int] | None = None) -> Image:
        """Decode one image (C, H, W)."""
        return decode_file(self.path(index), at_least)

    def path(self, index: int) -> Path:
        """The image's file."""
        return self.root / self.names[index]


def folder(root: Path) -> tuple[FileSource, list[str]]:
    """The images below one folder of class folders, and what was left aside. Raises DataError.

    Folders whose names differ only in how accents are written are one class.
    """
    names = [entry for entry in entries(root) if entry.is_dir() and not entry.name.startswith(".")]
    if not names:
        raise DataError(
            "the folder holds no class folders",
            where=printable(root),
            hint="one subfolder per class, images inside: cat/1.jpg, dog/2.jpg",
        )
    found, targets = Names(), array("q")
    stray = Counter(_ending(entry.name) for entry in entries(root) if not entry.is_dir())
    classes: dict[str, int] = {}
    for entry in sorted(names, key=lambda entry: class_name(entry.name)):
        index = classes.setdefault(class_name(entry.name), len(classes))
        before = len(found)
        others = _collect(entry, root, found)
        stray += others
        if len(found) == before:
            idx = next(entry.rglob("*ubyte*"), None)  # as torchvision leaves MNIST, in MNIST/raw
            raise DataError(
                f"the class {printable(entry.name)!r} has no images",
                where=printable(entry),
                why="; ".join(_aside(others)) or "the folder is empty",
                hint=f"--data {printable(idx.parent)}" if idx else "add images or remove the folder",
            )
        targets.extend([index] * (len(found) - before))
    notes = [f"{words} were left aside" for words in _aside(stray)]
    return FileSource(root, found, np.array(targets, np.int64), list(classes)), notes


def unsorted(root: Path) -> tuple[FileSource, list[str]]:
    """The images in a folder, without labels where it holds images and no folders; else as `folder`."""
    found = Names()
    if any(entry.is_dir() and not entry.name.startswith(".") for entry in entries(root)):
        return folder(root)
    _collect(root, root, found)
    return (FileSource(root, found, np.full(len(found), UNLABELLED, np.int64), []), []) if found else folder(root)


def split_folders(root: Path) -> dict[str, Path]:
    """The train, val and test folders below a root, by any of their usual names."""
    below = {entry.name.lower(): entry for entry in entries(root) if entry.is_dir()}
    found = {split: next((below[n] for n in names if n in below), None) for split, names in SPLITS.items()}
    chosen = {split: path for split, path in found.items() if path is not None}
    # Beside other folders, and without class folders of its own, `train` is the class of that name.
    classes_beside = any(not name.startswith(".") and path not in chosen.values() for name, path in below.items())
    flat = not any(entry.is_dir() for path in chosen.values() for entry in entries(path))
    return {} if classes_beside and flat else chosen


def is_image(path: Path) -> bool:
    """Whether a name looks like an image's."""
    return _looks(path.name)


def by_number(name: str) -> list[tuple[int, str]]:
    """A key that sorts names with their numbers as numbers: 2 before 10."""
    return [(int(part), "") if part.isdecimal() and part.isascii() else (-1, part) for part in _NUMBER.split(name)]


def _looks(name: str) -> bool:
    return _ending(name) in EXTENSIONS and not name.startswith(".")


def is_picture(path: Path) -> bool:
    """Whether a name looks like a picture's, be it of a format that is read here or not."""
    return is_image(path) or (_ending(path.name) in FOREIGN and not path.name.startswith("."))


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - of a million


def _aside(others: Counter[str]) -> list[str]:
    """The files that are not read, in words: pictures of other formats, and the rest."""
    foreign = {ending: count for ending, count in others.items() if ending in FOREIGN}
    named = ", ".join(f"{count} {ending}" for ending, count in sorted(foreign.items()))
    rest = others.total() - sum(foreign.values())
    words = [f"{named} pictures, whose format is not read (convert them to JPEG or PNG),"] if named else []
    return words + ([f"{rest} files that are not images"] if rest else [])


def _collect(folder: Path, root: Path, found: Names) -> Counter[str]:
    """Add the paths below the root of all images in a folder, in a fixed order; counts how other files' names end."""
    others = Counter[str]()
    for base, folders, files in os.walk(folder, onerror=unreadable, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(base, root)
        for name in sorted(files):
            if _looks(name):
                found.append(f"{below}/{name}")
            else:
                others[_ending(name)] += 1
    return others


def unreadable(error: OSError) -> None:
    """Raise DataError for a folder that `os.walk` cannot read."""
    raise DataError("cannot read the folder", where=printable(error.filename), why=error.strerror or "") from error


def entries(folder: Path) -> list[Path]:
    """What a folder holds, in a fixed order. Raises DataError where it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError("cannot read the folder", where=printable(folder), why=error.strerror or "") from error

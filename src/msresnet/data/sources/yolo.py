"""Images with a text file of boxes each, as YOLO has them: class, centre x y, width, height, in shares of the image.

    images/train/a.jpg  labels/train/a.txt    train/images/a.jpg  train/labels/a.txt    images/a.jpg  labels/a.txt

A data.yaml names the classes and may say where the sets are; classes.txt names them too. A line of more than six
numbers is an outline, whose box is taken. An image without a file, or with an empty one, has no object.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from msresnet.data.boxed import BoxedFiles
from msresnet.data.decode import printable, read_regular, refuse_pointer
from msresnet.data.names import class_name
from msresnet.data.sample import Source
from msresnet.data.sources.annotated import Gathered, settled
from msresnet.data.sources.folder import SPLITS, entries, is_image
from msresnet.data.sources.meaning import CLASSES
from msresnet.errors import DataError, UsageError
from msresnet.files import read_yaml

MOST_BYTES = 64 << 20
SETTINGS, NAMED = (".yaml", ".yml"), "data"
IMAGES, LABELS = "images", "labels"
SLACK = 0.02
"""Shares of an image that centres and sides may lie beyond 0 to 1: by rounding, or cut at the edge."""
ROUNDING = 1e-3
COLUMNS, FEWEST_OF_OUTLINE = 5, 7
Names = dict[int, str]


def yolo_sets(root: Path) -> tuple[dict[str, Source], list[str]]:
    """The sets of images with text files below a folder, by split, and what was inferred; none where it holds no such.

    Raises DataError, naming file and line.
    """
    folders = _folders(root)
    settings = sorted(path for path in entries(root) if path.suffix.lower() in SETTINGS and path.is_file())
    for path in settings:
        try:
            content = _settings(path)
        except DataError:
            if _labelled(folders) or path.stem.lower() == NAMED:
                raise
            continue  # it belongs to another program
        if isinstance(content, dict) and "names" in content and (named := _named_folders(content, path)):
            return _sets(path.parent, named, _names(content, path), f"YOLO, {path.name}")
    if not _labelled(folders):
        return {}, []
    return _sets(root, folders, _listed_names(root), "YOLO")


def yolo_file(path: Path) -> tuple[dict[str, Source], list[str]]:
    """The sets that a data.yaml names, and what was inferred. Raises DataError, naming file and line."""
    content = _settings(path)
    if not isinstance(content, dict) or "names" not in content:
        why = f"its keys are {', '.join(map(repr, list(content)[:8]))}" if isinstance(content, dict) else "no mapping"
        raise DataError("the file names no classes", where=printable(path), why=why, hint="names: [cat, dog]")
    folders, names = _named_folders(content, path), _names(content, path)
    if not folders:
        why = f"it has neither train nor val nor test, and no {IMAGES}/ is beside it"
        raise DataError("the file names no images", where=printable(path), why=why, hint="train: images/train")
    return _sets(path.parent, folders, names, f"YOLO, {path.name}")


def _settings(path: Path) -> Any:
    try:
        return read_yaml(path)
    except (OSError, UsageError) as error:
        what = error.what if isinstance(error, UsageError) else "cannot read the file"
        why = error.why if isinstance(error, UsageError) else str(error)
        raise DataError(what, where=printable(path), why=why, hint="names: [cat, dog]") from error


def _names(content: dict[Any, Any], path: Path) -> Names:
    """The name of each class index: a list, or a mapping from 0 on. Raises DataError."""
    given = content["names"]
    pairs = dict(enumerate(given)) if isinstance(given, list) else given
    if not isinstance(pairs, dict) or not all(isinstance(key, int) and key >= 0 for key in pairs):
        raise DataError("names is not a list of names", where=printable(path), why=f"{str(given)[:60]!r}")
    names = {key: class_name(str(name).strip()) for key, name in sorted(pairs.items())}
    if len(set(names.values())) < len(names) or "" in names.values():
        shown = ", ".join(map(repr, list(names.values())[:20]))
        raise DataError("a name of a class is empty or stands twice", where=printable(path), why=shown)
    return names


def _named_folders(content: dict[Any, Any], path: Path) -> dict[str, list[Path]]:
    """The folders or lists of images of each set; none where nothing says. Raises DataError for what is not there."""
    bases = [path.parent]
    if isinstance(content.get("path"), str):
        bases.insert(0, path.parent / content["path"])
    found: dict[str, list[Path]] = {}
    for split, words in SPLITS.items():
        given = next((content[word] for word in words if content.get(word)), None)
        if given is None:
            continue
        texts = given if isinstance(given, list) else [given]
        found[split] = [_place(text, bases, path, split) for text in texts]
    return found or _folders(path.parent)


def _place(text: object, bases: list[Path], path: Path, split: str) -> Path:
    """Where images are: below the settings, even where `../` leads one folder too high, as exports have it."""
    if not isinstance(text, str):
        raise DataError(f"{split} is not a folder", where=printable(path), why=f"it is {str(text)[:60]!r}")
    tails = [text, *([text.removeprefix("../")] if text.startswith("../") else [])]
    places = [base / tail for base in bases for tail in tails]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        why = f"{printable(text)} is not in {', '.join(printable(base) for base in bases)}"
        raise DataError(f"the images of {split} are not there", where=printable(path), why=why)
    return found


def _folders(root: Path) -> dict[str, list[Path]]:
    """Folders of images by split, as they usually lie: images/train, train/images, or images alone."""
    below = {entry.name.lower(): entry for entry in entries(root) if entry.is_dir()}
    found: dict[str, list[Path]] = {}
    within = {entry.name.lower(): entry for entry in entries(below[IMAGES])} if IMAGES in below else {}
    for split, words in SPLITS.items():
        places = [within[w] for w in words if w in within and within[w].is_dir()]
        places += [below[w] / IMAGES for w in words if w in below and (below[w] / IMAGES).is_dir()]
        if places:
            found[split] = places[:1]
    return found or ({"train": [below[IMAGES]]} if IMAGES in below else {})


def _labelled(folders: dict[str, list[Path]]) -> bool:
    return any(_has_labels(folder) for place in folders.values() for folder in place)


def _has_labels(images: Path) -> bool:
    folder = _beside(images / "a").parent
    return folder.is_dir() and folder != images and any(path.suffix == ".txt" for path in entries(folder))


def _listed_names(root: Path) -> Names | None:
    """The names in classes.txt; None where there is no such file."""
    path = next((p for p in (root / CLASSES, root / LABELS / CLASSES) if p.is_file()), None)
    if path is None:
        return None
    lines = read_regular(path, MOST_BYTES).decode("utf-8-sig", "replace").splitlines()
    return {index: class_name(line.strip()) for index, line in enumerate(line for line in lines if line.strip())}


def _sets(
    root: Path, folders: dict[str, list[Path]], names: Names | None, form: str
) -> tuple[dict[str, Source], list[str]]:
    gathered, outlines = {}, 0
    same = [split for split in folders if split != "train" and folders[split] == folders.get("train")]
    for split in same:  # as small examples have it
        del folders[split]
    for split, places in folders.items():
        found = Gathered(root)
        for image in sorted(path for place in places for path in _images(place)):
            outlines += _read(image, found, names)
        if not len(found.names):
            raise DataError(f"the {split} set holds no images", where=", ".join(map(printable, places)))
        gathered[split] = found
    used = {label for found in gathered.values() for label in found.labels}
    order = sorted(used, key=int) if names is None else list(names.values())
    raws = {split: found.cut((1.0, 1.0), ROUNDING) for split, found in gathered.items()}
    sets, notes = settled(raws, form, order)
    notes += [f"{outlines:,} outlines: the box around each is taken"] if outlines else []
    notes += [f"{split} is the training set again, which cannot measure: left out" for split in same]
    return {split: BoxedFiles(replace(found, shares=True)) for split, found in sets.items()}, notes


def _images(place: Path) -> Iterator[Path]:
    """The images in a folder and below, or those that a list names, one a line."""
    if place.is_dir():
        for entry in entries(place):
            if entry.is_dir() and not entry.name.startswith("."):
                yield from _images(entry)
            elif is_image(entry):
                yield entry
        return
    for line in read_regular(place, MOST_BYTES).decode("utf-8-sig", "replace").splitlines():
        if line.strip():
            yield place.parent / line.strip()


def _beside(image: Path) -> Path:
    """The text file of an image: below labels/ where the image is below images/, else beside it."""
    parts = list(image.parts)
    places = [i for i, part in enumerate(parts[:-1]) if part.lower() == IMAGES]
    if places:
        parts[places[-1]] = LABELS
    return Path(*parts).with_suffix(".txt")


def _read(image: Path, found: Gathered, names: Names | None) -> int:
    """Add an image and its boxes; gives how many of them are outlines. Raises DataError, naming file and line."""
    path = _beside(image)
    root = found.root.resolve()
    within = image.resolve().is_relative_to(root)
    name = image.resolve().relative_to(root).as_posix() if within else str(image)
    found.image(name, (0, 0), path if path.is_file() else image)
    if not path.is_file():
        return 0
    data = read_regular(path, MOST_BYTES)
    refuse_pointer(data[:64], printable(path))
    outlines = 0
    for number, line in enumerate(data.decode("utf-8-sig", "replace").splitlines(), 1):
        if line.strip():
            values = _numbers(line, path, number)
            outlines += len(values) >= FEWEST_OF_OUTLINE
            found.box(_label(values[0], names, path, number), _corners(values, path, number), f"{path.name}:{number}")
    return outlines


def _numbers(line: str, path: Path, number: int) -> list[float]:
    """The numbers of a line: five, or those of an outline. Raises DataError."""
    try:
        values = [float(word) for word in line.split()]
    except ValueError as error:
        raise _bad(path, number, "the line holds something beside numbers", str(error)[:80]) from error
    if not all(map(math.isfinite, values)):
        raise _bad(path, number, "the line holds what is not a number", line.strip()[:80])
    if len(values) != COLUMNS and (len(values) < FEWEST_OF_OUTLINE or len(values) % 2 == 0):
        why = "five belong there: class, centre x, centre y, width, height"
        raise _bad(path, number, f"the line has {len(values)} columns", why)
    return values


def _label(value: float, names: Names | None, path: Path, number: int) -> str:
    if value != int(value) or value < 0:
        raise _bad(path, number, f"class {value:g} is not a whole number from 0 on")
    if names is None:
        return str(int(value))
    if int(value) not in names:
        raise _bad(path, number, f"class {int(value)} has no name", f"named are {min(names)} to {max(names)}")
    return names[int(value)]


def _corners(values: Sequence[float], path: Path, number: int) -> tuple[float, float, float, float]:
    """The box of a line as shares of the image, xyxy. Raises DataError for what is not in shares."""
    if min(values[1:]) < -SLACK or max(values[1:]) > 1 + SLACK:
        why = f"it holds {max(values[1:], key=abs):g}: centre and sides are shares of the image, 0 to 1, not pixels"
        raise _bad(path, number, "the box is not normalised", why)
    if len(values) == COLUMNS:
        x, y, width, height = values[1:]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    across, down = values[1::2], values[2::2]
    return min(across), min(down), max(across), max(down)


def _bad(path: Path, number: int, what: str, why: str = "") -> DataError:
    return DataError(what, where=f"{printable(path)}, line {number:,}", why=why)

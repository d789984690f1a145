"""Images with boxes in XML files, as PASCAL VOC has them: one file an image.

    Annotations/a.xml  JPEGImages/a.jpg  ImageSets/Main/train.txt ...   the sets by lists of stems
    train/a.xml  train/a.jpg  valid/...                                 the sets by folders
    annotations/a.xml  images/a.png                                     one set

Corners count pixels from 1 and the last one belongs to the box (devkit of VOC 2012), unless some corner is 0: then they
are coordinates as other formats have them. What the training set has is so in all. Objects marked as difficult are
kept, to be ignored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msresnet.data.boxed import Annotations, BoxedFiles
from msresnet.data.decode import printable, read_regular, refuse_pointer
from msresnet.data.names import class_name
from msresnet.data.sample import Source
from msresnet.data.sources.annotated import Gathered, settled
from msresnet.data.sources.folder import SPLITS, entries, is_image, split_folders
from msresnet.errors import DataError, ResourceError

MOST_BYTES = 16 << 20
IMAGES, RECORDS = ("jpegimages", "images"), ("annotations", "xml", "labels")
FARTHEST = 1_000_000
"""Pixels; no corner lies farther out."""
_ORIGINS = {True: "pixels from 1 on", False: "coordinates from 0 on, not as pixels from 1 on"}


@dataclass(frozen=True)
class Object:
    """One object as its file has it: name, corners, and whether it is marked as difficult."""

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool


@dataclass(frozen=True)
class Record:
    """One file: the image's name as it says it, its (H, W) or (0, 0), and its objects."""

    image: str
    size: tuple[int, int]
    objects: list[Object]


class VocFiles(BoxedFiles):
    """Images with an XML file each; `from_one` says that their corners were taken as pixels from 1 on."""

    def __init__(self, found: Annotations, from_one: bool) -> None:
        super().__init__(found)
        self.from_one = from_one


def voc_sets(root: Path, like: Source | None = None) -> tuple[dict[str, Source], list[str]]:
    """The sets of images with XML files below a folder, by split, and what was inferred; none where it holds no such.

    Corners count from where those of `like` do, if it is of such files too.

    Raises DataError, naming file and object; ResourceError without the extra.
    """
    found = _places(root)
    if not found:
        return {}, []
    notes: list[str] = []
    read = {split: list(_read(images, _once(records, split, notes))) for split, (images, records) in found.items()}
    notes += _left_aside(found, read)
    if isinstance(like, VocFiles):
        from_one = like.from_one
        notes.append(f"as in the training set, corners are taken as {_ORIGINS[from_one]}")
    else:
        from_one = all(min(o.corners) >= 1 for part in read.values() for *_, record in part for o in record.objects)
        notes.append(f"{'no' if from_one else 'some'} corner is 0: corners are taken as {_ORIGINS[from_one]}")
    sets = {split: _gathered(root, records, from_one).cut() for split, records in read.items()}
    annotated, more = settled(sets, "VOC annotations")
    return {split: VocFiles(part, from_one) for split, part in annotated.items()}, more + notes


def _places(root: Path) -> dict[str, tuple[Path, list[Path]]]:
    """For each set the folder of its images, and its XML files."""
    below = {entry.name.lower(): entry for entry in entries(root) if entry.is_dir()}
    images = next((below[name] for name in IMAGES if name in below), None)
    records = next((below[name] for name in RECORDS if name in below), None)
    if images is not None and records is not None:
        files = _files(records)
        return _listed(root, images, records) or ({"train": (images, files)} if files else {})
    sets = {split: _files(folder) for split, folder in split_folders(root).items()}
    if any(sets.values()):
        return {split: (split_folders(root)[split], files) for split, files in sets.items()}
    found = {split: _places(folder) for split, folder in split_folders(root).items()}
    if found and all(found.values()):
        return {split: next(iter(places.values())) for split, places in found.items()}
    return {"train": (root, files)} if (files := _files(root)) else {}


def _listed(root: Path, images: Path, records: Path) -> dict[str, tuple[Path, list[Path]]]:
    """The sets that ImageSets/Main lists; trainval where there is no train."""
    lists = {path.stem.lower(): path for path in (root / "ImageSets" / "Main").glob("*.txt")}
    found: dict[str, tuple[Path, list[Path]]] = {}
    for split, names in SPLITS.items():
        name = next((n for n in (*names, "trainval") if n in lists and (split == "train" or n != "trainval")), None)
        if name is not None:
            found[split] = images, [records / f"{stem}.xml" for stem in _stems(lists[name])]
    return found if "train" in found else {}


def _stems(path: Path) -> list[str]:
    """The first word of each line: some lists have a second, which says whether a class is there."""
    lines = read_regular(path, MOST_BYTES).decode("utf-8", "replace").splitlines()
    stems = [line.split()[0] for line in lines if line.strip()]
    for number, stem in enumerate(stems, 1):
        if Path(stem).name != stem:
            raise DataError("a list of images names a path", where=f"{printable(path)}, entry {number}", why=stem[:60])
    return stems


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.xml") if not path.name.startswith("."))


Entry = tuple[Path, Path, Record]
"""An image, its XML file, and what that says."""


def _once(records: list[Path], split: str, notes: list[str]) -> list[Path]:
    """The same files, each once."""
    found = list(dict.fromkeys(records))
    if twice := len(records) - len(found):
        notes.append(f"{split}: {twice:,} images are listed again and read once")
    return found


def _read(images: Path, records: list[Path]) -> Iterator[Entry]:
    """Each record with its image. Raises DataError for a record without an image."""
    there = {path.stem: path for path in entries(images) if is_image(path)}
    for path in records:
        record = read_record(path)
        image = there.pop(path.stem, None) or images / Path(record.image.replace("\\", "/")).name
        if not record.image and not image.is_file():
            raise DataError("an XML file without an image", where=printable(path), why=f"{path.stem} has none")
        yield image, path, record


def _left_aside(places: dict[str, tuple[Path, list[Path]]], read: dict[str, list[Entry]]) -> list[str]:
    """For each folder of images, how many of them no XML file describes."""
    used = {image for part in read.values() for image, *_ in part}
    found = []
    for images, records in {images: files[0].parent for images, files in places.values() if files}.items():
        others = [path for path in entries(images) if is_image(path) and path not in used]
        if alone := sum(not (records / f"{path.stem}.xml").is_file() for path in others):
            found.append(f"{alone:,} images without an XML file were left aside")
    return found


def _gathered(root: Path, records: list[Entry], from_one: bool) -> Gathered:
    found = Gathered(root)
    for image, path, record in records:
        found.image(image.relative_to(root).as_posix(), record.size, path)
        for number, item in enumerate(record.objects, 1):
            left, top, right, bottom = item.corners
            if from_one and right > left and bottom > top:  # a box of one pixel is a slip of the hand
                left, top = left - 1, top - 1
            found.box(item.name, (left, top, right, bottom), f"{path.name}, object {number}", item.difficult)
    return found


def read_record(path: Path) -> Record:
    """What an XML file says. Raises DataError, naming the object; ResourceError without the extra."""
    tree = _parsed(path)
    size = tuple(_side(tree.findtext(f"size/{axis}")) for axis in ("height", "width"))
    objects = [_object(element, path, number) for number, element in enumerate(tree.findall("object"), 1)]
    return Record((tree.findtext("filename") or "").strip(), (size[0], size[1]) if all(size) else (0, 0), objects)


def _parsed(path: Path) -> Any:
    """The root element. Entities are never expanded, and document types are refused."""
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import ParseError, fromstring
    except ImportError as error:
        hint = 'pip install "msresnet[detect]"'
        raise ResourceError("VOC annotations need defusedxml", why=str(error), hint=hint) from error
    data, where = read_regular(path, MOST_BYTES), printable(path)
    refuse_pointer(data[:64], where)
    try:
        tree = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        why = f"it declares what annotations never need: {type(error).__name__}"
        raise DataError("the XML may be hostile", where=where, why=why) from error
    except (ParseError, ValueError, LookupError) as error:  # LookupError: an encoding that nobody knows
        raise DataError("the file is not XML", where=where, why=str(error)[:200], hint="is it whole?") from error
    if tree.tag != "annotation":
        raise DataError("the XML is not a VOC annotation", where=where, why=f"its root is {tree.tag[:40]!r}")
    return tree


def _object(element: Any, path: Path, number: int) -> Object:
    where = f"{printable(path)}, object {number}"
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DataError("an object has no name", where=where)
    texts = [element.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
    corners = [_number(text) for text in texts]
    if any(value is None for value in corners):
        why = f"xmin, ymin, xmax, ymax are {', '.join('not there' if t is None else repr(t[:20]) for t in texts)}"
        raise DataError("an object has no box", where=where, why=why)
    left, top, right, bottom = (float(value) for value in corners if value is not None)
    if right < left or bottom < top:
        why = f"{left:g}, {top:g} to {right:g}, {bottom:g}: the second corner is above or left of the first"
        raise DataError("a box is turned inside out", where=where, why=why)
    difficult = (element.findtext("difficult") or "0").strip()
    return Object(class_name(name), (left, top, right, bottom), difficult not in ("0", ""))


def _number(text: str | None) -> float | None:
    """A corner; None for what is none."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) <= FARTHEST else None


def _side(text: str | None) -> int:
    """Pixels; 0 for what is not a number of them, as some tools write."""
    value = _number(text)
    return int(value) if value is not None and value >= 1 and value == int(value) else 0

"""Files of COCO instances: images, categories, and a box for each object.

Boxes are read once into absolute xyxy pixels (x right, y down, from the upper left corner), cut at the image's edges.
The format: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from msresnet.boxes import from_xywh
from msresnet.data.decode import printable, read_regular, refuse_pointer
from msresnet.data.names import Names, below, class_name, spread
from msresnet.data.sources.annotated import cut
from msresnet.data.sources.folder import SPLITS
from msresnet.errors import DataError

MOST_BYTES = 2 << 30
MOST_SIDE = 1_000_000
"""Pixels; no image is wider or higher."""
PROBES = 20
"""Images that are looked for in each folder where they may be."""
ROBOFLOW = "_annotations.coco.json"
_FILE = re.compile(r"(?:instances_)?(?P<split>[a-z]+)(?:[^a-z].*)?")
_BEGINNING, LOOKED_AT = re.compile(rb'"(?:images|annotations|categories)"\s*:\s*\[\s*\{'), 1 << 16
"""A key that files of instances have, and in how many bytes it is looked for."""
_UNREAD = ("segmentation", "keypoints", "extra", "attributes")
"""Dropped while the file is parsed: outlines take ten times the memory of everything else."""


@dataclass(frozen=True)
class Coco:
    """What a file of instances says, of N images and M boxes.

    Attributes:
        path: of the file.
        classes: the categories' names, by ascending id.
        image_ids: (N,) as texts.
        files: (N,) relative paths.
        sizes: (N, 2) H and W in pixels.
        box_ids: (M,) as texts.
        images: (M,) which image a box lies in.
        targets: (M,) class index of each box.
        boxes: (M, 4) xyxy in absolute pixels, within the image, of some area.
        crowd: (M,) whether a box is around a crowd, or marked to be ignored.
        notes: what was cut or left out, in words.
    """

    path: Path
    classes: tuple[str, ...]
    image_ids: Names
    files: Names
    sizes: npt.NDArray[np.int64]
    box_ids: Names
    images: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    crowd: npt.NDArray[np.bool_]
    notes: list[str]


def read_coco(path: Path) -> Coco:
    """The images, categories and boxes in a file of instances.

    Boxes are cut at the image's edges; those that leave nothing are left out; both are counted in the notes.

    Raises DataError, naming the image's, the category's or the annotation's id and the key.
    """
    content = _parse(path)
    parts = [_list(content, key, path) for key in ("images", "categories", "annotations")]
    images, categories, annotations = (_Records(path, kind, part) for kind, part in zip(_KINDS, parts, strict=True))
    files, sizes = _images(images)
    place, classes = _categories(categories)
    found = _boxes(annotations, images.ids, place)
    limits = sizes[found.images].astype(np.float64)
    found.boxes[:], kept, notes = cut(found.boxes, limits, found.ids, "annotation ")
    names = Names(key for key, keep in zip(found.ids, kept, strict=True) if keep)
    return Coco(
        path, classes, Names(map(str, images.ids)), files, sizes,
        names, found.images[kept], found.targets[kept], found.boxes[kept], found.crowd[kept], notes,
    )  # fmt: skip


def coco_files(folder: Path) -> dict[str, Path]:
    """The files of instances below a folder, by split; empty when there are none.

    They are `annotations/instances_{train,val}*.json` as COCO has them, `train/_annotations.coco.json` as Roboflow
    does, or the same names in the folder itself; a single file of any other name, there or in `annotations`, is of the
    training set if it begins like one. Raises DataError where two files claim to be the same split, or none says which.
    """
    found: dict[str, list[Path]] = {}
    for split, names in SPLITS.items():
        found[split] = [p for name in names if (p := folder / name / ROBOFLOW).is_file()]
    candidates = [p for p in sorted((folder / "annotations").glob("*.json")) if p.is_file()]
    marked = [p for p in candidates if p.name.startswith("instances_")]
    candidates = (marked or candidates) + [p for p in sorted(folder.glob("instances_*.json")) if p.is_file()]
    for path in candidates:
        if split_name := _split(path):
            found[split_name].append(path)
    for split, paths in found.items():
        if len(paths) > 1:
            raise DataError(
                f"several files hold the {split} set",
                where=printable(folder),
                why=", ".join(printable(p.relative_to(folder)) for p in paths[:5]),
                hint="name them: --data TRAIN.json --val-data VAL.json",
            )
    chosen = {split: paths[0] for split, paths in found.items() if paths}
    if chosen:
        return chosen
    if (folder / ROBOFLOW).is_file():
        return {"train": folder / ROBOFLOW}
    others = [p for place in (folder / "annotations", folder) for p in sorted(place.glob("*.json")) if _is_coco(p)]
    if len(others) > 1:
        raise DataError(
            "several files of instances, and no name says of which set they are",
            where=printable(folder),
            why=", ".join(printable(p.relative_to(folder)) for p in others[:5]),
            hint="name them: --data TRAIN.json --val-data VAL.json",
        )
    return {"train": others[0]} if others else {}


def _is_coco(path: Path) -> bool:
    """Whether a file can be read and begins like one of instances."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return _BEGINNING.search(file.read(LOOKED_AT)) is not None
    except OSError:
        return False


def image_folder(coco: Coco) -> Path:
    """Where the images of a file are: beside it, or in a folder of a usual name. Raises DataError where none is."""
    base = coco.path.parent
    stem = coco.path.stem.removeprefix("instances_")
    split = _split(coco.path)
    names = [stem, *(SPLITS[split] if split else ())]
    roots = [base, base.parent] if base.name in ("annotations", "labels") else [base]
    places = [p for root in roots for p in (root, *(root / n for n in names), *(root / "images" / n for n in names))]
    places += [root / "images" for root in roots]
    probes = [coco.files[i] for i in spread(len(coco.files), PROBES)]
    hits = [sum(_is_there(place / name) for name in probes) for place in places]
    if probes and not max(hits):
        raise DataError(
            "the images are not there",
            where=printable(coco.path),
            why=f"{printable(probes[0])} is in none of {', '.join(printable(p) for p in places if p.is_dir())}",
            hint=f"put them into {printable(roots[-1] / 'images')}",
        )
    return places[hits.index(max(hits))] if probes else base


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that cannot be
        return False


def _split(path: Path) -> str | None:
    found = _FILE.fullmatch(path.stem.lower())
    return next((s for s, names in SPLITS.items() if found and found["split"] in names), None)


_KINDS = ("image", "category", "annotation")


def _parse(path: Path) -> dict[str, Any]:
    data = read_regular(path, MOST_BYTES)
    where = printable(path)
    refuse_pointer(data[:64], where)
    try:
        content = json.loads(data, object_hook=_slim)
    except RecursionError as error:
        raise DataError("the JSON is nested too deep", where=where) from error
    except ValueError as error:  # no JSON, no UTF-8, a number of thousands of digits
        why = f"{error}"[:200] + (f"; the file ends after {len(data):,} bytes" if "char" in str(error) else "")
        raise DataError("the file is not JSON", where=where, why=why, hint="is it whole?") from error
    if not isinstance(content, dict):
        raise DataError("the file holds no COCO instances", where=where, why="it is not a JSON object")
    return content


def _slim(record: dict[str, Any]) -> dict[str, Any]:
    for key in _UNREAD:
        record.pop(key, None)
    return record


def _list(content: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    value = content.get(key)
    if not isinstance(value, list):
        raise DataError(
            f"the file holds no list of {key}",
            where=f"{printable(path)}, key {key!r}",
            why=f"its keys are {', '.join(map(repr, list(content)[:8]))}" if content else "it is empty",
            hint="COCO instances: images, annotations and categories",
        )
    return value


class _Records:
    """The records of one kind, with ids that are all different."""

    def __init__(self, path: Path, kind: str, records: Sequence[object]) -> None:
        self.path, self.kind = path, kind
        self.ids: dict[int | str, int] = {}
        self.records: list[dict[str, Any]] = []
        for place, record in enumerate(records):
            if not isinstance(record, dict):
                raise self.bad(f"number {place + 1}", "it is not a JSON object")
            key = record.get("id")
            if not _is_id(key):
                raise self.bad(f"number {place + 1}", f"its id is {_short(key)}", "an id is a whole number or a text")
            if key in self.ids:
                raise self.bad(f"id {key}", "several have this id")
            self.ids[key] = place
            self.records.append(record)

    def bad(self, which: object, what: str, why: str = "") -> DataError:
        """The error for one record."""
        return DataError(f"{self.kind} {printable(str(which)[:60])}: {what}", where=printable(self.path), why=why)

    def text(self, record: dict[str, Any], key: str) -> str:
        """A text that is not empty."""
        value = record.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.bad(f"id {record['id']}", f"key {key!r} is {_short(value)}", "a text belongs there")
        return value


def _is_id(key: object) -> TypeGuard[int | str]:
    return isinstance(key, int | str) and not isinstance(key, bool)


def _short(value: object) -> str:
    return "not there" if value is None else printable(repr(value)[:60])


def _images(images: _Records) -> tuple[Names, npt.NDArray[np.int64]]:
    """Paths (N,) and sizes (N, 2) as H, W."""
    files = Names()
    sizes = np.zeros((len(images.records), 2), np.int64)
    for place, record in enumerate(images.records):
        name = below(images.text(record, "file_name"))
        if name is None:
            why = "a path is relative and stays below its folder"
            raise images.bad(f"id {record['id']}", f"key 'file_name' is {_short(record['file_name'])}", why)
        files.append(name)
        for axis, key in enumerate(("height", "width")):
            side = record.get(key)
            if not _finite(side) or not 1 <= side <= MOST_SIDE or side != int(side):
                raise images.bad(f"id {record['id']}", f"key {key!r} is {_short(side)}", "pixels belong there")
            sizes[place, axis] = int(side)
    return files, sizes


def _categories(categories: _Records) -> tuple[dict[int | str, int], tuple[str, ...]]:
    """Class index of each category's id, which may have gaps, and the names."""
    ids = sorted(categories.ids, key=lambda key: (isinstance(key, str), key))
    names = [class_name(categories.text(categories.records[categories.ids[key]], "name").strip()) for key in ids]
    for place, name in enumerate(names):
        if names.index(name) != place:
            raise categories.bad(f"id {ids[place]}", f"another one is called {name!r} too", "classes are told by name")
    return {key: place for place, key in enumerate(ids)}, tuple(names)


@dataclass(frozen=True)
class _Boxes:
    """Columns of the annotations: as `Coco`, before anything is left out."""

    ids: Names
    images: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    crowd: npt.NDArray[np.bool_]


def _boxes(annotations: _Records, image_ids: dict[int | str, int], category_ids: dict[int | str, int]) -> _Boxes:
    """The annotations' columns. Raises DataError, naming the annotation and its key."""
    count = len(annotations.records)
    images, targets = np.zeros(count, np.int64), np.zeros(count, np.int64)
    boxes, crowd = np.zeros((count, 4)), np.zeros(count, np.bool_)
    for row, record in enumerate(annotations.records):
        images[row] = _known(annotations, record, "image_id", image_ids)
        targets[row] = _known(annotations, record, "category_id", category_ids)
        boxes[row] = _place(annotations, record)
        crowd[row] = bool(record.get("iscrowd")) or bool(record.get("ignore"))
    return _Boxes(Names(map(str, annotations.ids)), images, targets, from_xywh(boxes), crowd)


def _known(annotations: _Records, record: dict[str, Any], key: str, ids: dict[int | str, int]) -> int:
    value = record.get(key)
    if not _is_id(value) or value not in ids:
        kind = "image" if key == "image_id" else "category"
        raise annotations.bad(f"id {record['id']}", f"key {key!r} is {_short(value)}", f"there is no such {kind}")
    return ids[value]


def _place(annotations: _Records, record: dict[str, Any]) -> list[int | float]:
    """The box of an annotation, x y w h. Raises DataError."""
    box = record.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_finite, box)):
        why = "four finite numbers belong there: x, y, width, height"
        raise annotations.bad(f"id {record['id']}", f"key 'bbox' is {_short(box)}", why)
    if box[2] < 0 or box[3] < 0:
        why = "the third and fourth number are width and height"
        raise annotations.bad(f"id {record['id']}", f"key 'bbox' is {_short(box)}", why)
    return box


def _finite(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 10**15

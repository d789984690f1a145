"""One truth about a few images, written as every format has it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import hostile
from msresnet.boxes import Boxes

HEIGHT, WIDTH = 40, 60
NAMES = ("cat", "dog")
Truth = Mapping[str, Boxes]
"""By the image's stem. Corners are whole numbers, so that every format can hold them."""


def truth(count: int = 6, seed: int = 0) -> dict[str, Boxes]:
    """Boxes of so many images: none in the second, both classes in the first."""
    random = np.random.default_rng(seed)
    found = {}
    for number in range(count):
        boxes = 0 if number == 1 else int(random.integers(2, 5))
        corner, side = random.integers(0, (WIDTH - 10, HEIGHT - 10), (boxes, 2)), random.integers(3, 11, (boxes, 2))
        found[f"{number:02d}"] = Boxes.of(np.concatenate([corner, corner + side], 1), np.arange(boxes) % 2)
    return found


def images(folder: Path, some: Truth, form: str = "PNG") -> None:
    """An image for each."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem in some:
        pixels = hostile.random_pixels(HEIGHT, WIDTH, 3, seed=int(stem))
        (folder / f"{stem}.{form.lower()}").write_bytes(hostile.encode(pixels, form))


def coco(root: Path, some: Truth, split: str = "train") -> Path:
    """annotations/instances_SPLIT.json and images/SPLIT/, with gaps in all ids."""
    images(root / "images" / split, some)
    rows: list[dict[str, Any]] = []
    for number, boxes in enumerate(some.values()):
        for (left, top, right, bottom), kind in zip(boxes.xyxy.tolist(), boxes.classes.tolist(), strict=True):
            box = {"bbox": [left, top, right - left, bottom - top], "category_id": 7 * kind + 2, "iscrowd": 0}
            rows.append({"id": 3 * len(rows) + 1, "image_id": 5 * number + 4, **box})
    sides = {"height": HEIGHT, "width": WIDTH}
    content = {
        "images": [{"id": 5 * i + 4, "file_name": f"{stem}.png", **sides} for i, stem in enumerate(some)],
        "categories": [{"id": 7 * kind + 2, "name": name} for kind, name in enumerate(NAMES)],
        "annotations": rows,
    }
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def voc_record(stem: str, boxes: Boxes, size: tuple[int, int] = (HEIGHT, WIDTH), more: str = "") -> str:
    """One XML file; corners count pixels from 1, and the last one belongs to the box."""
    objects = "".join(
        f"<object><name>{NAMES[kind]}</name><difficult>{int(crowd)}</difficult><bndbox><xmin>{left + 1:g}</xmin>"
        f"<ymin>{top + 1:g}</ymin><xmax>{right:g}</xmax><ymax>{bottom:g}</ymax></bndbox></object>"
        for (left, top, right, bottom), kind, crowd in zip(boxes.xyxy, boxes.classes, boxes.crowd, strict=True)
    )
    sides = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{stem}.png</filename>{sides}{objects}{more}</annotation>"


def voc(root: Path, some: Truth, split: str = "train") -> Path:
    """Annotations/, JPEGImages/ and a list of the set."""
    images(root / "JPEGImages", some)
    for name in ("Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for stem, boxes in some.items():
        (root / "Annotations" / f"{stem}.xml").write_text(voc_record(stem, boxes))
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    path.write_text("".join(f"{stem}\n" for stem in some))
    return path


def yolo_lines(boxes: Boxes) -> str:
    """Class, centre, width and height as shares of the image."""
    return "".join(
        f"{kind} {(left + right) / 2 / WIDTH:.9f} {(top + bottom) / 2 / HEIGHT:.9f} {(right - left) / WIDTH:.9f} "
        f"{(bottom - top) / HEIGHT:.9f}\n"
        for (left, top, right, bottom), kind in zip(boxes.xyxy.tolist(), boxes.classes, strict=True)
    )


def yolo(root: Path, some: Truth, split: str = "train") -> Path:
    """images/SPLIT/ and labels/SPLIT/, none where an image has no box, and data.yaml."""
    images(root / "images" / split, some)
    (root / "labels" / split).mkdir(parents=True, exist_ok=True)
    for stem, boxes in some.items():
        if len(boxes):
            (root / "labels" / split / f"{stem}.txt").write_text(yolo_lines(boxes))
    path = root / "data.yaml"
    splits = "".join(f"{folder.name}: images/{folder.name}\n" for folder in sorted((root / "images").iterdir()))
    path.write_text(f"path: .\n{splits}nc: 2\nnames:\n  0: cat\n  1: dog\n")
    return path


def mot(root: Path, some: Truth, split: str = "train") -> Path:
    """One video, SPLIT/one; every box is an object of its own."""
    folder = root / split / "one"
    images(folder / "img1", {f"{number:06d}": boxes for number, boxes in enumerate(some.values(), 1)})
    (folder / "gt").mkdir()
    lines = [
        f"{frame},{10 * frame + row},{left + 1:g},{top + 1:g},{right - left:g},{bottom - top:g},1,{kind + 1},1\n"
        for frame, boxes in enumerate(some.values(), 1)
        for row, ((left, top, right, bottom), kind) in enumerate(zip(boxes.xyxy, boxes.classes, strict=True))
    ]
    path = folder / "gt" / "gt.txt"
    path.write_text("".join(lines))
    (folder / "gt" / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES))
    sides = f"imWidth={WIDTH}\nimHeight={HEIGHT}"
    (folder / "seqinfo.ini").write_text(f"[Sequence]\nname=one\nframeRate=25\nseqLength={len(some)}\n{sides}\n")
    return path


FORMATS: dict[str, Callable[..., Path]] = {"coco": coco, "voc": voc, "yolo": yolo, "mot": mot}

"""What is wrong with boxes, or unusual: twice on the same object, tiny, of absent classes. M boxes, K classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.boxes import Boxes, areas
from msresnet.data.duplicates import Groups
from msresnet.data.findings import UNBALANCED, Finding, first_of
from msresnet.data.preprocess import Preprocess
from msresnet.data.survey import Survey
from msresnet.data.traits import GOOD
from msresnet.errors import some

SMALL, LARGE = 32**2, 96**2
"""Square pixels: boxes below are small, above large, as COCO has it."""
TINY = 4
"""Pixels of the network's input: a side below can hardly be seen."""
MANY = 100
"""Boxes of a class in one image beyond which figures do not look."""
WHOLE = 0.95
"""Share of an image from which a box is about all of it."""
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Objects:
    """The boxes of all images that can be read.

    Args:
        images: which image of the survey each lies in (M,).
        boxes: in its own pixels.
        sizes: H and W of its image (M, 2).
        roles: which set it is of (M,).
    """

    images: Ints
    boxes: Boxes
    sizes: Ints
    roles: Ints

    def counts(self, role: int, classes: int) -> Ints:
        """Boxes of each class in a set (K,), crowds aside."""
        return np.bincount(self.boxes.classes[(self.roles == role) & ~self.boxes.crowd], minlength=classes)


def objects_of(seen: Survey) -> Objects:
    """The boxes of a survey's images."""
    good = np.flatnonzero(seen.traits["state"] == GOOD)
    parts = []
    for index in good.tolist():
        _, source, within = seen.find(index)
        parts.append(source.truth(within))
    images = np.repeat(good, [len(part) for part in parts]).astype(np.int64)
    sizes = np.stack([seen.traits[side][images].astype(np.int64) for side in ("height", "width")], 1)
    return Objects(images, Boxes.joined(parts), sizes, seen.roles[images])


def box_findings(
    seen: Survey, objects: Objects, classes: Sequence[str], preprocess: Preprocess, equal: Groups
) -> list[Finding]:
    """What was found about the boxes of a survey whose equal images are known."""
    return [
        *_twice(seen, objects, classes),
        *_torn(seen, objects, equal),
        *_tiny(seen, objects, classes, preprocess),
        *_absent(seen, objects, classes),
        *_unusual(seen, objects, classes),
    ]


def counts_of(seen: Survey, objects: Objects, classes: Sequence[str]) -> list[dict[str, Any]]:
    """For each class its name and the number of boxes in each set."""
    table = {name: objects.counts(role, len(classes)) for role, name in enumerate(seen.sets)}
    return [
        {"class": label, **{name: int(counts[index]) for name, counts in table.items()}}
        for index, label in enumerate(classes)
    ]


def facts_of(seen: Survey, objects: Objects) -> dict[str, Any]:
    """How many boxes there are, of which sizes, and in how many images there is none."""
    size, sides = areas(objects.boxes.xyxy), np.sqrt(areas(objects.boxes.xyxy))
    good = int((seen.traits["state"] == GOOD).sum())
    return {
        "boxes": len(size),
        "crowds": int(objects.boxes.crowd.sum()),
        "small": int((size < SMALL).sum()),
        "medium": int(((size >= SMALL) & (size <= LARGE)).sum()),
        "large": int((size > LARGE).sum()),
        "sides": [round(float(q), 1) for q in np.quantile(sides, (0, 0.5, 1))] if len(size) else [],
        "empty": good - len(np.unique(objects.images)),
        "most": int(np.bincount(objects.images).max(initial=0)) if len(size) else 0,
    }


def _items(seen: Survey, objects: Objects, classes: Sequence[str], rows: Ints) -> list[dict[str, Any]]:
    """Some of the boxes as plain values."""
    found = []
    for row in rows.tolist():
        name, source, within = seen.find(int(objects.images[row]))
        box = [round(float(value), 1) for value in objects.boxes.xyxy[row]]
        label = classes[int(objects.boxes.classes[row])]
        found.append({"split": name, "id": source.ids[within], "class": label, "box": box})
    return found


def _twice(seen: Survey, objects: Objects, classes: Sequence[str]) -> list[Finding]:
    """Boxes that are equal to the pixel: of one class, and of several."""
    places = np.concatenate([objects.images[:, None], np.rint(objects.boxes.xyxy).astype(np.int64)], 1)
    _, where, counts = np.unique(places, axis=0, return_inverse=True, return_counts=True)
    if (counts == 1).all():
        return []
    own = np.concatenate([places, objects.boxes.classes[:, None]], 1)
    _, first, at = np.unique(own, axis=0, return_index=True, return_inverse=True)
    copies = np.flatnonzero(first[at] != np.arange(len(own)))
    lowest, highest = np.full(len(counts), len(classes)), np.full(len(counts), -1)
    np.minimum.at(lowest, where, objects.boxes.classes)
    np.maximum.at(highest, where, objects.boxes.classes)
    torn = (lowest < highest)[where]
    found = []
    if len(copies):
        text = f"{some(len(copies), 'box', 'boxes')} on the very place of another of the same class"
        advice = "keep one of each: a copy can only be missed"
        found.append(Finding("copies", "warning", len(copies), text, advice, _items(seen, objects, classes, copies)))
    if torn.any():
        rows = np.flatnonzero(torn)
        text = f"{some(len(rows), 'box', 'boxes')} on the very place of one of another class"
        advice = "give each object one class"
        found.append(Finding("two-classes", "warning", len(rows), text, advice, _items(seen, objects, classes, rows)))
    return found


def _torn(seen: Survey, objects: Objects, equal: Groups) -> list[Finding]:
    """Equal images with different boxes."""
    first = np.searchsorted(objects.images, np.arange(len(seen.traits) + 1))

    def truth(index: int) -> tuple[bytes, bytes]:
        part = objects.boxes.chosen(slice(first[index], first[index + 1]))
        return part.xyxy.tobytes(), part.classes.tobytes()

    torn = [group for group in equal if len({truth(int(index)) for index in group}) > 1]
    if not torn:
        return []
    items = []
    for group in torn:
        places = [seen.find(int(index)) for index in group]
        items.append({"images": [{"split": n, "id": s.ids[within], "class": None} for n, s, within in places]})
    count = sum(map(len, torn))
    text = f"{count:,} images in {some(len(torn), 'group')} are equal, but their boxes are not"
    return [Finding("conflicts", "warning", count, text, "keep one of each group", items)]


def _tiny(seen: Survey, objects: Objects, classes: Sequence[str], preprocess: Preprocess) -> list[Finding]:
    """Boxes that are hardly to be seen in the network's input."""
    factors = np.array(preprocess.size) / np.maximum(1, objects.sizes)  # down, across
    if preprocess.resize != "squash":
        factors = np.repeat(factors.min(1, keepdims=True), 2, axis=1)
    corners = objects.boxes.xyxy
    sides = np.stack([corners[:, 3] - corners[:, 1], corners[:, 2] - corners[:, 0]], 1) * factors
    rows = np.flatnonzero((sides < TINY).any(1) & ~objects.boxes.crowd)
    if not len(rows):
        return []
    height, width = preprocess.size
    text = f"{some(len(rows), 'box', 'boxes')} with a side under {TINY} pixels in the network's {height}x{width}"
    advice = "a larger --image-size, or remove them: what cannot be seen cannot be found"
    return [Finding("tiny", "warning", len(rows), text, advice, _items(seen, objects, classes, rows))]


def _absent(seen: Survey, objects: Objects, classes: Sequence[str]) -> list[Finding]:
    """Classes without a box in a set, and those with far fewer than others."""
    names = list(seen.sets)
    table = np.array([objects.counts(role, len(classes)) for role in range(len(names))])
    found = []
    places = np.argwhere(table == 0).tolist()
    if places:
        items: list[dict[str, Any]] = [{"split": names[role], "class": classes[index]} for role, index in places]
        named = first_of([f"{item['class']} ({item['split']})" for item in items])
        advice = "add some: what a set lacks it cannot teach or measure"
        found.append(Finding("missing", "warning", len(items), f"without a box: {named}", advice, items))
    train = table[0]
    largest, smallest = int(train.max(initial=0)), int(train[train > 0].min(initial=train.max(initial=0)))
    if largest >= UNBALANCED * smallest > 0:
        rows = np.flatnonzero((train > 0) & (train * UNBALANCED <= largest)).tolist()
        items = [{"split": names[0], "class": classes[index], "count": int(train[index])} for index in rows]
        pair = classes[int(train.argmax())], classes[int(np.flatnonzero(train == smallest)[0])]
        text = f"{pair[0]} has {largest / smallest:,.0f} times as many training boxes as {pair[1]}"
        advice = "look at each class's own AP; add images that show the small ones"
        found.append(Finding("unbalanced", "warning", len(items), text, advice, items))
    return found


def _unusual(seen: Survey, objects: Objects, classes: Sequence[str]) -> list[Finding]:
    """Boxes around whole images, crowds, images with more boxes than figures look at."""
    share = areas(objects.boxes.xyxy) / np.maximum(1, objects.sizes.prod(1))
    found = []
    if len(rows := np.flatnonzero(share >= WHOLE)):
        text = f"{some(len(rows), 'box', 'boxes')} around about the whole image"
        advice = "nothing, if that is so in use too; where it is always so, labels of images are enough"
        found.append(Finding("whole", "note", len(rows), text, advice, _items(seen, objects, classes, rows)))
    keys = objects.images * len(classes) + objects.boxes.classes
    values, counts = np.unique(keys[~objects.boxes.crowd], return_counts=True)
    full = np.unique(values[counts > MANY] // len(classes))
    if len(full):
        places = [seen.find(int(index)) for index in full]
        items = [{"split": name, "id": source.ids[within], "class": None} for name, source, within in places]
        text = f"{some(len(full), 'image')} with over {MANY} boxes of one class"
        advice = f"figures look at the {MANY} surest of each: cut such images into parts"
        found.append(Finding("many", "note", len(full), text, advice, items))
    return found

"""What is wrong with data, or unusual: findings from a survey of all images, each with what to do about it.

An *error* is what training refuses; a *warning* makes training or its figures worse; a *note* is worth knowing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.data.duplicates import Groups, equal, near
from msresnet.data.findings import UNBALANCED, Finding, Level, first_of
from msresnet.data.options import PreprocessOptions
from msresnet.data.preprocess import FEW, Preprocess, choose, plan
from msresnet.data.sample import UNLABELLED
from msresnet.data.splits import Splits
from msresnet.data.survey import Survey, survey
from msresnet.data.traits import BAD, GOOD, Traits
from msresnet.data.unreadable import Unreadable
from msresnet.data.verify_boxes import box_findings, counts_of, facts_of, objects_of
from msresnet.errors import DataError, some

ENLARGED = 2
"""Times that an image may be enlarged to the network's size before it is called small."""
UNUSUAL = 2.5
"""Times that a proportion may differ from the usual one."""
FORMAT = 1


@dataclass(frozen=True)
class Report:
    """What was found in some sets.

    Args:
        classes: for each class its name and the number of images, or of boxes, in each set.
        sets: for each set the number of images, and of those that cannot be read.
        images: what the readable images are like: number, sizes, colour.
        findings: the gravest first.
        notes: what was inferred, in words.
    """

    classes: list[dict[str, Any]]
    sets: dict[str, dict[str, int]]
    images: dict[str, Any]
    findings: list[Finding]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"format": FORMAT, **asdict(self)}


def check(
    splits: Splits,
    options: PreprocessOptions,
    *,
    name: str,
    workers: int,
    on_bad: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Decode every image of all sets and say what is wrong or unusual.

    Args:
        splits: the sets, as training would get them.
        options: how training would preprocess them.
        name: of the data, under which the results are remembered.
        workers: processes that decode.
        on_bad: training's policy for unreadable images.
        progress: called with the number of images done, and of all.

    Raises ResourceError when no process can be started.
    """
    return report(survey(splits.named(), name, workers, progress), splits, options, on_bad)


def report(seen: Survey, splits: Splits, options: PreprocessOptions, on_bad: str | None = None) -> Report:
    """The findings of a survey of these sets."""
    groups = equal(seen.traits)
    alike, complete = near(seen.traits, groups)
    preprocess, reasons = _plan(seen, options)
    boxed = splits.train.boxed
    # Which classes masks show is not known without their pixels: their images are counted together.
    alone = "images with boxes" if boxed else "images with a mask"
    classes = splits.classes if splits.train.present() is not None and not boxed else (alone,)
    view = _View(seen, classes, list(seen.sets))
    found = [
        *_unreadable(view, on_bad),
        *_duplicates(view, groups),
        *_alike(view, alike),
        *([] if boxed else _classes(view)),
        *_pictures(view, preprocess, options),
    ]
    counts, images, sets = view.class_counts(), _images(seen.traits), view.set_counts()
    if boxed:
        objects = objects_of(seen)
        found += box_findings(seen, objects, splits.classes, preprocess, groups)
        counts, images = counts_of(seen, objects, splits.classes), images | facts_of(seen, objects)
        sets = {name: values | {"boxes": sum(row[name] for row in counts)} for name, values in sets.items()}
    cut = [] if complete else ["so many images share parts of their look that not all pairs of them were compared"]
    order: list[Level] = ["error", "warning", "note"]
    found.sort(key=lambda finding: order.index(finding.level))
    return Report(
        counts,
        sets,
        images,
        found,
        [*splits.notes, *reasons, *seen.notes, *cut],
    )


class _View:
    """A survey with names: what each index stands for."""

    def __init__(self, seen: Survey, classes: tuple[str, ...], names: list[str]) -> None:
        self.seen, self.classes, self.names = seen, classes, names
        self.traits, self.targets, self.roles = seen.traits, seen.targets, seen.roles
        self.good, self.bad = self.traits["state"] == GOOD, self.traits["state"] == BAD

    def image(self, index: int) -> dict[str, Any]:
        """Where an image is, and of which class."""
        name, source, within = self.seen.find(index)
        target = int(self.targets[index])
        label = None if target == UNLABELLED or source.boxed else self.classes[target]
        return {"split": name, "id": source.ids[within], "class": label}

    def images(self, indices: npt.NDArray[np.int64] | Iterable[int]) -> list[dict[str, Any]]:
        """`image` of each."""
        return [self.image(int(index)) for index in indices]

    def counts(self, role: int, chosen: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
        """Images of each class in a set (K), perhaps of some only."""
        here = (self.roles == role) & (self.targets >= 0)
        here = here if chosen is None else here & chosen
        return np.bincount(self.targets[here], minlength=len(self.classes)).astype(np.int64)

    def class_counts(self) -> list[dict[str, Any]]:
        """Name and images in each set, by class."""
        table = {name: self.counts(role) for role, name in enumerate(self.names)}
        return [
            {"class": label, **{name: int(counts[index]) for name, counts in table.items()}}
            for index, label in enumerate(self.classes)
        ]

    def set_counts(self) -> dict[str, dict[str, int]]:
        """Images and unreadable ones, by set."""
        return {
            name: {
                "images": int((self.roles == role).sum()),
                "unreadable": int((self.bad & (self.roles == role)).sum()),
            }
            for role, name in enumerate(self.names)
        }


def _plan(seen: Survey, options: PreprocessOptions) -> tuple[Preprocess, list[str]]:
    """What training would do with the images, decided as it does: from some evenly spaced ones."""
    source = next(iter(seen.sets.values()))
    if source.applied is not None:
        return choose(options, source)
    train = seen.traits[: len(source)]
    some = train[:: max(1, len(train) // FEW)]
    some = some[some["state"] == GOOD]
    sizes = {(int(t["height"]), int(t["width"])) for t in some}
    return plan(options, sizes, not some["colour"].any(), len(train))


def _unreadable(view: _View, on_bad: str | None) -> list[Finding]:
    """The images that cannot be read; an error where training would refuse the data for it."""
    lost = []
    for role, name in enumerate(view.names):
        gone = (view.counts(role) > 0) & (view.counts(role, view.good) == 0)
        lost += [{"split": name, "class": view.classes[index]} for index in np.flatnonzero(gone).tolist()]
    found: list[Finding] = []
    if lost:
        named = first_of([f"{item['class']} ({item['split']})" for item in lost])
        text = f"no image of {some(len(lost), 'class', 'classes')} can be read: {named}"
        found.append(Finding("lost", "error", len(lost), text, "mend the images, or remove the class", lost))
    if total := int(view.bad.sum()):
        refused = _refusal(view, on_bad)
        items = [view.image(i) | {"reason": view.seen.reasons[i]} for i in np.flatnonzero(view.bad).tolist()]
        verb = "cannot be read" + (f"; {refused}" if refused else "")
        text = f"{total:,} of {some(len(view.bad), 'image')} {verb}"
        way_out = ", or --on-bad skip" if on_bad is None and not lost and view.good.any() else ""
        advice = "mend or remove them" + (way_out if refused else ": training leaves them out")
        found.append(Finding("corrupt", "error" if refused else "warning", total, text, advice, items))
    return found


def _refusal(view: _View, on_bad: str | None) -> str:
    """Why training would refuse to go on with what can be read; empty where it would not."""
    judge = Unreadable({name: counts["images"] for name, counts in view.set_counts().items()}, on_bad)
    try:
        for index in np.flatnonzero(view.bad).tolist():
            name, source, within = view.seen.find(index)
            judge.add(name, within, source.ids[within], DataError(view.seen.reasons[index]))
        judge.judge()
    except DataError as error:
        return error.why or "--on-bad fail takes none"
    return ""


def _duplicates(view: _View, groups: Groups) -> list[Finding]:
    """Equal images: across sets, with different labels, and within one set."""
    roles = [set(view.roles[group].tolist()) for group in groups]
    labels = [set(view.targets[group].tolist()) - {UNLABELLED} for group in groups]
    across = [group for group, sets in zip(groups, roles, strict=True) if len(sets) > 1]
    torn = [group for group, named in zip(groups, labels, strict=True) if len(named) > 1]
    within = [group for group, sets in zip(groups, roles, strict=True) if len(group) > len(sets)]
    found = []
    if across:
        count, text = _leaked(view, across)
        advice = "remove them from one of the sets: scores on images that were learnt say nothing about new ones"
        found.append(Finding("leaks", "warning", count, text, advice, _grouped(view, across)))
    if torn:
        count = sum(map(len, torn))
        text = f"{count:,} images in {some(len(torn), 'group')} are equal, but of different classes"
        found.append(Finding("conflicts", "warning", count, text, "give each group one label", _grouped(view, torn)))
    if within:
        count = sum(map(len, groups)) - sum(map(len, roles))
        text = f"{some(count, 'image')} {'is a copy' if count == 1 else 'are copies'} of another in the same set"
        advice = "keep one of each: copies weigh more than others"
        found.append(Finding("duplicates", "warning", count, text, advice, _grouped(view, within)))
    return found


def _leaked(view: _View, groups: Groups) -> tuple[int, str]:
    """How many images an earlier set holds too, and the same in words, by the earliest such set."""
    counts: Counter[tuple[int, int]] = Counter()
    for group in groups:
        roles = view.roles[group].tolist()
        counts.update((min(roles), role) for role in roles if role != min(roles))
    held: dict[int, list[str]] = defaultdict(list)
    for (first, role), count in sorted(counts.items()):
        held[first].append(f"{count:,} of {int((view.roles == role).sum()):,} {view.names[role]} images")
    text = "; ".join(f"{view.names[first]} also holds {' and '.join(parts)}" for first, parts in held.items())
    return counts.total(), text


def _grouped(view: _View, groups: Groups) -> list[dict[str, Any]]:
    return [{"images": view.images(group)} for group in groups]


def _alike(view: _View, groups: Groups) -> list[Finding]:
    """Images that look almost like another."""
    if not groups:
        return []
    count = sum(map(len, groups))
    across = sum(len(set(view.roles[group].tolist())) > 1 for group in groups)
    torn = sum(len(set(view.targets[group].tolist())) > 1 for group in groups)
    parts = [f"{across:,} of them across sets"] * bool(across) + [f"{torn:,} of different classes"] * bool(torn)
    text = f"{count:,} images look almost alike, in {some(len(groups), 'group')}" + "".join(f", {p}" for p in parts)
    advice = "look at them: scenes that repeat belong into one set"
    level: Level = "warning" if across or torn else "note"
    return [Finding("near", level, count, text, advice, _grouped(view, groups))]


def _classes(view: _View) -> list[Finding]:
    """Classes that are absent, alone, or far smaller than others."""
    table = np.array([view.counts(role) for role in range(len(view.names))])
    return [*_missing(view, table), *_few(view, table[0])] if table.any() else []


def _missing(view: _View, table: npt.NDArray[np.int64]) -> list[Finding]:
    """Classes without an image, from the counts (sets, classes)."""
    places = np.argwhere(table == 0).tolist()
    if not places:
        return []
    items = [{"split": view.names[role], "class": view.classes[index]} for role, index in places]
    named = first_of([f"{item['class']} ({item['split']})" for item in items])
    text = f"without an image: {named}"
    advice = "add images: what a set lacks it cannot teach or measure"
    return [Finding("missing", "warning", len(items), text, advice, items)]


def _few(view: _View, train: npt.NDArray[np.int64]) -> list[Finding]:
    """Classes of one training image, and those far smaller than the largest, from the counts (K)."""

    def items(chosen: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
        indices = np.flatnonzero(chosen).tolist()
        return [{"split": view.names[0], "class": view.classes[i], "count": int(train[i])} for i in indices]

    found = []
    if single := items(train == 1):
        classes = "1 class has" if len(single) == 1 else f"{len(single):,} classes have"
        text = f"{classes} a single training image: {first_of([item['class'] for item in single])}"
        found.append(Finding("single", "warning", len(single), text, "add images: one shows no variation", single))
    largest, smallest = int(train.max()), int(train[train > 0].min(initial=train.max()))
    if largest >= UNBALANCED * smallest > 0:
        names = (view.classes[int(train.argmax())], view.classes[int(np.flatnonzero(train == smallest)[0])])
        text = f"{names[0]} has {largest / smallest:,.0f} times as many training images as {names[1]}"
        small = items((train > 0) & (train * UNBALANCED <= largest))
        advice = "look at each class's own score; add images of the small ones"
        found.append(Finding("unbalanced", "warning", len(small), text, advice, small))
    return found


def _pictures(view: _View, preprocess: Preprocess, options: PreprocessOptions) -> list[Finding]:
    """Images that are empty, small, out of proportion, or of another kind than most."""
    found: list[Finding] = []

    def add(kind: str, level: Level, chosen: npt.NDArray[np.bool_], text: str, advice: str) -> None:
        indices = np.flatnonzero(chosen & view.good)
        if len(indices):
            items = [
                view.image(i) | {"height": int(view.traits["height"][i]), "width": int(view.traits["width"][i])}
                for i in indices.tolist()
            ]
            found.append(Finding(kind, level, len(indices), f"{some(len(indices), 'image')} {text}", advice, items))

    height, width = (view.traits[side].astype(np.float64) for side in ("height", "width"))
    add("constant", "warning", view.traits["constant"], "of one single colour", "remove them: they show nothing")
    alike = len(set(zip(height[view.good], width[view.good], strict=True))) == 1
    tall, wide = preprocess.size
    if not alike or options.image_size is not None:
        small = (height * ENLARGED < tall) | (width * ENLARGED < wide)
        text = f"of less than half the network's {tall}x{wide} pixels"
        add("small", "warning", small, text, f"a smaller --image-size than {max(tall, wide)}, or larger images")
    if view.good.any() and not alike:
        ratio = np.log(np.maximum(width, 1) / np.maximum(height, 1))
        unusual = np.abs(ratio - np.median(ratio[view.good])) > np.log(UNUSUAL)
        keep = "squash deforms them; --resize crop or pad keeps the proportions"
        add("proportions", "note", unusual, f"far wider or taller than usual (over {UNUSUAL:g} times)", keep)
    colour = view.traits["colour"]
    if (colour & view.good).any() and preprocess.channels == 3:
        advice = "nothing, if that is as it will be in use; --channels 1 makes all grey"
        add("grey", "note", ~colour, f"without colour among {int((colour & view.good).sum()):,} with", advice)
    return found


def _images(traits: Traits) -> dict[str, Any]:
    """What the readable images are like."""
    good = traits[traits["state"] == GOOD]
    if not len(good):
        return {"readable": 0}
    areas = good["height"].astype(np.int64) * good["width"]
    order = np.argsort(areas, kind="stable")
    picks = {"smallest": order[0], "median": order[len(order) // 2], "largest": order[-1]}
    sizes = {name: [int(good["height"][i]), int(good["width"][i])] for name, i in picks.items()}
    return {"readable": len(good), "colour": int(good["colour"].sum()), "size": sizes}

"""From `--data` to training, validation and test sets: which form it is, which classes, and who holds what out.

What training learns from, what chooses the model, and what measures it are three sets. A missing validation set is held
out of the training data; where nothing is given, a test set is too. A sample is held out when its stable hash lies
under the share asked for, so its side depends on itself alone: adding images moves no others across.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from msresnet.data.options import DataOptions
from msresnet.data.sample import UNLABELLED, Relabelled, Source, Subset
from msresnet.data.sources.binary_digits import binary_digits
from msresnet.data.sources.crops import crop_sets, crops
from msresnet.data.sources.digit_scenes import digit_scenes
from msresnet.data.sources.digit_videos import digit_videos
from msresnet.data.sources.digits import digits
from msresnet.data.sources.folder import entries, folder, split_folders, unsorted
from msresnet.data.sources.hub import hub
from msresnet.data.sources.idx import idx_pair, idx_splits, labels_beside
from msresnet.data.sources.instances import instance_file, instance_sets
from msresnet.data.sources.masks import mask_folders, mask_table, names_masks
from msresnet.data.sources.mnist import mnist
from msresnet.data.sources.mot import mot_sets
from msresnet.data.sources.packed import HINT, UNFINISHED, packed_splits
from msresnet.data.sources.pixel_masks import is_twin, pixel_masks, twin
from msresnet.data.sources.pixels import EXTENSIONS as TABLES
from msresnet.data.sources.pixels import pixels
from msresnet.data.sources.scaled_digits import scaled_digits
from msresnet.data.sources.table import holds_paths, lacks_labels, table
from msresnet.data.sources.voc import voc_sets
from msresnet.data.sources.wds import PREFIX as SHARDS
from msresnet.data.sources.wds import shards
from msresnet.data.sources.yolo import SETTINGS, yolo_file, yolo_sets
from msresnet.errors import DataError, UsageError, nearest
from msresnet.hub import PREFIX as HUB

VAL_SHARE, MOST_HELD_OUT = 0.1, 5_000
"""What is held out for validation when nobody says; more images than this would only take from training."""
FEW, MORE = 20, 0.3
"""Images that say little, and the share to hold out instead."""
HASH_BITS = 63
MOST_ALONE = 50
"""More classes than this, of one image each, are not classes: the wrong column was read."""
CROPS = "crops:"
Role = Literal["val", "test"]


@dataclass(frozen=True)
class Splits:
    """The sets, by role. `notes` says in words what was inferred."""

    train: Source
    val: Source | None = None
    test: Source | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the class indices."""
        return self.train.classes

    def named(self) -> dict[str, Source]:
        """The sets that exist."""
        sets = {"train": self.train, "val": self.val, "test": self.test}
        return {name: source for name, source in sets.items() if source is not None}


def open_data(spec: str, options: DataOptions, unlabelled: bool = False) -> Splits:
    """The sets for training from `--data`; with `unlabelled`, data without labels too, of which nothing is held out.

    A test set without labels that was found beside labelled training data is left aside, as if it were not there.

    Raises DataError for data that cannot be learnt from, UsageError for contradictions.
    """
    found, notes = read_any(spec, options)
    if "train" not in found:
        raise DataError("there is no training set", where=spec, why=f"only {', '.join(found)} was found")
    if "test" in found and _unlabelled(found["test"]) and not _unlabelled(found["train"]):
        del found["test"]
        notes = [*notes, f"the test set in {spec} has no labels and is left aside: it is for msresnet predict"]
    asked: dict[Role, str | None] = {"val": options.val_data, "test": options.test_data}
    for split, other in asked.items():
        if other is not None:
            if split in found:
                raise UsageError(f"--{split}-data, but {spec} holds a {split} set", hint="leave one of them out")
            found[split], more = whole(other, options, split, found["train"])
            notes = [*notes, *(f"--{split}-data: {note}" for note in more)]
    if unlabelled and (found["train"].targets < 0).any():
        return Splits(found["train"], found.get("val"), found.get("test"), [*notes, "no labels: nothing is held out"])
    splits = arrange(found, options)
    return Splits(splits.train, splits.val, splits.test, [*notes, *splits.notes])


def _too_few(held: Source, split: str, share: float) -> str:
    """What to say of a set that was held out, where a few images make all the difference."""
    if not 0 < len(held) < FEW:
        return ""
    return "; so few say little" + (f", --{split}-fraction {MORE} holds more out" if share < MORE else "")


def _unlabelled(source: Source) -> bool:
    return len(source) > 0 and bool((source.targets == UNLABELLED).all())


def arrange(found: dict[str, Source], options: DataOptions) -> Splits:
    """Check the classes, match them by name, and hold out what is missing."""
    train, notes = found["train"], []
    _check_labels(train)
    others = {name: _matched(source, train, name) for name, source in found.items() if name != "train"}
    if not others and options.test_fraction:
        train, others["test"] = hold_out(train, options.test_fraction, "test")
        few = _too_few(others["test"], "test", options.test_fraction)
        notes.append(
            f"test set: {len(others['test']):,} images held out by a stable hash; training never sees them{few}"
        )
    share, why = options.val_fraction, ""
    if share is None:
        share = min(VAL_SHARE, MOST_HELD_OUT / len(train))
        why = f"; about {MOST_HELD_OUT:,} are enough, --val-fraction changes it" if share < VAL_SHARE else ""
    if "val" not in others and share:
        train, others["val"] = hold_out(train, share, "val")
        few = _too_few(others["val"], "val", share)
        notes.append(f"validation set: {len(others['val']):,} training images held out by a stable hash{why}{few}")
    for name in [name for name, source in others.items() if not len(source)]:
        del others[name]
        notes.append(f"so there is no {name} set: no class has two different images")
    for name, source in others.items():
        present = source.present()
        absent = [] if present is None else [c for i, c in enumerate(train.classes) if i not in present]
        if absent:
            notes.append(f"the {name} set has no image of {', '.join(absent)}")
    return Splits(train, others.get("val"), others.get("test"), notes)


def read_any(spec: str, options: DataOptions, like: Source | None = None) -> tuple[dict[str, Source], list[str]]:
    """The sets that a specification names, by split ('train' where it names none), and what was inferred.

    A .csv of pixels is scaled as the one that `like` came from, corners in XML files count from where its corners do.
    """
    if spec in _NAMED:
        return _NAMED[spec]()
    for prefix, read in _PREFIXED.items():
        if spec.startswith(prefix):
            return read(spec, options)
    path = _existing(spec)
    if path is None:
        near = _near(spec)
        raise DataError(f"there is no data at {spec!r}", hint=f"--data {shlex.quote(near)}" if near else FORMS)
    return _file(path, options, like) if path.is_file() else _folder(path, options, like)


def _near(spec: str) -> str:
    """What may be meant by a name of nothing: data that have a name, or what lies beside; '' if none is like it."""
    names = {name: name for name in _NAMED}
    try:
        path = Path(spec).expanduser()
        while not path.parent.is_dir():
            path = path.parent
        beside = {entry.name.lower(): str(entry) for entry in entries(path.parent) if not entry.name.startswith(".")}
    except (DataError, OSError, RuntimeError):  # as for `_existing`; a folder that cannot be read
        return ""
    names = beside if path.parent != Path() else names | beside
    return names.get(nearest(path.name.lower(), names, 1), "")


def _folder(path: Path, options: DataOptions, like: Source | None) -> tuple[dict[str, Source], list[str]]:
    if sets := dict[str, Source](packed_splits(path)):
        return sets, [f"packed images in {path}"]
    if sets := dict[str, Source](idx_splits(path)):
        return sets, [f"IDX files in {path}"]
    if tables := _tables(path):
        return _read_tables(tables, options, like)
    tars = partial(_shard_sets, options=options)
    voc = partial(voc_sets, like=like)
    for look in (mask_folders, instance_sets, voc, yolo_sets, mot_sets, tars):
        sets, notes = look(path)
        if sets:
            return sets, notes
    below = split_folders(path)
    if "train" in below or {"val", "test"} <= below.keys():
        read_folders = {split: unsorted(sub) if split == "test" else folder(sub) for split, sub in below.items()}
        sets = {split: source for split, (source, _) in read_folders.items()}
        notes = [f"class folders below {', '.join(sub.name + '/' for sub in below.values())} of {path}"]
        return sets, notes + [n for _, more in read_folders.values() for n in more]
    source, notes = folder(path)
    return {"train": source}, [f"class folders in {path}", *notes]


def _shard_sets(path: Path, options: DataOptions) -> tuple[dict[str, Source], list[str]]:
    """The sets in a folder's tar files; none where folders are beside them. Raises DataError for an unfinished one."""
    below = [entry for entry in entries(path) if not entry.name.startswith(".")]
    if any(entry.is_dir() for entry in below) or not any(entry.suffix == ".tar" for entry in below):
        return {}, []
    if (path / UNFINISHED).exists():
        raise DataError("msresnet data pack did not end here", where=str(path), hint=HINT)
    return shards(f"{SHARDS}{path}", options)


def _existing(spec: str) -> Path | None:
    try:
        path = Path(spec).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError):  # a name that is too long; the home of a user who is none
        return None


def is_absent(spec: str) -> bool:
    """Whether a specification names a path that is not here."""
    return not (spec in _NAMED or spec.startswith((HUB, SHARDS)) or _existing(spec.removeprefix(CROPS)) is not None)


def seen_from(folder: Path, spec: str) -> str:
    """What a specification means now that was given in `folder` or one above it: paths that are not here may be there.

    Raises nothing; what is found nowhere stays as it is.
    """
    if not is_absent(spec):
        return spec
    prefix = CROPS if spec.startswith(CROPS) else ""
    place = spec.removeprefix(prefix)
    above = (_existing(str(base / place)) for base in (folder, *folder.parents))
    return next((f"{prefix}{found}" for found in above if found is not None), spec)


def whole(spec: str, options: DataOptions, role: Role, like: Source | None = None) -> tuple[Source, list[str]]:
    """The one set of a specification that can play a role, and what was inferred; `like` as for `read_any`.

    For 'val' the validation set, else the only one unless it is the test set: what measures a model never chooses it.
    For 'test' the test set, else the validation set, else the only one. Raises DataError where there is none.
    """
    found, notes = read_any(spec, options, like)
    fit = [name for name in (("val",) if role == "val" else ("test", "val")) if name in found]
    if not fit and list(found) == ["train"]:
        fit = ["train"]
    if not fit:
        raise DataError(
            f"there is no {role} set", where=spec, why=f"it holds {', '.join(found)}", hint="name one folder or file"
        )
    return found[fit[0]], notes


def _file(path: Path, options: DataOptions, like: Source | None) -> tuple[dict[str, Source], list[str]]:
    kind = path.suffix.lower()
    if kind in TABLES and names_masks(path):
        return mask_table(path)
    if kind in TABLES:
        return table(path, options) if holds_paths(path, options) else _pixels(path, options, like)
    if "ubyte" in path.name:
        return {"train": idx_pair(path, labels_beside(path))}, [f"IDX file {path.name}"]
    if kind == ".tar":
        return shards(f"{SHARDS}{path}", options)
    if kind in (".parquet", ".arrow"):
        return hub(f"{HUB}{path}", options)
    if kind in _BOXES:
        return _BOXES[kind](path)
    raise DataError("this file is not a known form of data", where=str(path), hint=_OTHERS.get(kind, FORMS))


def _pixels(path: Path, options: DataOptions, like: Source | None) -> tuple[dict[str, Source], list[str]]:
    source, notes = pixels(path, options, like) if twin(path) is None else pixel_masks(path, options, like)
    return {"train": source}, notes


def _tables(path: Path) -> dict[str, Path]:
    names = {"train": "*train*", "val": "*val*", "test": "*test*"}
    found = {s: sorted(p for p in path.glob(f"{n}.csv") if p.is_file() and not is_twin(p)) for s, n in names.items()}
    return {split: paths[0] for split, paths in found.items() if paths} if found["train"] else {}


def _read_tables(
    tables: dict[str, Path], options: DataOptions, like: Source | None
) -> tuple[dict[str, Source], list[str]]:
    """One table a set; the training table says what the pixels of all mean. Raises DataError."""
    sets: dict[str, Source] = {}
    notes: list[str] = []
    for split, path in tables.items():
        bare = split == "test" and not names_masks(path) and lacks_labels(path, tables["train"], options)
        read, more = _file(path, replace(options, label_column="none") if bare else options, sets.get("train", like))
        if len(read) != 1:
            why = (
                f"it holds {', '.join(read)}, and others stand beside it: {', '.join(p.name for p in tables.values())}"
            )
            raise DataError("a table of one set holds several", where=str(path), why=why, hint=f"--data {path}")
        sets[split] = next(iter(read.values()))
        notes += [note for note in more if note not in notes]
    return sets, notes


_NAMED: dict[str, Callable[[], tuple[dict[str, Source], list[str]]]] = {
    "digits": lambda: ({"train": digits()}, ["scikit-learn's digits, embedded"]),
    "binary-digits": lambda: (binary_digits(), ["scikit-learn's digits and their thresholded masks, made here"]),
    "digit-videos": lambda: (digit_videos(), ["videos of scikit-learn's digits with their boxes, made here"]),
    "digit-scenes": lambda: (digit_scenes(), ["scenes of scikit-learn's digits with their boxes, made here"]),
    "scaled-digits": lambda: (scaled_digits(), ["scikit-learn's digits at many scales and places, made here"]),
    "mnist": lambda: (dict(mnist()), ["MNIST from the cache"]),
}


def _crops(spec: str, options: DataOptions) -> tuple[dict[str, Source], list[str]]:
    """The boxes of COCO instances as images to classify, from `crops:` and a file or a folder."""
    path = _existing(spec.removeprefix(CROPS))
    if path is None:
        raise DataError(f"there is no data at {spec.removeprefix(CROPS)!r}", where=spec)
    if path.is_file():
        boxes, notes = crops(path)
        return {"train": boxes}, notes
    sets, notes = crop_sets(path)
    if not sets:
        raise DataError("there are no COCO instances to cut boxes from", where=str(path))
    return sets, notes


_BOXES: dict[str, Callable[[Path], tuple[dict[str, Source], list[str]]]] = {
    ".json": instance_file,
    **dict.fromkeys(SETTINGS, yolo_file),
}
_PREFIXED: dict[str, Callable[[str, DataOptions], tuple[dict[str, Source], list[str]]]] = {
    HUB: hub,
    SHARDS: shards,
    CROPS: _crops,
}
_OTHERS = {
    **dict.fromkeys((".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"), "unpack it, and name the folder"),
    **dict.fromkeys((".npy", ".npz"), "arrays are learnt from in Python: Classifier().fit(images, labels)"),
}
"""What to do about files that hold images in a form that is not read, by extension."""
FORMS = (
    "digits, scaled-digits, binary-digits, digit-scenes, digit-videos, mnist, a folder (class folders, images/ and "
    "masks/, or boxes as COCO, VOC, YOLO or MOTChallenge have them), a table of paths and labels or masks, or of "
    "pixels (.csv), IDX files, COCO instances (.json), a data.yaml of YOLO, crops:coco/ (boxes as images to classify), "
    "hf:user/name, wds:shards-{000..099}.tar"
)


def _check_labels(train: Source) -> None:
    if len(train) == 0:
        raise DataError("the training set is empty")
    if (train.targets < 0).any():
        raise DataError("the training data has no labels", hint="--label-column first, or class folders")
    found = train.present()
    if train.boxed and found is not None and not len(found):
        raise DataError("there is no box in the training set", hint="images without boxes teach only beside others")
    if found is None or train.boxed:
        return
    present = [train.classes[i] for i in found]
    if len(train) == len(present) > MOST_ALONE:
        why = f"{len(train):,} images, {len(present):,} classes"
        raise DataError("every image has a class of its own", why=why, hint="--label-column NAME, first, last or none")
    if len(present) < 2:
        raise DataError(
            "there is only one class", why=f"all images are {present[0]!r}", hint=_further(train, present[0])
        )


def _further(train: Source, name: str) -> str:
    """What to do about a single class; the folders in its folder may be what was meant."""
    first = Path(train.ids[0]).parts
    if first[0] == name and len(first) > 2:
        return f"the folder {name!r} itself for --data, if the folders in it are the classes"
    return "add images of something else"


def _matched(source: Source, train: Source, name: str) -> Source:
    if (source.targets < 0).any():
        raise DataError(f"the {name} set has no labels", hint="--label-column first")
    if source.task != train.task:
        why = f"the training set is for {train.task}, the {name} set for {source.task}"
        raise DataError(f"the {name} set is of another kind than the training set", why=why)
    unknown = sorted(set(source.classes) - set(train.classes))
    if unknown:
        raise DataError(
            f"the {name} set has a class that the training set lacks: {', '.join(unknown)}",
            why=f"the training set knows {', '.join(train.classes)}",
            hint="rename or remove it; classes are matched by name",
        )
    return source if source.classes == train.classes else Relabelled(source, train.classes)


def hold_out(source: Source, fraction: float, salt: str) -> tuple[Source, Source]:
    """(rest, held out): the samples whose hash lies under `fraction` of the range are held out.

    So a sample's side depends on itself and the fraction alone, and a class gives about its share. Only a class of
    different samples that would all fall on one side gives its lowest hash, or keeps its highest. Samples with the
    same key stay together, even when they bear different labels; a class whose samples are all alike is not split.

    Raises UsageError for a fraction outside 0 to 1.
    """
    if not 0 < fraction < 1:
        why = "it must lie between 0 and 1"
        raise UsageError(f"a share of {fraction} cannot be held out", why=why, hint="0.1")
    keys = np.fromiter((_hash(source.split_key(i), salt) for i in range(len(source))), np.int64, len(source))
    order = np.lexsort((keys, source.targets))  # class by class, each by key
    first = np.flatnonzero(np.diff(source.targets[order], prepend=UNLABELLED - 1))
    lowest, highest = keys[order[first]], keys[order[np.append(first[1:], len(order)) - 1]]
    bound = int(fraction * 2**HASH_BITS)
    held = (keys < bound) | np.isin(keys, lowest[(lowest != highest) & (lowest >= bound)])
    # After the others: what training lacks cannot be learnt.
    held &= ~np.isin(keys, highest[np.logical_and.reduceat(held[order], first)])
    return _subset(source, ~held), _subset(source, held)


def _subset(source: Source, chosen: npt.NDArray[np.bool_]) -> Subset:
    return Subset(source, np.flatnonzero(chosen).astype(np.int64))


def _hash(key: bytes, salt: str) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, salt=salt.encode()).digest(), "big") >> (64 - HASH_BITS)

"""Shards of samples in tar files, as WebDataset writes them: `000017.jpg` beside `000017.cls`, `.json` or `.txt`.

A small index (which shard, where, how long) is made once, by reading headers and labels. So samples can be read in any
order, by any number of workers, without unpacking or copying anything. Links, devices and folders in a shard are left
aside, and a member's name is only a name: no path is ever made of it.
"""

from __future__ import annotations

import glob
import itertools
import json
import math
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.data.decode import EXTENSIONS, MAX_BYTES, decode_bytes, printable, read_regular
from msresnet.data.names import Names, Printed, class_name
from msresnet.data.options import DataOptions
from msresnet.data.sample import UNLABELLED, Image, Source
from msresnet.data.sources.columns import LABELS, classes, guessed
from msresnet.data.sources.folder import SPLITS
from msresnet.data.sources.tar import Member, members, read_at
from msresnet.errors import DataError, UsageError

PREFIX = "wds:"
EXAMPLE = "wds:shards-{000..099}.tar"
LABEL_KINDS = ("cls", "json", "txt")
"""Extensions that hold a label; the first that a sample has counts."""
MOST_LABEL = 1 << 16
"""Bytes of a label; more is none."""
MOST_SHARDS = 100_000
CLASS_FILES = ("classes.txt", "classes.json")
_RANGE = re.compile(r"(\d{1,12})\.\.(\d{1,12})")


class ShardSource(Source):
    """Images within tar files; a sample's id is the shard's and the member's name, as in `train-003.tar/000017.jpg`."""

    def __init__(self, shards: list[Path], index: Index, targets: npt.NDArray[np.int64], classes: list[str]) -> None:
        super().__init__(classes, targets, Printed(index.names))
        self.shards, self.index = shards, index

    def image(self, index: int, at_least: tuple[int, int] | None = None) -> Image:
        """Decode one image (C, H, W)."""
        shard, size = self.shards[self.index.shards[index]], self.index.sizes[index]
        name = f"{printable(shard.parent)}/{self.ids[index]}"
        if size > MAX_BYTES:
            raise DataError("the image is too large", where=name, why=f"{size:,} bytes, the limit is {MAX_BYTES:,}")
        return decode_bytes(read_at(shard, self.index.starts[index], size), name, at_least)


@dataclass(frozen=True)
class Index:
    """Where each image is, and its label's number among those seen (-1: it has none)."""

    names: Names = field(default_factory=Names)
    shards: array[int] = field(default_factory=lambda: array("i"))
    starts: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    codes: array[int] = field(default_factory=lambda: array("i"))


def shards(spec: str, options: DataOptions) -> tuple[dict[str, Source], list[str]]:
    """The sets in some tar files, by split ('train' where their names tell of none), and what was inferred.

    Args:
        spec: 'wds:' and paths, with braces (`{000..099}`, `{a,b}`) and wildcards, separated by commas or spaces.
        options: `label_column` 'none' reads no labels, a name is the key in the `.json` that holds the label.

    Raises DataError for shards that are absent or damaged, and for labels that are none; UsageError for a bad spec.
    """
    paths = expand(spec.removeprefix(PREFIX))
    found: dict[str, Source] = {}
    notes: list[str] = []
    splits, readers = _by_split(paths), dict[str, _Reader]()
    for split, chosen in splits.items():
        readers[split] = _Reader(options)
        for number, path in enumerate(chosen):
            readers[split].read(number, path)
    seen = {label for reader in readers.values() for label in reader.seen}
    for split, chosen in splits.items():
        reader = readers[split]
        targets, classes = reader.labels(chosen, seen)
        found[split] = ShardSource(chosen, reader.index, targets, classes)
        notes.append(f"{split}: {len(targets):,} images in {len(chosen):,} shards")
        notes += [f"{split}: {count:,} {what} were left aside" for what, count in reader.aside.items() if count]
    return found, notes


def expand(text: str) -> list[Path]:
    """The files that paths with braces and wildcards mean, in the order given. Raises DataError, UsageError."""
    parts = re.findall(r"(?:\{[^{}]*\}|[^\s,{}])+|[{}]", text)
    found: list[Path] = []
    missing: list[Path] = []
    try:
        if Path(text).is_file():
            return [Path(text)]
        for patterns in ([text], parts):  # a path with spaces or commas is one, if it is there
            found = [path for part in patterns for pattern in _braces(part) for path in _matching(pattern)]
            missing = [path for path in found if not path.is_file()]
            if found and not missing:
                return found
    except (OSError, RuntimeError) as error:  # a name that is too long; the home of a user who is none
        raise DataError("the shards cannot be found", where=printable(text[:200]), why=str(error)[:200]) from error
    if not parts:
        raise UsageError(f"{PREFIX} names no shard", hint=EXAMPLE)
    what = f"{len(missing):,} of {len(found):,} shards are not there" if found else "there are no shards"
    raise DataError(what, where=", ".join(map(printable, missing[:3])) or printable(text), hint=EXAMPLE)


def _matching(pattern: str) -> list[Path]:
    """One path, those that wildcards mean, or all shards in a folder."""
    path = Path(pattern).expanduser()
    if path.is_dir():
        return sorted(p for p in path.glob("*.tar") if p.is_file())
    if path.is_file() or not glob.has_magic(pattern):
        return [path]
    return sorted(Path(p) for p in glob.iglob(str(path), recursive=True))  # noqa: PTH207 - absolute ones too


def _braces(text: str) -> list[str]:
    """What a text with braces stands for. Raises UsageError."""
    if "\0" in text:
        raise UsageError(f"{PREFIX}{printable(text)} names no file", hint=f"{PREFIX}shards/{{000..099}}.tar")
    pieces = [_options(piece, text) for piece in re.findall(r"\{[^{}]*\}|[^{}]+|[{}]", text)]
    if math.prod(map(len, pieces)) > MOST_SHARDS:
        hint = "fewer, larger shards: msresnet data pack --format shards"
        raise UsageError(f"{PREFIX}{text} means more than {MOST_SHARDS:,} shards", hint=hint)
    return ["".join(pick) for pick in itertools.product(*pieces)] if pieces else []


def _options(piece: str, text: str) -> list[str]:
    if piece in ("{", "}"):
        raise UsageError(f"{PREFIX}{text}: the braces do not match", hint=EXAMPLE)
    if not piece.startswith("{"):
        return [piece]
    found = _RANGE.fullmatch(piece[1:-1])
    if found is None:
        return piece[1:-1].split(",")
    first, last, width = int(found[1]), int(found[2]), len(found[1])
    if not 0 <= last - first < MOST_SHARDS:
        raise UsageError(f"{PREFIX}{text}: {piece} is not a range of shards", hint="from low to high, as in {000..099}")
    return [f"{number:0{width}d}" for number in range(first, last + 1)]


def _by_split(paths: list[Path]) -> dict[str, list[Path]]:
    """Shards by the split that their names, or their folders' names, begin with; 'train' if that tells none apart."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        words = [re.match(r"[a-z]*", name.lower()) for name in (path.name, path.parent.name)]
        known = [s for word in words for s, names in SPLITS.items() if word and word[0] in names]
        found.setdefault(known[0] if known else "", []).append(path)
    if "train" not in found or "" in found:
        return {"train": paths}
    return {split: found[split] for split in SPLITS if split in found}


class _Reader:
    """One pass over some shards."""

    def __init__(self, options: DataOptions) -> None:
        self.labelled = options.label_column != "none"
        self.key = "" if options.label_column in ("auto", "first", "last", "none") else options.label_column
        self.index = Index()
        self.seen: dict[str, int] = {}
        self.first: list[str] = []
        """The sample in which each label appears first."""
        self.aside = {"links, devices and folders": 0, "files that are not images": 0, "further images of a sample": 0}

    def read(self, number: int, path: Path) -> None:
        """Add a shard. Raises DataError, naming shard and member."""
        for key, parts in itertools.groupby(self._parts(path), key=lambda part: part[0]):
            self._sample(number, path, key, {kind: member for _, kind, member in reversed(list(parts))})

    def _parts(self, path: Path) -> Iterator[tuple[str, str, Member]]:
        """Key, extension and place of each file that matters; a key goes up to the first dot of the last name."""
        kinds = {extension[1:] for extension in EXTENSIONS}
        for member in members(path):
            if not member.plain:
                self.aside["links, devices and folders"] += 1
                continue
            base, _, name = member.name.rpartition("/")
            stem, _, kind = name.partition(".")
            kind = kind.lower()
            if stem and (kind in kinds or (self.labelled and kind in LABEL_KINDS)):
                yield f"{base}/{stem}", kind, member
            elif kind not in LABEL_KINDS:
                self.aside["files that are not images"] += 1

    def _sample(self, number: int, path: Path, key: str, parts: dict[str, Member]) -> None:
        pictures = [member for kind, member in parts.items() if kind not in LABEL_KINDS]
        if not pictures:
            self.aside["files that are not images"] += len(parts)
            return
        picture = min(pictures, key=lambda member: member.start)
        self.aside["further images of a sample"] += len(pictures) - 1
        name = f"{path.name}/{picture.name}"
        self.index.names.append(name)
        self.index.shards.append(number)
        self.index.starts.append(picture.start)
        self.index.sizes.append(picture.size)
        label = next((kind for kind in LABEL_KINDS if kind in parts), None)
        self.index.codes.append(UNLABELLED if label is None else self._code(path, name, label, parts[label]))

    def _code(self, path: Path, name: str, kind: str, member: Member) -> int:
        data, size = member.head, min(member.size, MOST_LABEL)
        data = data if len(data) == member.size else read_at(path, member.start, size)
        try:
            if member.size > MOST_LABEL:
                raise ValueError(f"{member.size:,} bytes, the limit is {MOST_LABEL:,}")
            text = data.decode("utf-8-sig").strip()
            label = class_name(self._in_json(json.loads(text)) if kind == "json" else text)
            if not label or label.casefold() == "nan":
                raise ValueError(f"the label is {label or 'empty'}")
        except (ValueError, RecursionError) as error:
            where = f"{printable(path)}, {printable(member.name)}"
            raise DataError("the label cannot be read", where=where, why=str(error)[:200]) from error
        if label not in self.seen:
            self.seen[label] = len(self.seen)
            self.first.append(name)
        return self.seen[label]

    def _in_json(self, content: Any) -> str:
        """The label in a sample's JSON: the value itself, or that of the key which bears a label's name."""
        if isinstance(content, dict):
            keys = [str(key) for key in content]
            found = [self.key] if self.key in content else [keys[i] for i in guessed(keys, LABELS | {"cls"})]
            if len(found) != 1:
                raise ValueError(f"no one key for the label among {', '.join(keys)[:100]}: --label-column KEY")
            content = content[found[0]]
        if isinstance(content, bool) or not isinstance(content, str | int):
            raise ValueError(f"a label is a name or a whole number, not {str(content)[:60]}")
        return str(content).strip()

    def labels(self, paths: list[Path], seen: set[str]) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Class index of each image (N,), and the names; `seen` are the labels of all sets.

        Raises DataError for labels that are missing or none.
        """
        codes = np.array(self.index.codes, np.int64)
        if not len(codes):
            raise DataError("the shards hold no images", where=", ".join(map(printable, paths[:3])))
        if (codes < 0).all():
            return codes, []
        if (codes < 0).any():
            name = self.index.names[int(np.flatnonzero(codes < 0)[0])]
            why = f"{int((codes < 0).sum()):,} of {len(codes):,} images have none"
            raise DataError("an image has no label", where=printable(name), why=why, hint="--label-column none")
        names = _class_names(paths[0].parent)
        if names:
            return np.array(self._listed(names, seen), np.int64)[codes], names
        lookup, names = classes(list(self.seen), lambda place: printable(self.first[place]))
        return lookup[codes], names

    def _listed(self, names: list[str], seen: set[str]) -> list[int]:
        """The class index of each label that was seen: a number of the list's lines, or one of its names."""
        place = {str(index): index for index in range(len(names))}
        if not seen <= place.keys():  # classes may be called 1, 2, 3: numbers are names only where some count no line
            place |= {name: index for index, name in enumerate(names)}
        for label, sample in zip(self.seen, self.first, strict=True):
            if label not in place:
                why = f"the list of classes beside the shards has {len(names):,} names, numbered from 0"
                raise DataError(f"the label {label} is not a class", where=printable(sample), why=why)
        return [place[label] for label in self.seen]


def _class_names(folder: Path) -> list[str]:
    """The names in a list of classes beside the shards, one a line or as a JSON list; empty when there is none."""
    path = next((folder / name for name in CLASS_FILES if (folder / name).is_file()), None)
    if path is None:
        return []
    try:
        text = read_regular(path, MOST_LABEL * 16).decode("utf-8-sig")
        names = (
            json.loads(text) if path.suffix == ".json" else [line.strip() for line in text.splitlines() if line.strip()]
        )
    except (ValueError, RecursionError) as error:
        raise DataError("the list of classes cannot be read", where=printable(path), why=str(error)[:200]) from error
    if (
        not isinstance(names, list)
        or not all(isinstance(n, str) for n in names)
        or len(names) > len(set(map(class_name, names)))
    ):
        raise DataError("the list of classes is not a list of different names", where=printable(path))
    return [class_name(name) for name in names]

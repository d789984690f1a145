"""Images with a mask each, whose pixels say their classes: folders side by side, or a table of paths.

    images/a.jpg  masks/a.png          one set
    train/images/  train/masks/  ...   several, or images/train/  masks/train/

A mask is a PNG (or BMP, TIFF, GIF, PGM) of grey levels or palette indices, with its image's stem, and of its size. What
the values mean is said in meaning.py.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from msresnet.data.decode import EXTENSIONS, decode_file, decode_values, printable
from msresnet.data.names import Names, Printed, below, spread
from msresnet.data.sample import Image, Source
from msresnet.data.sources import columns
from msresnet.data.sources.folder import SPLITS, entries, is_image
from msresnet.data.sources.meaning import Meaning, class_names, meaning
from msresnet.errors import DataError

IMAGES, MASKS = ("images", "image", "imgs", "img"), ("masks", "mask")
LOSSY = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".webp"))
ENDINGS = ("", "_mask", "-mask", ".mask")
"""What may follow an image's stem in its mask's name."""
LOOKED_AT = 256
"""Masks whose values are looked at to learn what they mean; of small sets all."""


@dataclass
class Pairs:
    """Paths of images and of their masks, below one folder."""

    root: Path
    images: Names = field(default_factory=Names)
    masks: Names = field(default_factory=Names)

    def add(self, image: str, mask: str) -> None:
        """One more image."""
        self.images.append(image)
        self.masks.append(mask)


class MaskSource(Source):
    """Images and their masks in files; a sample's id is the image's path below the root."""

    task = "segmentation"
    planes = 1

    def __init__(self, pairs: Pairs, means: Meaning) -> None:
        super().__init__(means.classes, np.zeros(len(pairs.images), np.int64), Printed(pairs.images))
        self.pairs, self.means = pairs, means

    def image(self, index: int, at_least: tuple[int, int] | None = None) -> Image:
        """Decode one image (C, H, W)."""
        return decode_file(self.path(index), at_least)

    def truth(self, index: int) -> Image:
        """The class of each pixel of one image, uint8 (H, W). Raises DataError for a value that is not a class."""
        path = self.pairs.root / self.pairs.masks[index]
        return self.means.indices(decode_values(path), printable(path))

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of one image, which is its mask's."""
        mask = self.truth(index)
        return mask.shape[0], mask.shape[1]

    def path(self, index: int) -> Path:
        """The image's file."""
        return self.pairs.root / self.pairs.images[index]

    def files(self, index: int) -> list[Path]:
        """The image's file and the mask's."""
        return [self.path(index), self.pairs.root / self.pairs.masks[index]]


def mask_folders(root: Path) -> tuple[dict[str, Source], list[str]]:
    """The sets of images and masks below a folder, by split, and what was inferred; none where it holds no such.

    Raises DataError for images without a mask, and for values that cannot be meant.
    """
    found = _folders(root)
    if not found:
        return {}, []
    stray, sets = 0, dict[str, Pairs]()
    for split, (images, masks) in found.items():
        sets[split], more = _paired(root, images, masks)
        stray += more
    first = next(iter(found.values()))
    sources, note = _sources(sets, [root, root / "masks", first[1], first[1].parent])
    where = ", ".join(f"{images.relative_to(root)}/ and {masks.relative_to(root)}/" for images, masks in found.values())
    notes = [f"images and masks in {where} of {root}", note]
    return sources, notes + ([f"{stray} masks without an image were left aside"] if stray else [])


def _folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """The folders of images and of masks of each set."""
    if pair := _pair(root):
        below_images, below_masks = (_splits(folder) for folder in pair)
        both = {split: (below_images[split], below_masks[split]) for split in below_images if split in below_masks}
        return both or {"train": pair}
    found = {split: _pair(folder) for split, folder in _splits(root).items()}
    return {split: pair for split, pair in found.items() if pair is not None}


def _pair(root: Path) -> tuple[Path, Path] | None:
    names = {entry.name.lower(): entry for entry in entries(root) if entry.is_dir()}
    images, masks = (next((names[n] for n in words if n in names), None) for words in (IMAGES, MASKS))
    return None if images is None or masks is None else (images, masks)


def _splits(root: Path) -> dict[str, Path]:
    names = {entry.name.lower(): entry for entry in entries(root) if entry.is_dir()}
    found = {split: next((names[w] for w in words if w in names), None) for split, words in SPLITS.items()}
    return {split: path for split, path in found.items() if path is not None}


def _images(folder: Path) -> Iterator[Path]:
    """The images in a folder and below, in a fixed order."""
    for entry in entries(folder):
        if entry.is_dir() and not entry.name.startswith("."):
            yield from _images(entry)
        elif is_image(entry):
            yield entry


def _paired(root: Path, images: Path, masks: Path) -> tuple[Pairs, int]:
    """Each image with its mask, and how many masks have no image. Raises DataError for images without one."""
    by_stem = {
        path.relative_to(masks).with_suffix("").as_posix(): path
        for path in _images(masks)
        if path.suffix.lower() not in LOSSY
    }
    pairs, missing, used = Pairs(root), list[Path](), set[str]()
    for path in _images(images):
        stem = path.relative_to(images).with_suffix("").as_posix()
        name = next((stem + ending for ending in ENDINGS if stem + ending in by_stem), None)
        if name is None:
            missing.append(path)
            continue
        used.add(name)
        pairs.add(path.relative_to(root).as_posix(), by_stem[name].relative_to(root).as_posix())
    if not pairs.images and not missing:
        raise DataError("the folder holds no images", where=printable(images))
    if missing:
        shown = ", ".join(printable(path.name) for path in missing[:5])
        more = f" and {len(missing) - 5:,} more" if len(missing) > 5 else ""
        raise DataError(
            f"{len(missing):,} of {len(missing) + len(pairs.images):,} images have no mask",
            where=printable(masks),
            why=f"none for {shown}{more}",
            hint="a PNG of the same stem for each: images/a.jpg, masks/a.png; JPEG changes values and is not a mask",
        )
    return pairs, len(by_stem) - len(used)


def _sources(sets: dict[str, Pairs], folders: Sequence[Path]) -> tuple[dict[str, Source], str]:
    """Sets that mean the same by the same values; what they mean is learnt from the training set."""
    first = sets.get("train") or next(iter(sets.values()))
    seen = _values(first)
    means = meaning(seen, class_names(folders), printable(first.root))
    return {split: MaskSource(pairs, means) for split, pairs in sets.items()}, str(means)


def _values(pairs: Pairs) -> set[int]:
    """The values in some evenly spaced masks; what cannot be read is met again later. Raises DataError for none."""
    seen, failure = set[int](), None
    for index in spread(len(pairs.masks), LOOKED_AT):
        try:
            seen.update(np.unique(decode_values(pairs.root / pairs.masks[index])).tolist())
        except DataError as error:
            failure = failure or error
    if not seen and failure is not None:
        raise failure
    return seen


def names_masks(path: Path) -> bool:
    """Whether a text file is a table of images and masks: its header names both."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return bool(columns.guessed(header, columns.PATHS) and columns.guessed(header, columns.MASKS))


def mask_table(path: Path) -> tuple[dict[str, Source], list[str]]:
    """The sets in a table of paths of images and masks, relative to its folder, and what was inferred.

    A column of sets (split) divides it. Raises DataError, naming file and row.
    """
    sets: dict[str, Pairs] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader)
            image_at, mask_at = (columns.guessed(header, words)[0] for words in (columns.PATHS, columns.MASKS))
            split_at = next(iter(columns.guessed(header, columns.SPLITS)), None)
            for number, row in enumerate(reader, 2):
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) != len(header):
                    raise _bad(path, number, f"the row has {len(row)} columns, the header {len(header)}")
                split = "train" if split_at is None else _split(row[split_at], path, number)
                pairs = sets.setdefault(split, Pairs(path.parent))
                pairs.add(_below(row[image_at], path, number), _below(row[mask_at], path, number))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError("cannot read the table", where=printable(path), why=str(error)) from error
    if not sets:
        raise DataError("the table holds no row", where=printable(path))
    sources, note = _sources(sets, [path.parent])
    return sources, [
        f"a table of images in {header[image_at].strip()!r} and masks in {header[mask_at].strip()!r}",
        note,
    ]


def _split(text: str, path: Path, number: int) -> str:
    word = text.strip().casefold()
    split = next((split for split, words in SPLITS.items() if word in words), None)
    if split is None:
        raise _bad(path, number, f"{printable(text.strip()[:40])!r} is not a set", "a set is train, val or test")
    return split


def _below(text: str, path: Path, number: int) -> str:
    name = below(text.strip())
    if name is None:
        raise _bad(path, number, "the path leads out of the table's folder" if text.strip() else "the path is empty")
    if Path(name).suffix.lower() not in EXTENSIONS:
        raise _bad(path, number, f"{printable(name)!r} is not a name of an image")
    return name


def _bad(path: Path, number: int, what: str, why: str = "") -> DataError:
    return DataError(what, where=f"{printable(path)}, row {number:,}", why=why)

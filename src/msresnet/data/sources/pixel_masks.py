"""Text files of pixels with a twin of masks: digits.csv and digits-masks.csv, one image a row in both.

The first is read as pixels.py says, without labels; the second holds as many numbers a row, the class of each pixel. So
the article's grey images and what its threshold made of them are data to learn from.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from msresnet.data.options import DataOptions
from msresnet.data.sample import MaskedArrays, Source
from msresnet.data.sources.meaning import Meaning, class_names, meaning
from msresnet.data.sources.pixels import PixelSource, Table, pixels, read_table
from msresnet.errors import DataError

ENDINGS = ("-masks", "_masks", "-mask", "_mask", "-binary", "_binary")


class PixelMasks(MaskedArrays):
    """The rows of two text files; `grey` is the source of the first, `means` says what the second's numbers are."""

    def __init__(self, grey: PixelSource, masks: Table, means: Meaning, path: Path) -> None:
        values = _whole(masks, path).reshape(len(masks), *grey.images.shape[2:])
        indices = np.stack([means.indices(mask, f"{path}, image {i + 1}") for i, mask in enumerate(values)])
        super().__init__(grey.images, indices, means.classes, grey.ids[0].partition("[")[0])
        self.grey, self.means = grey, means


def twin(path: Path) -> Path | None:
    """The file of masks beside a file of pixels; None where there is none."""
    names = (path.with_name(f"{path.stem}{ending}{path.suffix}") for ending in ENDINGS)
    return next((other for other in names if other.is_file()), None)


def is_twin(path: Path) -> bool:
    """Whether a file holds the masks of another beside it."""
    stems = (path.stem.removesuffix(ending) for ending in ENDINGS if path.stem.endswith(ending))
    return any(path.with_name(stem + path.suffix).is_file() for stem in stems)


def pixel_masks(path: Path, options: DataOptions, like: Source | None = None) -> tuple[PixelMasks, list[str]]:
    """The images of a text file and the masks of its twin, and what was inferred. Raises DataError.

    `like` is the training set of the same data, whose numbers mean the same.
    """
    other = twin(path)
    assert other is not None
    known = like if isinstance(like, PixelMasks) else None
    grey, notes = pixels(path, replace(options, label_column="none"), None if known is None else known.grey)
    masks = read_table(other)
    if masks.shape != (len(grey), grey.images[0, 0].size) or grey.images.shape[1] != 1:
        why = f"{masks.shape[0]:,} rows of {masks.shape[1]:,}; images {' x '.join(map(str, grey.images.shape))}"
        raise DataError("the masks do not fit the images", where=str(other), why=why, hint="one number for each pixel")
    assert isinstance(grey, PixelSource)
    if known is not None:
        return PixelMasks(grey, masks, known.means, other), notes
    means = meaning(np.unique(_whole(masks, other)).tolist(), class_names([path.parent]), str(other))
    return PixelMasks(grey, masks, means, other), [*notes, f"masks in {other.name}", str(means)]


def _whole(masks: Table, path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The numbers as whole ones. Raises DataError for any that are not."""
    bad = ~np.isfinite(masks) | (masks != np.floor(masks)) | (masks < 0)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        what = f"the mask holds {masks[row, column]:g}, which is not a class"
        raise DataError(
            what, where=f"{path}, image {row + 1}, pixel {column + 1}", why="classes are whole numbers from 0"
        )
    return masks.astype(np.int64)

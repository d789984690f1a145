"""A class for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from msresnet.data.resize import Frame, Size
from msresnet.results import Segmentation
from msresnet.tasks.postprocess.base import Outputs, Postprocess, names_of
from msresnet.tasks.tiling.grid import Grid
from msresnet.tasks.tiling.masks import MaskMerge

BAND = 1 << 20
"""Logits that are enlarged at a time."""


class SegmentationPostprocess(Postprocess):
    """Softmax over K classes at each pixel."""

    task: ClassVar[str] = "segmentation"
    columns: ClassVar[tuple[str, ...]] = ("height", "width", "confidence", "shares")
    whole: ClassVar[bool] = True

    @property
    def meaning(self) -> str:
        """Logits of a coarser map."""
        shape = f"(N, {len(self.class_names)}, h, w)"
        return f"Outputs {shape} are logits: enlarged bilinearly to the image, the largest is the class of a pixel."

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From what the task wrote."""
        return cls(names_of(values))

    def merge(self, grid: Grid, whole: str) -> MaskMerge:
        """Masks are put side by side."""
        return MaskMerge(grid, self.class_names)

    def __call__(self, outputs: Outputs, ids: Sequence[str], frames: Sequence[Frame] | None = None) -> Segmentation:
        """Logits (N, K, h, w) -> the most probable class of each pixel of the images, enlarged bilinearly to them."""
        masks, confidences = [], []
        for index, logits in enumerate(outputs):
            maps, size = logits.astype(np.float32, copy=False), (logits.shape[1], logits.shape[2])
            if frames is not None:
                maps, size = maps[:, frames[index].rows, frames[index].columns], frames[index].size
            mask, confidence = _answer(maps, size)
            masks.append(mask)
            confidences.append(confidence)
        return Segmentation(tuple(ids), self.class_names, tuple(masks), np.array(confidences, np.float64))


def _answer(maps: npt.NDArray[np.float32], size: Size) -> tuple[npt.NDArray[np.uint8], float]:
    """Logits (K, h, w) -> the most probable class of each pixel (H, W), and the mean of their probabilities.

    It goes over bands of rows, and over parts of rows that are longer than a band.
    """
    mask, sure = np.empty(size, np.uint8), 0.0
    across = min(size[1], BAND // len(maps))
    down = max(1, BAND // (len(maps) * max(across, maps.shape[2])))  # rows are enlarged before columns
    for top, left in product(range(0, size[0], down), range(0, size[1], across)):
        rows, columns = slice(top, min(top + down, size[0])), slice(left, min(left + across, size[1]))
        logits = _enlarged(maps, size, rows, columns)
        mask[rows, columns] = logits.argmax(0)
        # The most probable class's own term is exp(0): its probability is one in the sum.
        sure += float((1 / np.exp(logits - logits.max(0)).sum(0, np.float64)).sum())
    return mask, sure / mask.size


def _enlarged(maps: npt.NDArray[np.float32], size: Size, rows: slice, columns: slice) -> npt.NDArray[np.float32]:
    """Some rows and columns of (K, h, w) -> (K, H, W), bilinear.

    Pixels are areas whose middles count (what torch calls align_corners=False). Nothing is antialiased: what is reduced
    loses detail.
    """
    if maps.shape[1:] == size:
        return maps[:, rows, columns]
    for axis, length, part in ((1, size[0], rows), (2, size[1], columns)):
        old = maps.shape[axis]
        middle = (np.arange(part.start, part.stop, dtype=np.float64) + 0.5) * old / length - 0.5
        middle = np.clip(middle, 0, old - 1)
        low = middle.astype(np.int64)
        share = (middle - low).astype(np.float32).reshape(-1, *[1] * (2 - axis))
        high = np.minimum(low + 1, old - 1)
        maps = maps.take(low, axis) * (1 - share) + maps.take(high, axis) * share
    return maps

"""A class for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from msresnet.data.resize import Frame, Size
from msresnet.results import Segmentation
from msresnet.tasks.postprocess.base import Outputs, Postprocess, names_of, softmax
from msresnet.tasks.tiling.grid import Grid
from msresnet.tasks.tiling.masks import MaskMerge


class SegmentationPostprocess(Postprocess):
    """Softmax over K classes at each pixel."""

    task: ClassVar[str] = "segmentation"
    columns: ClassVar[tuple[str, ...]] = ("height", "width", "confidence", "shares")
    whole: ClassVar[bool] = True

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
            placed = logits.astype(np.float32) if frames is None else _placed(logits.astype(np.float32), frames[index])
            probabilities = softmax(placed, axis=0)
            masks.append(probabilities.argmax(0).astype(np.uint8))
            confidences.append(float(probabilities.max(0).mean()))
        return Segmentation(tuple(ids), self.class_names, tuple(masks), np.array(confidences, np.float64))


def _placed(logits: npt.NDArray[np.float32], place: Frame) -> npt.NDArray[np.float32]:
    """(K, h, w) over the network's input -> (K, H, W) over the image."""
    inner = logits[:, place.rows, place.columns]
    return inner if place.size == place.inner else enlarged(inner, place.size)


def enlarged(maps: npt.NDArray[np.float32], size: Size) -> npt.NDArray[np.float32]:
    """(K, h, w) -> (K, H, W), bilinear, pixels being areas whose middles count (what torch calls align_corners=False).

    Nothing is antialiased: what is reduced loses detail.
    """
    for axis, length in ((1, size[0]), (2, size[1])):
        old = maps.shape[axis]
        middle = np.clip((np.arange(length, dtype=np.float64) + 0.5) * old / length - 0.5, 0, old - 1)
        low = middle.astype(np.int64)
        share = (middle - low).astype(np.float32).reshape(-1, *[1] * (2 - axis))
        high = np.minimum(low + 1, old - 1)
        maps = maps.take(low, axis) * (1 - share) + maps.take(high, axis) * share
    return maps

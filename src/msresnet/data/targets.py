"""The boxes of a batch as a tensor, beside its images.

float32 (B, M, 6): class index, x1, y1, x2, y2 in pixels of the network's input, and 1 for a crowd. Images of fewer
boxes than M are filled up with rows of class -1. Of videos that say who is who a seventh number follows: which of the
set's objects it is, 0 for one that nobody knows. B batch, N images, M boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from msresnet.boxes import Boxes, Floats, scale, shift
from msresnet.data.preprocess import Preprocess
from msresnet.data.resize import Frame
from msresnet.data.sample import Source

NOTHING = -1
"""The class of a row that is not a box."""
FIELDS = 6


def box_rows(boxes: Boxes, place: Frame) -> Tensor:
    """The boxes of an image, in its own pixels, where the image lies in the network's input: (M, 6)."""
    moved = framed(boxes.xyxy, place)
    classes, crowd = (column[:, None].astype(np.float32) for column in (boxes.classes, boxes.crowd))
    return torch.from_numpy(np.concatenate([classes, moved, crowd], 1))


def framed(boxes: Floats, place: Frame | None) -> Floats:
    """Boxes (M, 4) in an image's own pixels -> where the image lies in the network's input; as they are without one."""
    if place is None:
        return boxes
    factors = place.inner[0] / place.size[0], place.inner[1] / place.size[1]
    return shift(scale(boxes, factors), (place.top, place.left))


def rows_of(source: Source, index: int, preprocess: Preprocess) -> Tensor:
    """The boxes of a sample as the network is to find them: (M, 6 or 7). Raises DataError for what cannot be read."""
    rows, who = box_rows(source.truth(index), preprocess.frame(source.size(index))), source.identities(index)
    return rows if who is None else torch.cat([rows, torch.from_numpy(who.astype(np.float32))[:, None]], 1)


def padded(parts: Sequence[Tensor]) -> Tensor:
    """Rows (M_i, 6 or 7) of B images -> (B, M, 6 or 7), M being at least 1."""
    least = torch.full((1, parts[0].shape[1] if parts else FIELDS), float(NOTHING))
    return pad_sequence([*parts, least], batch_first=True, padding_value=float(NOTHING))[:-1]


class BoxTable:
    """The boxes of N images, end to end, whatever the number of each. Indices give them as a batch does."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.rows = torch.cat(list(parts)) if parts else torch.empty(0, FIELDS)
        self.starts = np.cumsum([0, *map(len, parts)]).tolist()

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Of some images (B,): (B, M, 6)."""
        return padded([self.rows[self.starts[i] : self.starts[i + 1]] for i in indices.tolist()])

"""Whether two predictors answer alike, on real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.errors import ModelError
from msresnet.infer.predictor import Predictor
from msresnet.tasks.words import percent

TOLERANCE = 1e-4
"""How far outputs of the same float network may lie apart, as a share of the largest, or of 1 where that is less."""
Ready = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Agreement:
    """What two predictors make of the same images.

    Args:
        images: how many there were.
        difference: the largest between two outputs.
        largest: the largest output of the first, without its sign.
        same: share of the answers that are the same, 0 to 1.
    """

    images: int
    difference: float
    largest: float
    same: float

    @property
    def share(self) -> float:
        """The difference as a share of the largest output, or of 1 where that is less."""
        return self.difference / max(1.0, self.largest)

    def words(self) -> str:
        """All of it, in one line."""
        return (
            f"on {self.images:,} images outputs differ by at most {self.difference:.2g} (of up to {self.largest:.3g}); "
            f"{percent(self.same)} of the answers are the same"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def agreement(one: Predictor, other: Predictor, images: Ready, ids: Sequence[str]) -> Agreement:
    """Ask both about preprocessed images (N, C, H, W) uint8. Raises ModelError for outputs of other shapes."""
    difference, largest, same = 0.0, 0.0, []
    size = min(one.batch_size, other.batch_size)
    for start in range(0, len(images), size):
        rows = slice(start, start + size)
        left, right = (predictor.backend(images[rows])[0] for predictor in (one, other))
        if left.shape != right.shape:
            what, why = f"{other.backend.name} gives other outputs", f"{right.shape}, not {left.shape}"
            raise ModelError(what, why=why, hint="another --format or image size")
        difference = max(difference, float(np.abs(left - right).max()))
        largest = max(largest, float(np.abs(left).max()))
        first, second = (p.trained.postprocess(o, ids[rows]) for p, o in ((one, left), (other, right)))
        same.append(first.agreement(second))
    return Agreement(len(images), difference, largest, float(np.concatenate(same).mean()))


def check_same(found: Agreement, where: str) -> None:
    """Raise ModelError where a float network's answers are not those of the original."""
    if not found.share <= TOLERANCE:
        why, hint = f"{found.words()}; {TOLERANCE:g} was expected", "another --format; please report it"
        raise ModelError("the exported model answers otherwise", where=where, why=why, hint=hint)

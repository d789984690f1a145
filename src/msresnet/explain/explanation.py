"""Why a model answered as it did on one image: the heat map, the scales, and the answer, as one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.explain.scales import ScaleResponse, by_field
from msresnet.results import Classification

Image = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Explanation:
    """Why a model answered as it did on one image.

    Args:
        picture: what the network saw, uint8 (C, H, W).
        heat: how much each place speaks for the class, (H, W) in 0 to 1.
        target: the class that is explained.
        scales: empty where blocks look at one scale only.
    """

    id: str
    picture: Image
    heat: Heat
    target: str
    result: Classification
    scales: list[ScaleResponse]

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the answer, the class explained, the hottest place, the scales."""
        row, column = (int(i) for i in np.unravel_index(int(self.heat.argmax()), self.heat.shape))
        return {
            **self.result.to_dict()[0],
            "explained": self.target,
            "hottest_pixel": {"row": row, "column": column},
            "scales": [s.to_dict() for s in self.scales],
        }

    def line(self) -> str:
        """The explanation in one line of text."""
        best, probability = self.result.top(1)[0][0]
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in by_field(self.scales)[:4])
        scales = (
            f"; {self.target} by scale: {shares}" if shares else "; it has no operator whose scales can be told apart"
        )
        return f"{self.id}: {best} {probability:.4f}{scales}"

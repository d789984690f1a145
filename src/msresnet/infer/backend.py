"""A network at work, whatever runs it. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from msresnet.machine import cores

if TYPE_CHECKING:
    from torch import Tensor

Pixels: TypeAlias = "npt.NDArray[np.uint8] | Tensor"
Outputs = npt.NDArray[np.floating[Any]]
Exits = npt.NDArray[np.int64]
INPUT, OUTPUT = "images", "outputs"
"""What the ends of exported networks are called."""


class Backend(ABC):
    """Pixels in, numbers out.

    Attributes:
        name: 'torch', 'onnxruntime' or 'openvino'.
        device: on which it computes, as torch calls it.
        precision: 'fp32', 'bf16' or 'int8'.
        threads: of one call.
        reason: why it is so, in words.
    """

    name: str
    device: str = "cpu"
    precision: str
    threads: int
    reason: str
    early: str | None = None
    """When images leave before the network's end, in words."""

    @abstractmethod
    def __call__(self, images: Pixels) -> tuple[Outputs, Exits | None]:
        """Images (B, C, H, W) uint8 at the network's size -> its outputs (B, ...), and by which exit each left (B,)."""


def threads_for(asked: int | None) -> tuple[int, str]:
    """The threads of one call and the reason."""
    count = cores() if asked is None else asked
    return count, "as asked" if asked is not None else "one for each core"

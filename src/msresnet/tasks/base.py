"""The Task seam. Training, inference, export and reports know what a network is for only through this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from msresnet.results import Classification, Evaluation

Results = Classification
"""Every kind of result (detections join it with their task)."""


class Task(ABC):
    """Encode targets, compute the loss, decode outputs, measure. B batch, K classes."""

    name: ClassVar[str]
    metric: ClassVar[str]
    """The figure that chooses between models; larger is better."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)

    @property
    def num_outputs(self) -> int:
        """Outputs that the network needs."""
        return len(self.class_names)

    @abstractmethod
    def encode(self, targets: Tensor) -> Tensor:
        """Targets as the data holds them -> as the loss takes them."""

    @abstractmethod
    def loss(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        """A scalar to minimise, the mean over the batch."""

    def loss_of_exits(self, answers: Sequence[Tensor], encoded: Tensor) -> Tensor:
        """The mean loss over a network's exits (arXiv 1703.09844, section 4)."""
        return torch.stack([self.loss(outputs, encoded) for outputs in answers]).mean()

    @abstractmethod
    def imitate(self, outputs: Tensor, truth: Tensor, temperature: float) -> Tensor:
        """How far outputs are from a teacher's: a scalar to minimise, the mean over the batch."""

    @abstractmethod
    def decode(self, outputs: Tensor, ids: Sequence[str]) -> Results:
        """Outputs of a network -> results for people."""

    @abstractmethod
    def evaluate(self, results: Results, targets: npt.NDArray[np.int64]) -> Evaluation:
        """Results and truths -> figures."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for config.json."""
        return {"name": self.name, "class_names": list(self.class_names)}

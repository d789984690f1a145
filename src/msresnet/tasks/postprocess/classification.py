"""One class for each image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from msresnet.data.resize import Frame
from msresnet.results import Classification
from msresnet.tasks.postprocess.base import Outputs, Postprocess, names_of, softmax
from msresnet.tasks.tiling.classes import ClassMerge
from msresnet.tasks.tiling.grid import Grid


class ClassificationPostprocess(Postprocess):
    """Softmax over K classes.

    Args:
        class_names: in the order of the class indices.
        temperature: what logits are divided by, so that probabilities mean what they say.
    """

    task: ClassVar[str] = "classification"
    columns: ClassVar[tuple[str, ...]] = ("label", "probability")
    wholes: ClassVar[tuple[str, ...]] = ("mean", "max")

    def __init__(self, class_names: Sequence[str], temperature: float = 1.0) -> None:
        super().__init__(class_names)
        self.temperature = temperature

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From what the task wrote; those of before had no temperature."""
        temperature = values.get("temperature", 1.0)
        if isinstance(temperature, bool) or not isinstance(temperature, (int, float)):
            raise TypeError(f"the temperature {temperature!r} is not a number")
        if not 0 < temperature < math.inf:
            raise ValueError(f"the temperature {temperature} is not above 0")
        return cls(names_of(values), float(temperature))

    @property
    def meaning(self) -> str:
        """Logits, and what they are divided by."""
        return f"Outputs (N, {len(self.class_names)}) are logits: `softmax({self._divided})` are the probabilities."

    @property
    def _divided(self) -> str:
        return "outputs" if self.temperature == 1 else f"outputs / {self.temperature:.6g}"

    @property
    def code(self) -> str:
        """The softmax."""
        return f"""logits = {self._divided}
powers = np.exp(logits - logits.max(1, keepdims=True))
probabilities = powers / powers.sum(1, keepdims=True)  # (1, {len(self.class_names)})"""

    def merge(self, grid: Grid, whole: str) -> ClassMerge:
        """Probabilities are blended."""
        return ClassMerge(grid, self.class_names, whole)

    def __call__(self, outputs: Outputs, ids: Sequence[str], frames: Sequence[Frame] | None = None) -> Classification:
        """Logits (N, K) -> probabilities, in float64."""
        return Classification(tuple(ids), self.class_names, softmax(outputs.astype("float64") / self.temperature))

"""What turns outputs into answers; the counterpart of Preprocess, saved with every model. No torch here.

A server that runs an exported file loads this and the runtime, and nothing of what training needs. N images, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from msresnet.data.resize import Frame
from msresnet.errors import UsageError
from msresnet.results import Results
from msresnet.tasks.postprocess.rules import Rules
from msresnet.tasks.tiling.grid import Grid
from msresnet.tasks.tiling.merge import Merge

Outputs = npt.NDArray[np.floating[Any]]


class Postprocess(ABC):
    """Outputs of a network (N, ...) and where each image lies in its input -> results for people."""

    task: ClassVar[str]
    """The task's name."""
    columns: ClassVar[tuple[str, ...]]
    """What `Results.to_dict` says of an image beside its id that fits into a table."""
    whole: ClassVar[bool] = False
    """Whether answers are given at the size of the image, so that it is decoded whole."""
    wholes: ClassVar[tuple[str, ...]] = ("mean",)
    """What tiles can say together about a large image; the first is meant where nothing is said."""
    rules: Rules | None = None
    """Where outputs are boxes: which of them are answers. None where they are something else."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)

    @classmethod
    @abstractmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From what `Task.to_dict` wrote. Raises KeyError, TypeError or ValueError for what it did not write."""

    @property
    @abstractmethod
    def meaning(self) -> str:
        """What the outputs are, in a sentence or two, for whoever computes with the network alone."""

    @property
    def code(self) -> str:
        """Lines of numpy that make answers of `outputs`; '' where that takes more than a few."""
        return ""

    def shown(self, results: Results) -> Results:
        """What people are shown of results; figures take them whole."""
        return results

    def for_people(self) -> Self:
        """The same, which need not find what people are not shown: what it finds is still to be `shown`."""
        return self

    def from_score(self, score: float) -> Self:
        """The same, its answers for people beginning at a score. Raises UsageError where answers have none."""
        why = f"the model's task is {self.task}"
        raise UsageError(f"--score {score:g} has no effect here", why=why, hint="leave it out")

    @abstractmethod
    def merge(self, grid: Grid, whole: str) -> Merge:
        """What makes one answer about a large image of those for its tiles; `whole` is one of `wholes`.

        Raises UsageError for an image that is too large for that.
        """

    def unrounded(self) -> Self:
        """The same, its numbers as the network gave them."""
        return self

    @abstractmethod
    def __call__(self, outputs: Outputs, ids: Sequence[str], frames: Sequence[Frame] | None = None) -> Results:
        """Outputs of N images -> results.

        Args:
            outputs: of the network.
            ids: of the images.
            frames: where each image lies in the network's input; None gives answers in the input's own pixels.
        """


def names_of(values: dict[str, Any]) -> list[str]:
    """The class names in plain values. Raises KeyError or TypeError for what are none."""
    names = values["class_names"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("class_names is not a list of texts")
    return names


def softmax(logits: Outputs, axis: int = 1) -> npt.NDArray[np.float64]:
    """Probabilities from logits, in float64."""
    shifted = np.asarray(logits, np.float64)
    exponentials = np.exp(shifted - shifted.max(axis, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis, keepdims=True))

"""What every trained model says of itself, whatever it runs on: a bundle's config, or what an exported file carries.

No torch here: a process that only answers with an exported model never loads it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

from msresnet.data.preprocess import Preprocess
from msresnet.tasks.postprocess.base import Postprocess
from msresnet.tasks.postprocess.known import read_postprocess

if TYPE_CHECKING:
    from msresnet.tasks.base import Task


class Trained(ABC):
    """A trained model, as far as it can be known without its network.

    Attributes:
        architecture: the network's name.
        arguments: what the network was made with.
        task: what the outputs mean, learn and are measured by; asking for it loads torch.
        preprocess: from an image to the network's input.
        scores: figures by split, each with how it was measured.
        licence: of the weights, as their owner says.
        labels: what the classes were called before they became names, in their order; None where that was the same.
    """

    architecture: str
    arguments: dict[str, Any]
    task: Task
    preprocess: Preprocess
    scores: dict[str, Any]
    licence: str
    labels: list[Any] | None

    @property
    @abstractmethod
    def postprocess(self) -> Postprocess:
        """From the network's outputs to results."""

    @property
    @abstractmethod
    def params(self) -> int:
        """Parameters of the network as it was trained."""

    @property
    @abstractmethod
    def macs(self) -> int:
        """Multiply-accumulates for an image."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """All of this as plain values."""


class Exported(Trained):
    """A model in a file of another format, by the values that the file carries.

    Args:
        values: what `exported_config` wrote.
        network: the digest of the file's network.

    Raises KeyError, TypeError, ValueError or UsageError for values that contradict each other.
    """

    def __init__(self, values: dict[str, Any], network: str = "") -> None:
        self.values, self.network = values, network
        self.architecture, self.arguments = str(values["architecture"]), dict(values["arguments"])
        self.preprocess, self._postprocess = read_preprocess(values["preprocess"]), read_postprocess(values["task"])
        self.scores, self.licence = dict(values.get("scores", {})), str(values.get("licence", "not stated"))
        self.labels = read_labels(values.get("labels"), len(self._postprocess.class_names))
        self.precision = str(values["precision"])
        self._params, self._macs = int(values["params"]), int(values["macs"])

    @property
    def postprocess(self) -> Postprocess:
        """From the network's outputs to results."""
        return self._postprocess

    @cached_property
    def task(self) -> Task:  # type: ignore[override] # made when asked for, since it loads torch
        """What the outputs mean; loads torch."""
        from msresnet.tasks.known import TASKS

        return TASKS[self._postprocess.task].from_dict(self.values["task"])

    @property
    def params(self) -> int:
        """Parameters of the network as it was trained."""
        return self._params

    @property
    def macs(self) -> int:
        """Multiply-accumulates for an image."""
        return self._macs

    def config(self) -> dict[str, Any]:
        """All of this as plain values."""
        return self.values


def exported_config(trained: Trained, precision: str) -> dict[str, Any]:
    """What an exported file carries of a model: its config, and what can no longer be counted in the file."""
    return trained.config() | {"precision": precision, "params": trained.params, "macs": trained.macs}


def read_labels(values: Any, classes: int) -> list[Any] | None:
    """Labels from plain values. Raises TypeError or ValueError for what are none."""
    if values is None:
        return None
    if not isinstance(values, list) or not all(isinstance(value, (str, int, float)) for value in values):
        raise TypeError("labels is not a list of numbers, flags or texts")
    if len(values) != classes:
        raise ValueError(f"{len(values)} labels, {classes} class names")
    return values


def read_preprocess(values: dict[str, Any]) -> Preprocess:
    """A preprocess from plain values. Raises TypeError, ValueError or UsageError for what is none."""
    preprocess = Preprocess.from_dict(values)
    for name in ("mean", "std"):
        figures = getattr(preprocess, name)
        if len(figures) != preprocess.channels or not all(math.isfinite(f) for f in figures):
            raise ValueError(f"{name} {figures} is not one number for each of {preprocess.channels} channels")
    if min(preprocess.std) <= 0:
        raise ValueError(f"std {preprocess.std} is not positive")
    return preprocess

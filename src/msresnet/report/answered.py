"""Answers of a classifier, from which its sections are made. N images, K classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from msresnet.report.page import Line
from msresnet.report.story import Story
from msresnet.results import DIGITS, Classification

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Answered:
    """A story whose answers are classes."""

    story: Story
    results: Classification

    @cached_property
    def targets(self) -> Ints:
        """The true classes (N,)."""
        targets: Ints = self.story.evaluation.targets
        return targets

    @cached_property
    def answers(self) -> Ints:
        """The answered classes (N,)."""
        return self.results.indices

    @cached_property
    def confidences(self) -> npt.NDArray[np.float64]:
        """How probable each answer is said to be (N,)."""
        return self.results.confidences

    @cached_property
    def correct(self) -> Flags:
        """Which answers are right (N,)."""
        correct: Flags = self.answers == self.targets
        return correct

    def sure(self, indices: Ints, doubtful: bool = False) -> Ints:
        """Some images, the most confident answers first, or last."""
        sign = 1 if doubtful else -1
        return indices[np.argsort(sign * self.confidences[indices], kind="stable")]

    def line(self, index: int, target: int, about: str = "", tone: str = "") -> Line:
        """A class and its probability."""
        names = self.results.class_names
        return Line(names[target], f"{self.results.probabilities[index, target]:.{DIGITS}f}", about, tone)

    def lines(self, index: int) -> list[Line]:
        """What was answered; and what would have been right, where that differs."""
        answer, target = int(self.answers[index]), int(self.targets[index])
        if answer == target:
            return [self.line(index, answer)]
        return [self.line(index, answer, "answer", "wrong"), self.line(index, target, "truth")]

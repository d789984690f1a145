"""Who watches a training."""

from __future__ import annotations

from typing import Any, Protocol


class Observer(Protocol):
    """Who watches a training."""

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """After each step."""

    def epoch(self, row: dict[str, Any]) -> None:
        """After each epoch, with its line of the history."""


class Silent:
    """Watches and says nothing."""

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Say nothing."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Say nothing."""

"""Who watches a training."""

from __future__ import annotations

from typing import Any, Protocol

from msresnet.tasks.words import percent


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


class Printing(Silent):
    """Prints a line for each epoch."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Print it at once."""
        print(in_words(row), flush=True)


def in_words(row: dict[str, Any]) -> str:
    """An epoch's row of the history as a line."""
    parts = [f"epoch {row['epoch']:>3}", f"{row['seconds']:7.1f} s", f"loss {row['train_loss']:.4f}"]
    if "val_loss" in row:
        metric = next(k for k in row if k.startswith("val_") and k != "val_loss")
        parts += [f"{metric} {percent(row[metric])}", f"val_loss {row['val_loss']:.4f}", f"({row['weights']})"]
    return "  ".join(parts)

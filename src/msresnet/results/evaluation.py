"""A model that was measured."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from msresnet.results.base import Results


@dataclass(frozen=True)
class Evaluation:
    """A measured model: its answers, the truth, and the figures computed from them.

    Args:
        predictions: the answers (N).
        targets: the truths (N): class indices (N,), or of masks a list of class indices (H, W), 255 where nobody knows,
            or of boxes a list of `Boxes`.
        metrics: plain values, as written to metrics.json.
        headline: the figures that matter most, in one line.
    """

    predictions: Results
    targets: Any
    metrics: dict[str, Any]
    headline: str = ""

    def __str__(self) -> str:
        """The headline figures in one line."""
        return self.headline

    def _repr_html_(self) -> str:
        """The headline figures, for notebooks."""
        return f"<p><b>{escape(self.headline)}</b></p>"

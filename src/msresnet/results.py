"""What comes out, the same object whichever door or backend made it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

DIGITS = 4
"""Decimal places of a probability, wherever one is printed or written."""


@dataclass(frozen=True)
class Classification:
    """Class probabilities of some images.

    Args:
        ids: where each image comes from (N).
        class_names: names in the order of the columns (K).
        probabilities: (N, K) float64, rows sum to 1.
        exits: which exit of the network gave each answer (N,), from 0; None where that was not asked.

    Raises ValueError when the shapes disagree.
    """

    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    probabilities: npt.NDArray[np.float64]
    exits: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.probabilities.shape != (len(self.ids), len(self.class_names)):
            raise ValueError(
                f"probabilities of shape {self.probabilities.shape} for {len(self.ids)} images "
                f"and {len(self.class_names)} classes"
            )
        if self.exits is not None and self.exits.shape != (len(self.ids),):
            raise ValueError(f"exits of shape {self.exits.shape} for {len(self.ids)} images")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int | slice) -> Classification:
        """Some of the images, as the same kind of object."""
        rows = slice(index, index + 1 or None) if isinstance(index, int) else index
        if isinstance(index, int) and not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        exits = None if self.exits is None else self.exits[rows]
        return Classification(self.ids[rows], self.class_names, self.probabilities[rows], exits)

    def __iter__(self) -> Iterator[Classification]:
        return (self[i] for i in range(len(self)))

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """Index of the most probable class of each image (N,)."""
        return np.asarray(np.argmax(self.probabilities, axis=1), dtype=np.int64)

    @property
    def labels(self) -> list[str]:
        """Name of the most probable class of each image."""
        return [self.class_names[i] for i in self.indices]

    @property
    def confidences(self) -> npt.NDArray[np.float64]:
        """Probability of the most probable class of each image (N,)."""
        return np.asarray(self.probabilities.max(1), dtype=np.float64)

    def top(self, k: int = 5) -> list[list[tuple[str, float]]]:
        """The k most probable classes of each image, with their probabilities, most probable first."""
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        return [
            [(self.class_names[c], round(float(row[c]), DIGITS)) for c in columns]
            for row, columns in zip(self.probabilities, order, strict=True)
        ]

    def to_dict(self, k: int = 5) -> list[dict[str, Any]]:
        """One plain dictionary for each image: id, label, probability, top; and exit, from 1, where it was asked."""
        rows: list[dict[str, Any]] = [
            {
                "id": name,
                "label": best[0][0],
                "probability": best[0][1],
                "top": [{"label": label, "probability": p} for label, p in best],
            }
            for name, best in zip(self.ids, self.top(k), strict=True)
        ]
        for row, index in zip(rows, () if self.exits is None else self.exits, strict=False):
            row["exit"] = int(index) + 1
        return rows

    def __str__(self) -> str:
        """One line for each image: id, label, probability."""
        return "\n".join(f"{r['id']}: {r['label']} {r['probability']:.{DIGITS}f}" for r in self.to_dict(1))

    def _repr_html_(self) -> str:
        """A table for notebooks: the five most probable classes of the first images."""
        rows = []
        for item in self[:20].to_dict():
            bars = "".join(
                f"<div style='white-space:nowrap'><span style='display:inline-block;height:.7em;background:#3b6ea5;"
                f"width:{100 * t['probability']:.0f}px'></span> {escape(t['label'])} {t['probability']:.4f}</div>"
                for t in item["top"]
            )
            rows.append(f"<tr><td>{escape(item['id'])}</td><td><b>{escape(item['label'])}</b></td><td>{bars}</td></tr>")
        more = f"<p>… and {len(self) - 20} more</p>" if len(self) > 20 else ""
        head = "<tr><th>image</th><th>label</th><th>probabilities</th></tr>"
        return f"<table>{head}{''.join(rows)}</table>{more}"


@dataclass(frozen=True)
class Evaluation:
    """A measured model: its answers, the truth, and the figures computed from them.

    Args:
        predictions: the answers (N).
        targets: the true class indices (N,).
        metrics: plain values, as written to metrics.json.
    """

    predictions: Classification
    targets: npt.NDArray[np.int64]
    metrics: dict[str, Any]

    def __str__(self) -> str:
        """The headline figures in one line."""
        low, high = self.metrics["top1_ci95"]
        return (
            f"top-1 {100 * self.metrics['top1']:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f}) "
            f"on {self.metrics['n']:,} images"
        )

    def _repr_html_(self) -> str:
        """The headline figures, for notebooks."""
        low, high = self.metrics["top1_ci95"]
        return (
            f"<p><b>top-1 {100 * self.metrics['top1']:.2f} %</b> (95 % interval {100 * low:.2f} to {100 * high:.2f}) "
            f"on {self.metrics['n']:,} images; loss {self.metrics['loss']:.4f}, "
            f"calibration error {self.metrics['ece']:.4f}</p>"
        )

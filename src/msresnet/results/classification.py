"""The class of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.errors import UsageError
from msresnet.results.base import DIGITS, SHOWN, Results


@dataclass(frozen=True)
class Classification(Results):
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

    def part(self, rows: slice) -> Classification:
        """The answers about some of the images."""
        exits = None if self.exits is None else self.exits[rows]
        return Classification(self.ids[rows], self.class_names, self.probabilities[rows], exits)

    @classmethod
    def joined(cls, parts: Sequence[Classification]) -> Classification:
        """The answers of several objects behind each other; exits where all have them."""
        exits = [part.exits for part in parts if part.exits is not None]
        return cls(
            tuple(chain.from_iterable(part.ids for part in parts)),
            parts[0].class_names,
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate(exits) if len(exits) == len(parts) else None,
        )

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

    def with_exits(self, exits: npt.NDArray[np.int64]) -> Classification:
        """The same, with the exit that gave each answer (N,)."""
        return replace(self, exits=exits)

    def agreement(self, other: Classification) -> npt.NDArray[np.float64]:
        """1 where the most probable class is the same (N,)."""
        return np.asarray(self.indices == other.indices, np.float64)

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

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """`probabilities` (N, K) float32, and `labels` (N,), the names of the most probable classes."""
        return {
            "probabilities": self.probabilities.astype(np.float32),
            "labels": np.array(self.labels, dtype=np.object_),
        }

    def __str__(self) -> str:
        """One line for each image: id, label, probability."""
        return "\n".join(f"{r['id']}: {r['label']} {r['probability']:.{DIGITS}f}" for r in self.to_dict(1))

    def _repr_html_(self) -> str:
        """A table for notebooks: the five most probable classes of the first images."""
        rows = []
        for item in self[:SHOWN].to_dict():
            bars = "".join(
                f"<div style='white-space:nowrap'><span style='display:inline-block;height:.7em;background:#3b6ea5;"
                f"width:{100 * t['probability']:.0f}px'></span> {escape(t['label'])} {t['probability']:.4f}</div>"
                for t in item["top"]
            )
            rows.append(f"<tr><td>{escape(item['id'])}</td><td><b>{escape(item['label'])}</b></td><td>{bars}</td></tr>")
        more = f"<p>… and {len(self) - SHOWN} more</p>" if len(self) > SHOWN else ""
        head = "<tr><th>image</th><th>label</th><th>probabilities</th></tr>"
        return f"<table>{head}{''.join(rows)}</table>{more}"


def classified(results: Results) -> Classification:
    """The same results, known to be of classes. Raises UsageError for a model with another task."""
    if isinstance(results, Classification):
        return results
    kind = type(results).__name__.lower()
    hint = "train, evaluate, predict and report serve every task"
    raise UsageError("this needs a classifier", why=f"the model's answers are of another kind: {kind}", hint=hint)

"""What comes out, the same object whichever door or backend made it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from msresnet.errors import UsageError

DIGITS = 4
"""Decimal places of a probability, wherever one is printed or written."""
SHOWN = 20
"""Images that a notebook is shown."""


class Results(ABC):
    """What a model answered about some images: as long as there are images, and sliceable by them.

    Attributes:
        ids: where each image comes from (N).
        class_names: in the order of the class indices (K).
    """

    ids: tuple[str, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int | slice) -> Self:
        """Some of the images, as the same kind of object."""
        if isinstance(index, int) and not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return self.part(slice(index, index + 1 or None) if isinstance(index, int) else index)

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    @abstractmethod
    def part(self, rows: slice) -> Self:
        """The answers about some of the images."""

    @classmethod
    @abstractmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The answers of several objects, at least one, behind each other."""

    @abstractmethod
    def to_dict(self, k: int = 5) -> list[dict[str, Any]]:
        """One plain dictionary for each image; of each at most the `k` most important classes."""


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


@dataclass(frozen=True)
class Segmentation(Results):
    """The class of every pixel of some images.

    Args:
        ids: where each image comes from (N).
        class_names: names in the order of the class indices (K).
        masks: for each image the class index of its pixels, uint8 (H, W), at the image's own size.
        confidences: for each image the mean probability of its pixels' classes (N,), 0 to 1.

    Raises ValueError when the shapes disagree, or a pixel is of no class.
    """

    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    masks: tuple[npt.NDArray[np.uint8], ...]
    confidences: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        if len(self.masks) != len(self.ids) or self.confidences.shape != (len(self.ids),):
            raise ValueError(
                f"{len(self.masks)} masks and confidences of shape {self.confidences.shape} for {len(self.ids)} images"
            )
        for name, mask in zip(self.ids, self.masks, strict=True):
            if mask.ndim != 2 or mask.dtype != np.uint8:
                raise ValueError(f"the mask of {name} is {mask.dtype} {mask.shape}, not uint8 (H, W)")
            if mask.size and mask.max() >= len(self.class_names):
                raise ValueError(f"the mask of {name} holds {mask.max()}, there are {len(self.class_names)} classes")

    def part(self, rows: slice) -> Segmentation:
        """The answers about some of the images."""
        return Segmentation(self.ids[rows], self.class_names, self.masks[rows], self.confidences[rows])

    @classmethod
    def joined(cls, parts: Sequence[Segmentation]) -> Segmentation:
        """The answers of several objects behind each other."""
        return cls(
            tuple(chain.from_iterable(part.ids for part in parts)),
            parts[0].class_names,
            tuple(chain.from_iterable(part.masks for part in parts)),
            np.concatenate([part.confidences for part in parts]),
        )

    def shares(self) -> npt.NDArray[np.float64]:
        """The share of each class in each image's pixels (N, K)."""
        counts = [np.bincount(mask.ravel(), minlength=len(self.class_names)) / max(1, mask.size) for mask in self.masks]
        return np.array(counts, dtype=np.float64).reshape(len(self), len(self.class_names))

    def to_dict(self, k: int = 5) -> list[dict[str, Any]]:
        """One plain dictionary for each image: id, height, width, confidence, and the shares of the largest classes."""
        rows = []
        for name, mask, confidence, share in zip(self.ids, self.masks, self.confidences, self.shares(), strict=True):
            order = [c for c in np.argsort(-share, kind="stable")[:k] if share[c] > 0]
            found = [{"label": self.class_names[c], "share": round(float(share[c]), DIGITS)} for c in order]
            size = {"height": mask.shape[0], "width": mask.shape[1]}
            rows.append({"id": name, **size, "confidence": round(float(confidence), DIGITS), "shares": found})
        return rows

    def __str__(self) -> str:
        """One line for each image: id, size, shares of the classes."""
        return "\n".join(_mask_line(row) for row in self.to_dict())

    def _repr_html_(self) -> str:
        """A table for notebooks: the shares of the classes in the first images."""
        rows = []
        for item in self[:SHOWN].to_dict():
            size = f"{item['height']} x {item['width']}"
            shares = "<br>".join(f"{escape(s['label'])} {100 * s['share']:.1f} %" for s in item["shares"])
            cells = (escape(item["id"]), size, f"{item['confidence']:.4f}", shares)
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        more = f"<p>… and {len(self) - SHOWN} more</p>" if len(self) > SHOWN else ""
        head = "<tr><th>image</th><th>pixels</th><th>confidence</th><th>classes</th></tr>"
        return f"<table>{head}{''.join(rows)}</table>{more}"


def _mask_line(row: dict[str, Any]) -> str:
    shares = ", ".join(f"{item['label']} {100 * item['share']:.1f} %" for item in row["shares"])
    return f"{row['id']}: {row['height']}x{row['width']}, {shares}"


def classified(results: Results) -> Classification:
    """The same results, known to be of classes. Raises UsageError for a model with another task."""
    if isinstance(results, Classification):
        return results
    kind = type(results).__name__.lower()
    hint = "train, evaluate, predict and report serve every task"
    raise UsageError("this needs a classifier", why=f"the model's answers are of another kind: {kind}", hint=hint)


@dataclass(frozen=True)
class Evaluation:
    """A measured model: its answers, the truth, and the figures computed from them.

    Args:
        predictions: the answers (N).
        targets: the truths (N): class indices (N,), or of masks a list of class indices (H, W), 255 where nobody knows.
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

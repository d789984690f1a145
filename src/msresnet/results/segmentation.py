"""The class of each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.results.base import DIGITS, SHOWN, Results

BAND = 1 << 20
"""Pixels that are counted at a time."""


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

    @property
    def mask(self) -> npt.NDArray[np.uint8] | None:
        """The mask of the only image."""
        return self.masks[0] if len(self) == 1 else None

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
        counts = [_counts(mask, len(self.class_names)) / max(1, mask.size) for mask in self.masks]
        return np.array(counts, dtype=np.float64).reshape(len(self), len(self.class_names))

    def agreement(self, other: Segmentation) -> npt.NDArray[np.float64]:
        """The share of each image's pixels that have the same class (N,)."""
        pairs = zip(self.masks, other.masks, strict=True)
        return np.array([float((mine == theirs).mean()) for mine, theirs in pairs], np.float64)

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


def _counts(mask: npt.NDArray[np.uint8], classes: int) -> npt.NDArray[np.int64]:
    """Pixels of each class (K,), some rows at a time: bincount makes 8 bytes of each."""
    step, counts = max(1, BAND // max(1, mask.shape[1])), np.zeros(classes, np.int64)
    for top in range(0, mask.shape[0], step):
        counts += np.bincount(mask[top : top + step].ravel(), minlength=classes)
    return counts


def _mask_line(row: dict[str, Any]) -> str:
    shares = ", ".join(f"{item['label']} {100 * item['share']:.1f} %" for item in row["shares"])
    return f"{row['id']}: {row['height']}x{row['width']}, {shares}"

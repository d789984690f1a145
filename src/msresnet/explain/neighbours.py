"""Which images of a set look most alike to a model: nearest by the cosine of what it makes of them before its answer.

A set is streamed, and for each image that is asked about only the nearest so far are kept. Q images asked about,
B batch, F features, k neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.data.decode import printable
from msresnet.data.sets import Samples
from msresnet.errors import ModelError, UsageError
from msresnet.explain.attribution import device_of, rows_at_once
from msresnet.nn.folding import fold

EXACT = 9
"""Decimal places of a distance: the last bits of a product depend on how its rows were grouped."""


@dataclass(frozen=True)
class Neighbour:
    """An image of a set.

    Args:
        label: its class, as the set says.
        distance: 1 less the cosine, from 0 (alike) to 2.
        picture: as the network sees it, uint8 (C, H, W).
    """

    id: str
    label: str
    distance: float
    picture: npt.NDArray[np.uint8]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"id": printable(self.id), "label": self.label, "distance": round(self.distance, 4)}


@torch.no_grad()
def embed(bundle: Bundle, images: Tensor) -> Tensor:
    """Preprocessed images (B, C, H, W) uint8 -> features before the classifier, of length 1, on the CPU (B, F)."""
    model = bundle.model
    x = bundle.preprocess.tensor(images).contiguous(memory_format=torch.channels_last)
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    if not bool(pooled.isfinite().all()):
        raise ModelError("the network's features are not finite", hint="train again, at a lower --lr")
    return F.normalize(pooled.flatten(1).cpu().double(), dim=1)


def nearest_images(bundle: Bundle, images: Tensor, data: Samples, k: int) -> list[list[Neighbour]]:
    """The k nearest of a set for each image, the nearest first; of equally near ones the earlier of the set.

    Args:
        images: preprocessed, (Q, C, H, W) uint8.
        data: the set, whose class indices are the model's.

    Raises UsageError for a set of fewer than k images, ModelError for features that are not finite.
    """
    if k > len(data):
        raise UsageError(f"--neighbours {k}, but the set holds {len(data)} images", hint="fewer --neighbours")
    device, at_once = device_of(bundle), rows_at_once(images.shape)
    fast = replace(bundle, model=fold(bundle.model).to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    asked = torch.cat([embed(fast, part.to(device)) for part in images.split(at_once)])
    distances, places = asked.new_zeros(len(asked), 0), torch.zeros(len(asked), 0, dtype=torch.int64)
    for batch in data.in_order(at_once, device):
        found = (1 - asked @ embed(fast, batch.images).T).round(decimals=EXACT)
        distances = torch.cat([distances, found], 1)
        places = torch.cat([places, batch.indices.expand(len(asked), -1)], 1)
        order = distances.argsort(dim=1, stable=True)[:, :k]
        distances, places = distances.gather(1, order), places.gather(1, order)
    names = bundle.task.class_names
    return [
        [
            Neighbour(data.ids[i], names[int(data.targets[i])], max(0.0, d), data.image(i).numpy())
            for i, d in zip(row, far, strict=True)
        ]
        for row, far in zip(places.tolist(), distances.tolist(), strict=True)
    ]

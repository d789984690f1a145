"""At which scale a model finds its answers, over a whole set: mean shares by class, block and branch.

Batches are streamed and only sums are kept. K classes, R branches of all operators.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.errors import DataError
from msresnet.explain.scales import Place, check_scales, places, responses

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScaleTable:
    """Mean responses of the scales over a set, by the class that was explained.

    Args:
        counts: images of each class (K,).
        places: the branches (R).
        shares: mean share of each branch of its operator (K, R); NaN for a class without images.
        contributions: mean of what each adds to the logit (K, R); NaN likewise.
    """

    class_names: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    places: tuple[Place, ...]
    shares: Floats
    contributions: Floats

    @property
    def operators(self) -> list[str]:
        """The operators, from the image's side to the answer's."""
        return list(dict.fromkeys(place.operator for place in self.places))

    @property
    def branches(self) -> list[str]:
        """The kinds of branches, those that see least first."""
        kinds = {place.branch: place.receptive_field for place in reversed(self.places)}
        return sorted(kinds, key=lambda name: (kinds[name][0] * kinds[name][1], name))

    def overall(self) -> Floats:
        """Mean share of each branch over all images (R,)."""
        seen = self.counts > 0
        mean: Floats = self.counts[seen] @ self.shares[seen] / self.counts.sum()
        return mean

    def by_operator(self, shares: Floats) -> Floats:
        """Shares (R,) as operators (rows) by `branches` (columns); NaN where an operator has no such branch."""
        table = np.full((len(self.operators), len(self.branches)), np.nan)
        for place, share in zip(self.places, shares, strict=True):
            at = self.operators.index(place.operator), self.branches.index(place.branch)
            table[at] = share + np.nan_to_num(table[at])
        return table

    def by_class(self) -> Floats:
        """The mean share of each kind of branch over all operators, by class: (K, `branches`)."""
        kinds = [[place.branch == name for place in self.places] for name in self.branches]
        table: Floats = self.shares @ np.array(kinds, dtype=np.float64).T / len(self.operators)
        return table

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what each branch of each operator has in all, and for each class."""
        present = np.flatnonzero(self.counts)
        rows = [
            {
                "operator": place.operator,
                "branch": place.branch,
                "receptive_field": list(place.receptive_field),
                "share": round(float(share), 4),
                "shares": {self.class_names[k]: round(float(self.shares[k, r]), 4) for k in present},
                "contributions": {self.class_names[k]: round(float(self.contributions[k, r]), 4) for k in present},
            }
            for r, (place, share) in enumerate(zip(self.places, self.overall(), strict=True))
        ]
        return {
            "n": int(self.counts.sum()),
            "images": dict(zip(self.class_names, self.counts.tolist(), strict=True)),
            "scales": rows,
        }


def scale_table(bundle: Bundle, batches: Iterable[Tensor], target: int | None = None) -> ScaleTable:
    """Mean responses over batches of preprocessed images (B, C, H, W) uint8 on the network's device.

    Args:
        target: the class to explain; None explains what each image is taken for.

    Raises UsageError for a network without multi-scale operators, DataError for no images.
    """
    check_scales(bundle.model)
    found, names = tuple(places(bundle.model)), bundle.task.class_names
    counts = torch.zeros(len(names), dtype=torch.int64)
    sums = torch.zeros(2, len(names), len(found), dtype=torch.float64)
    for images in batches:
        wanted = None if target is None else torch.full((len(images),), target, device=images.device)
        response = responses(bundle, bundle.preprocess.tensor(images), wanted)
        classes = response.targets.cpu()
        counts += torch.bincount(classes, minlength=len(names))
        values = torch.stack([response.shares, response.contributions]).cpu().double()  # (2, B, R)
        sums.index_add_(1, classes, values)
    if not int(counts.sum()):
        raise DataError("the set holds no image", hint="--split train")
    means = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp_min(1), torch.nan).numpy()
    return ScaleTable(names, counts.numpy(), found, means[0], means[1])

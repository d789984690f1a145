"""Whether a map shows what a model looks at: deletion and insertion (RISE, arXiv 1806.07421), beside two controls.

Deletion takes the most important pixels away first: the faster the class's probability falls, the smaller the area
under it, the better the map. Insertion gives them back to a blurred image first: the larger the area the better. What
is taken away becomes the mean colour of the training images for every map alike. The blur is much wider than the
paper's (a deviation of an eighth of the side, not of a 45th): of a digit on 28 pixels it would leave all.

N images, S steps, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.explain.attribution import blurred, rows_at_once
from msresnet.results import classified

STEPS = 32
BLUR = 1 / 8
"""Deviation of the blur that insertion begins with, as a share of the longer side."""
Areas = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Faithfulness:
    """How a class's probability goes while pixels are taken away, and given back, most important first.

    Args:
        deletion, insertion: the probability after each step (N, S + 1).
    """

    deletion: Areas
    insertion: Areas

    def areas(self) -> tuple[Areas, Areas]:
        """Area under each image's curve of deletion (small is good) and of insertion (large is good), (N,) each."""
        step = 1 / (self.deletion.shape[1] - 1)
        return np.trapezoid(self.deletion, dx=step, axis=1), np.trapezoid(self.insertion, dx=step, axis=1)


def faithfulness(bundle: Bundle, images: Tensor, targets: Tensor, maps: Tensor, steps: int = STEPS) -> Faithfulness:
    """The curves of deletion and insertion.

    Args:
        images: normalised (N, C, H, W).
        targets: the class whose probability is looked at (N,).
        maps: how important each pixel is, (N, H, W); only the order counts.
        steps: S; each takes or gives an equal share of the pixels.
    """
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    ranks = order.argsort(dim=1).view_as(maps)
    bounds = torch.linspace(0, ranks[0].numel(), steps + 1, device=ranks.device).round()

    def curves(before: Tensor, after: Tensor) -> Areas:
        pairs = zip(before, after, ranks, targets.tolist(), strict=True)
        return np.stack([_curve(bundle, (one, other), rank, bounds)[:, target] for one, other, rank, target in pairs])

    return Faithfulness(curves(images, torch.zeros_like(images)), curves(blurred(images, BLUR), images))


@torch.no_grad()
def _curve(bundle: Bundle, images: tuple[Tensor, Tensor], ranks: Tensor, bounds: Tensor) -> Areas:
    """Probabilities (S + 1, K) while an image (C, H, W) becomes another, pixels of the lowest ranks (H, W) first."""
    one, other = images
    found = []
    for part in bounds.split(rows_at_once(one.shape)):
        mixed = torch.where(ranks < part[:, None, None, None], other, one)  # (S', C, H, W)
        results = classified(bundle.task.decode(bundle.model(mixed), [""] * len(mixed)))
        found.append(results.probabilities)
    return np.concatenate(found)


def random_map(images: Tensor) -> Tensor:
    """Any order of the pixels (N, H, W), the same each time: what a map that knows nothing is worth."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(len(images), *images.shape[-2:], generator=generator).to(images.device)


def edge_map(images: Tensor) -> Tensor:
    """How strong edges are (N, H, W), by Sobel: what a map that knows the image, and not the model, is worth."""
    grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=images.device)
    slopes = F.conv2d(grey, torch.stack([across, across.T])[:, None])  # (N, 2, H, W)
    return slopes.square().sum(1).sqrt()


CONTROLS: dict[str, Callable[[Tensor], Tensor]] = {"random": random_map, "edges": edge_map}
"""Maps that know nothing of the model; an explanation is worth something if it beats them."""

"""What tells objects apart: a vector of length 1 at every place of a pyramid's maps, close for places of one object.

B batch, C channels, E numbers of a vector, h and w pixels of a map, P places of all maps.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msresnet.nn.detection import tower

LEAST = 1e-6
"""Lengths that are divided by."""


class Embedder(nn.Module):
    """The pyramid's maps -> vectors (B, P, E), the places row by row, fine to coarse, as `DetectionHead` has them."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """[(B, C, h, w)] -> (B, P, E), each of length 1."""
        vectors = torch.cat([x.flatten(2).transpose(1, 2) for x in self.vectors(maps)], 1)
        # In float32 whatever the precision: lengths are sums of many squares. `F.normalize` would keep an exported
        # network to the batch that it was exported with.
        vectors = vectors.float()
        lengths: Tensor = vectors.norm(dim=2, keepdim=True)
        return vectors / lengths.clamp_min(LEAST)

    @abstractmethod
    def vectors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """[(B, C, h, w)] -> [(B, E, h, w)], of any length."""


class EmbeddingHead(Embedder):
    """Two convolutions that all maps share; they learn with the detector (arXiv 2004.01888, section 3.2).

    Args:
        width: channels of each map.
        size: E.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.tower, self.project = tower(width, 1), nn.Conv2d(width, size, 1)

    def vectors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """[(B, C, h, w)] -> [(B, E, h, w)]."""
        return [self.project(self.tower(x)) for x in maps]


class PooledFeatures(Embedder):
    """The finest map itself, averaged around each place over an anchor's half: what a network has without learning it.

    Args:
        strides: of each map, fine to coarse.
    """

    def __init__(self, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)

    def vectors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """[(B, C, h, w)] -> [(B, C, h, w)], all from the first."""
        finest = maps[0] - maps[0].mean((2, 3), keepdim=True)
        pooled = []
        for stride, x in zip(self.strides, maps, strict=True):
            reach = stride // self.strides[0]
            around = F.avg_pool2d(finest, 2 * reach + 1, 1, reach, count_include_pad=False)
            pooled.append(F.adaptive_avg_pool2d(around, (x.shape[-2], x.shape[-1])))
        return pooled

"""An anchor-free detection head: at every place of a pyramid's maps a box, and how much speaks for each class there.

A place is a pixel of a map; it stands for the middle of the square of the image that the pixel covers. Boxes are xyxy
in pixels of the network's input. B batch, P places of all maps, K classes, h and w pixels of a map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msresnet.nn.convolution import he_init

PRIOR = 0.01
"""What each class's probability begins at: nearly all places show nothing (arXiv 1708.02002, section 4.1)."""
ANCHOR = 8
"""Side in strides of the box that a place begins with, and by which boxes are assigned (arXiv 1912.02424)."""
FARTHEST = math.log(512)
"""Bound of the logarithm of how far an edge is, in halves of an anchor: what is not bounded may overflow."""
DEPTH = 4
"""Convolutions of a tower."""
FEW = 8
"""Channels that GroupNorm takes together (arXiv 1803.08494 takes groups of 8 in 256 channels)."""


class DetectionHead(nn.Module):
    """Two towers of convolutions with GroupNorm, one for classes and one for boxes, that all maps share.

    The form of FCOS (arXiv 1904.01355) with a factor for each map; how far an edge is, is learnt as a logarithm.

    Args:
        strides: of each map, fine to coarse.
        width: channels of each.
        num_classes: K; 0 gives the map before the last layer.
        drop_rate: dropout before the last layer.
    """

    def __init__(self, strides: Sequence[int], width: int, num_classes: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.strides, self.width = tuple(strides), width
        self.class_tower, self.box_tower = tower(width, DEPTH), tower(width, DEPTH)
        self.drop = nn.Dropout(drop_rate)
        self.scales = nn.Parameter(torch.ones(len(self.strides)))
        self.box = nn.Conv2d(width, 4, 3, padding=1)
        nn.init.normal_(self.box.weight, std=0.01)
        nn.init.zeros_(self.box.bias)  # type: ignore[arg-type]
        self.reset(num_classes)

    def reset(self, num_classes: int) -> None:
        """A fresh last layer for other classes."""
        self.classifier: nn.Module = nn.Identity()
        if num_classes:
            self.classifier = layer = nn.Conv2d(self.width, num_classes, 3, padding=1)
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, -math.log(1 / PRIOR - 1))  # type: ignore[arg-type]

    def classes(self, x: Tensor) -> Tensor:
        """A map (B, width, h, w) -> what the classifier reads, of the same shape."""
        return self.drop(self.class_tower(x))  # type: ignore[no-any-return]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The pyramid's maps -> (B, P, 4 + K): boxes, then logits; the places row by row, fine to coarse."""
        levels = zip(self.strides, self.scales, maps, strict=True)
        return torch.cat([self._level(x, stride, scale) for stride, scale, x in levels], 1)

    def _level(self, x: Tensor, stride: int, scale: Tensor) -> Tensor:
        logits = self.classifier(self.classes(x)).float()
        # In float32 whatever the precision: of 16 bits, too few would be left for a place in a large image.
        far = (self.box(self.box_tower(x)).float() * scale.float()).clamp(max=FARTHEST).exp() * (stride * ANCHOR / 2)
        middles = level_places(x.shape[-2], x.shape[-1], stride, x.device)
        far, logits = far.flatten(2).transpose(1, 2), logits.flatten(2).transpose(1, 2)
        return torch.cat([middles - far[..., :2], middles + far[..., 2:], logits], 2)


def tower(width: int, depth: int) -> nn.Sequential:
    """Convolutions that keep resolution and channels, each with GroupNorm and ReLU."""
    groups = width // FEW if width % FEW == 0 else 1
    layers: list[nn.Module] = []
    for _ in range(depth):
        convolution = nn.Conv2d(width, width, 3, padding=1, bias=False)
        he_init(convolution)
        layers += [convolution, nn.GroupNorm(groups, width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def level_places(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """The middles (x, y) in the image of a map's pixels, row by row: (h w, 2) float32."""
    rows, columns = ((torch.arange(side, device=device) + 0.5) * stride for side in (height, width))
    # The exporter to ONNX gets `repeat_interleave` by a free number wrong.
    return torch.stack(torch.broadcast_tensors(columns, rows[:, None]), -1).flatten(0, 1)


def places(size: tuple[int, int], strides: Sequence[int], device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Of an image of `size` (H, W), the middles (P, 2) of all maps' pixels, and the stride of each (P,)."""
    device = torch.device("cpu") if device is None else device
    middles, steps = [], []
    for stride in strides:
        level = level_places(-(-size[0] // stride), -(-size[1] // stride), stride, device)
        middles.append(level)
        steps.append(torch.full((len(level),), float(stride), device=device))
    return torch.cat(middles), torch.cat(steps)

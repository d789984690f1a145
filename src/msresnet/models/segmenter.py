"""Any backbone with a feature pyramid and a class for each pixel: (B, C, H, W) -> logits (B, K, H, W).

Decisions:

- Of each resolution the deepest map is taken. The pyramid ends at a quarter of the image's side, as in Panoptic FPN
  (arXiv 1901.02446); of networks for small images, whose maps end at an eighth or finer, the finest map is taken too.
- The pyramid is as wide as the finest map that is taken, within 16 and 128 channels, unless told otherwise: what is
  added then costs about what the finest stage does, and the small networks stay small.
"""

from __future__ import annotations

from torch import Tensor

from msresnet.models.base import Config, FeatureInfo
from msresnet.models.embodied import BodySpec, Embodied
from msresnet.nn.convolution import he_init
from msresnet.nn.heads import PyramidHead
from msresnet.nn.necks import FeaturePyramid

FINEST, SMALL = 4, 8
"""The pyramid ends at this part of the side, for networks that go below the second."""
NARROWEST, WIDEST = 16, 128


class Segmenter(Embodied):
    """A backbone, a feature pyramid over its maps, and a head that gives each pixel a class."""

    mark = "head.steps."

    def __init__(self, spec: BodySpec, config: Config) -> None:
        super().__init__(spec, config)
        stages = self.body.feature_info
        self.levels = levels(stages)
        channels = [stages[i].num_chs for i in self.levels]
        self.num_features = self.width(channels[0], NARROWEST, WIDEST)
        self.neck = FeaturePyramid(channels, self.num_features)
        self.head = PyramidHead(len(channels), self.num_features, config.num_classes, config.drop_rate)
        for part in (self.neck, self.head.steps):
            he_init(part)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the pyramid's maps, summed at the finest resolution (B, num_features, h, w)."""
        merged: Tensor = self.head.merged(self._pyramid(x))
        return merged

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The summed map (B, num_features, h, w) -> logits (B, K, h, w) at its resolution."""
        x = self.head.drop(x)
        return x if pre_logits else self.classify(x)

    def forward(self, x: Tensor, exits: bool = False) -> Tensor | list[Tensor]:
        """(B, C, H, W) -> (B, K, H, W); with `exits` a list of this one answer."""
        logits: Tensor = self.head(self._pyramid(x), (x.shape[-2], x.shape[-1]))
        return [logits] if exits else logits

    def _pyramid(self, x: Tensor) -> list[Tensor]:
        maps = self.body.forward_stages(x, max(self.levels))
        pyramid: list[Tensor] = self.neck([maps[i] for i in self.levels])
        return pyramid


def levels(stages: FeatureInfo) -> list[int]:
    """Which of a backbone's maps make the pyramid, fine to coarse."""
    deepest = {stage.reduction: index for index, stage in enumerate(stages)}
    finest = FINEST if max(deepest) > SMALL else 1
    return [deepest[reduction] for reduction in sorted(deepest) if reduction >= finest]

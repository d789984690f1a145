"""Any backbone with a feature pyramid and a class for each pixel: (B, C, H, W) -> logits (B, K, H, W).

Decisions:

- Of each resolution the deepest map is taken. The pyramid ends at a quarter of the image's side, as in Panoptic FPN
  (arXiv 1901.02446); of networks for small images, whose maps end at an eighth or finer, the finest map is taken too.
- The pyramid is as wide as the finest map that is taken, within 16 and 128 channels, unless told otherwise: what is
  added then costs about what the finest stage does, and the small networks stay small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.models.arguments import MOST_CHANNELS
from msresnet.models.base import Config, FeatureInfo, ImageModel, StageInfo
from msresnet.nn.heads import GlobalPool, Pooling, PyramidHead
from msresnet.nn.necks import FeaturePyramid

FINEST, SMALL = 4, 8
"""The pyramid ends at this part of the side, for networks that go below the second."""
NARROWEST, WIDEST = 16, 128


@dataclass(frozen=True)
class SegmenterSpec:
    """A backbone, as its family builds it from a row, and the channels of the pyramid (None: by the finest map)."""

    network: Callable[[Any, Config], ImageModel]
    row: Any
    width: int | None = None

    def __post_init__(self) -> None:
        width = self.width
        if width is not None and (
            not isinstance(width, int) or isinstance(width, bool) or not 0 < width <= MOST_CHANNELS
        ):
            what = f"the model argument pyramid_width={width!r}"
            raise UsageError(what, why=f"channels, from 1 to {MOST_CHANNELS}")


class Segmenter(ImageModel):
    """A backbone, a feature pyramid over its maps, and a head that gives each pixel a class."""

    classifier_name: ClassVar[str] = "head.classifier"

    def __init__(self, spec: SegmenterSpec, config: Config) -> None:
        super().__init__(config)
        self.spec = spec
        self.body = _without_tail(spec.network(spec.row, config._replace(num_classes=0)))
        self.min_size = self.body.min_size
        stages = self.body.feature_info
        self.feature_info = FeatureInfo([StageInfo(s.num_chs, s.reduction, f"body.{s.module}") for s in stages])
        self.attribution_layer = f"body.{self.body.attribution_layer}"
        self.levels = levels(self.body.feature_info)
        channels = [stages[i].num_chs for i in self.levels]
        self.num_features = min(WIDEST, max(NARROWEST, channels[0])) if spec.width is None else spec.width
        self.global_pool = GlobalPool("")
        self.neck = FeaturePyramid(channels, self.num_features)
        self.head = PyramidHead(len(channels), self.num_features, config.num_classes, config.drop_rate)
        for part in (self.neck, self.head.steps):
            for module in part.modules():
                if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_stages(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        """(B, C, H, W) -> the backbone's maps."""
        return self.body.forward_stages(x, last)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the pyramid's maps, summed at the finest resolution (B, num_features, h, w)."""
        return self.head.merged(self._pyramid(x))

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

    def advance(self, state: list[Tensor], exit_index: int) -> tuple[list[Tensor], Tensor]:
        """The one exit is the end."""
        answer: Tensor = self(state[0])
        return [], answer

    def reset_classifier(self, num_classes: int, global_pool: Pooling | None = None) -> None:
        """A fresh last layer for other classes. Raises UsageError for a pooling, of which there is none."""
        if global_pool:
            raise UsageError(f"global_pool={global_pool!r}", why="a class for each pixel needs the whole map")
        self.config = self.config._replace(num_classes=num_classes)
        self.num_classes = num_classes
        self.head.reset(num_classes)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As the backbone's own."""
        self.body.set_grad_checkpointing(enable)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The backbone's layers; pyramid and head follow them."""
        matcher = self.body.group_matcher(coarse)
        blocks = matcher["blocks"]
        patterns = [(blocks, None)] if isinstance(blocks, str) else blocks
        return {"stem": _below(matcher["stem"]), "blocks": [(_below(p), suffix) for p, suffix in patterns]}


def levels(stages: FeatureInfo) -> list[int]:
    """Which of a backbone's maps make the pyramid, fine to coarse."""
    deepest = {stage.reduction: index for index, stage in enumerate(stages)}
    finest = FINEST if max(deepest) > SMALL else 1
    return [deepest[reduction] for reduction in sorted(deepest) if reduction >= finest]


def _below(pattern: str) -> str:
    """A pattern of names in the backbone for names in the whole."""
    return rf"^body\.(?:{pattern.replace('^', '')})"


def _without_tail(body: ImageModel) -> ImageModel:
    """A backbone without what stands behind its stages, which would learn nothing."""
    for name in body.tail:
        setattr(body, name, nn.Identity())
    return body

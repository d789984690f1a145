"""Any backbone with a pyramid and boxes at its places: (B, C, H, W) -> (B, P, 4 + K), boxes xyxy in pixels and logits.

With `embedding` E, a vector that tells objects apart follows: (B, P, 4 + K + E).

Decisions:

- Images up to 256 pixels, whose objects have few pixels too, are looked at from a quarter of the resolution on, larger
  ones from an eighth on (P3 to P7 of FCOS, arXiv 1904.01355); `--model-args finest=4` says otherwise. There are up to
  five maps, each half as fine as the one before, none coarser than the image is large.
- Of each resolution the deepest of the backbone's maps is taken, up to the first that it lacks. Coarser ones are made
  by the neck; where the backbone has no map as fine, the pyramid begins at its finest.
- The head is shared by all maps and as wide as the finest that is taken, within 32 and 128 channels, unless
  `pyramid_width` says otherwise.
- Sides need not be multiples of anything: a map has as many places as there are squares that touch the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import dropwhile, takewhile

import torch
from torch import Tensor

from msresnet.errors import UsageError
from msresnet.models.arguments import check_count
from msresnet.models.base import Config, FeatureInfo
from msresnet.models.embodied import BodySpec, Embodied
from msresnet.nn.convolution import he_init
from msresnet.nn.detection import DetectionHead
from msresnet.nn.embedding import Embedder, EmbeddingHead
from msresnet.nn.fusion import resize_to
from msresnet.nn.necks import PathAggregation

SMALL_IMAGE, FINE, USUAL, MAPS = 256, 4, 8, 5
NARROWEST, WIDEST = 32, 128
MOST_EMBEDDED = 1024
FINEST = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class DetectorSpec(BodySpec):
    """And how far the finest map divides the image's resolution (None: by its size), and E, 0 for no vectors."""

    finest: int | None = None
    embedding: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embedding != 0:
            check_count("embedding", self.embedding, MOST_EMBEDDED)


class Detector(Embodied):
    """A backbone, a pyramid with a way there and back, and a head that gives boxes at each place of each map.

    Raises UsageError for a finest map that cannot be.
    """

    mark = "head.box."
    optional_weights = r"embedder\..+"

    def __init__(self, spec: DetectorSpec, config: Config) -> None:
        super().__init__(spec, config)
        stages = self.body.feature_info
        self.strides = strides(stages, config.img_size, spec.finest)
        self.levels = levels(stages, self.strides)
        self.attribution_layer = self.feature_info[self.levels[-1]].module
        channels = [stages[i].num_chs for i in self.levels]
        extra, self.skipped = _extra(stages[self.levels[-1]].reduction, self.strides)
        self.num_features = self.width(channels[0], NARROWEST, WIDEST)
        self.neck = PathAggregation(channels, self.num_features, extra)
        self.head = DetectionHead(self.strides, self.num_features, config.num_classes, drop_rate=config.drop_rate)
        he_init(self.neck)
        self.embedder: Embedder | None = EmbeddingHead(self.num_features, spec.embedding) if spec.embedding else None

    @property
    def used_stages(self) -> int:
        """Those up to the coarsest that the pyramid takes."""
        return self.levels[-1] + 1

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the pyramid's finest map (B, num_features, h, w)."""
        return self._pyramid(x)[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """A map of the pyramid (B, num_features, h, w) -> logits (B, K, h, w) at its places."""
        x = self.head.classes(x)
        return x if pre_logits else self.classify(x)

    def forward(self, x: Tensor, exits: bool = False) -> Tensor | list[Tensor]:
        """(B, C, H, W) -> (B, P, 4 + K + E); with `exits` a list of this one answer."""
        pyramid = self._pyramid(x)
        answers: Tensor = self.head(pyramid)
        if self.embedder is not None:
            answers = torch.cat([answers, self.embedder(pyramid)], 2)
        return [answers] if exits else answers

    def _pyramid(self, x: Tensor) -> list[Tensor]:
        maps, given = self.body.forward_stages(x, max(self.levels)), []
        for index in self.levels:
            reduction = self.body.feature_info[index].reduction
            # Only of networks that lose a border at each step is a map smaller than this.
            given.append(resize_to(maps[index], (-(-x.shape[-2] // reduction), -(-x.shape[-1] // reduction))))
        pyramid: list[Tensor] = self.neck(given)[self.skipped :]
        return pyramid


def strides(stages: FeatureInfo, size: tuple[int, int], finest: int | None = None) -> tuple[int, ...]:
    """How far each of a detector's maps divides the resolution of images of (H, W), fine to coarse.

    Raises UsageError for a `finest` that is not a power of two up to 32, or finer than the backbone's maps.
    """
    own = min(stage.reduction for stage in stages)
    if finest is not None and (finest not in FINEST or isinstance(finest, bool) or finest < own):
        why = f"the backbone's finest map divides the resolution by {own}"
        hint = " or ".join(f"finest={f}" for f in FINEST if f >= own)
        raise UsageError(f"the model argument finest={finest!r}", why=why, hint=hint)
    first = max(own, finest or (FINE if max(size) <= SMALL_IMAGE else USUAL))
    each = [first * 2**i for i in range(MAPS)]
    return tuple(stride for stride in each if stride <= max(first, *size))


def levels(stages: FeatureInfo, wanted: tuple[int, ...]) -> list[int]:
    """Which of a backbone's maps make the pyramid, fine to coarse, each half of the one before.

    The wanted ones up to the first that it lacks, for the neck makes coarser ones itself; else its coarsest.
    """
    deepest = {stage.reduction: index for index, stage in enumerate(stages)}
    there = dropwhile(lambda stride: stride not in deepest, wanted)
    return [deepest[stride] for stride in takewhile(deepest.__contains__, there)] or [deepest[max(deepest)]]


def _extra(coarsest: int, wanted: tuple[int, ...]) -> tuple[int, int]:
    """How many coarser maps the neck has to make, and how many of its maps, the fine ones, nobody wants."""
    made = [coarsest]
    while made[-1] < wanted[-1]:
        made.append(2 * made[-1])
    return len(made) - 1, sum(stride < wanted[0] for stride in made)

"""A network that reads the maps of a backbone: what a class for each pixel and boxes have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.models.arguments import MOST_CHANNELS
from msresnet.models.base import Config, FeatureInfo, ImageModel, StageInfo
from msresnet.nn.heads import GlobalPool, Pooling


@dataclass(frozen=True)
class BodySpec:
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
            raise UsageError(what, why=f"channels, from 1 to {MOST_CHANNELS}", hint="pyramid_width=64")


class Embodied(ImageModel):
    """A backbone as `body`, without what stands behind its stages; pyramid and head are the subclass's.

    The subclass gives a `head` with `reset(num_classes)`, and the `mark` by which tensors of its kind are known.
    """

    classifier_name: ClassVar[str] = "head.classifier"
    mark: ClassVar[str]
    head: Any

    def __init__(self, spec: BodySpec, config: Config) -> None:
        super().__init__(config)
        self.spec = spec
        self.body = _without_tail(spec.network(spec.row, config._replace(num_classes=0)))
        self.min_size = self.body.min_size
        stages = self.body.feature_info
        self.feature_info = FeatureInfo([StageInfo(s.num_chs, s.reduction, f"body.{s.module}") for s in stages])
        self.attribution_layer = f"body.{self.body.attribution_layer}"
        self.global_pool = GlobalPool("")

    def width(self, channels: int, narrowest: int, widest: int) -> int:
        """Channels of the pyramid: what was asked for, else those of a map within bounds."""
        return min(widest, max(narrowest, channels)) if self.spec.width is None else int(self.spec.width)

    def forward_stages(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        """(B, C, H, W) -> the backbone's maps."""
        return self.body.forward_stages(x, last)

    def advance(self, state: list[Tensor], exit_index: int) -> tuple[list[Tensor], Tensor]:
        """The one exit is the end."""
        answer: Tensor = self(state[0])
        return [], answer

    def reset_classifier(self, num_classes: int, global_pool: Pooling | None = None) -> None:
        """A fresh last layer for other classes. Raises UsageError for a pooling, of which there is none."""
        if global_pool:
            raise UsageError(f"global_pool={global_pool!r}", why="the head needs the whole map", hint="leave it out")
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


def _below(pattern: str) -> str:
    """A pattern of names in the backbone for names in the whole."""
    return rf"^body\.(?:{pattern.replace('^', '')})"


def _without_tail(body: ImageModel) -> ImageModel:
    """A backbone without what stands behind its stages, which would learn nothing."""
    for name in body.tail:
        setattr(body, name, nn.Identity())
    return body

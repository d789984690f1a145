"""What every network offers, whatever its family: timm's methods, so that code written for timm runs here.

A subclass declares its stages in `feature_info` and gives `forward_stages`; the rest stands here once.
B batch, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from msresnet.errors import UsageError
from msresnet.nn.heads import GlobalPool, Pooling, multiplier


class StageInfo(NamedTuple):
    """One stage's map: channels, how far it divides the resolution, and the module that makes it."""

    num_chs: int
    reduction: int
    module: str


class Config(NamedTuple):
    """Arguments that all networks share.

    Args:
        num_classes: K; 0 leaves the classifier out.
        in_chans: channels of the image.
        img_size: (H, W) in pixels that the network is meant for; most take any other as well.
        global_pool: how the last map becomes a vector; None is the family's own way.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0.
    """

    num_classes: int = 1000
    in_chans: int = 3
    img_size: tuple[int, int] = (224, 224)
    global_pool: Pooling | None = None
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0


class ImageModel(nn.Module, ABC):
    """A network from images (B, C, H, W) to logits (B, K).

    Attributes:
        feature_info: its stages, fine to coarse.
        num_features: channels of the last map.
        min_size: the smallest image side in pixels.
    """

    feature_info: tuple[StageInfo, ...]
    num_features: int
    min_size: int = 1
    attribution_layer: str = ""
    """Path of the module whose map explains the decision best (Grad-CAM's layer)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.num_classes, self.in_chans = config.num_classes, config.in_chans
        self.drop_rate = config.drop_rate
        self.grad_checkpointing = False

    def _add_classifier(self) -> None:
        self.global_pool = GlobalPool("avg" if self.config.global_pool is None else self.config.global_pool)
        self.drop = nn.Dropout(self.drop_rate)
        self.fc = self._linear(self.num_classes)

    def _linear(self, num_classes: int) -> nn.Module:
        return nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    @property
    def head_hidden_size(self) -> int:
        """Length of the pooled vector."""
        return self.num_features * multiplier(self.global_pool.kind)

    @abstractmethod
    def forward_stages(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        """The map of each stage, fine to coarse, up to and with index `last` (None: all)."""

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the last map, before pooling (B, num_features, h, w)."""
        return self.forward_stages(x)[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map (B, C, h, w) -> logits (B, K), or the pooled vector (B, C')."""
        x = self.drop(self.global_pool(x))
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        stop_early: bool = False,
        intermediates_only: bool = False,
    ) -> Any:
        """Chosen stages' maps, and the last one unless `intermediates_only`.

        Args:
            x: (B, C, H, W).
            indices: which of `feature_info`; None all, an int the last n, negatives count from the end.
            stop_early: do not run what comes after the last chosen stage.
        """
        chosen = self.feature_indices(indices)
        maps = self.forward_stages(x, max(chosen) if stop_early else None)
        picked = [maps[i] for i in chosen]
        return picked if intermediates_only else (self._final(maps), picked)

    def _final(self, maps: list[Tensor]) -> Tensor:
        """What `forward_features` gives, from the stages' maps."""
        return maps[-1]

    def feature_indices(self, indices: int | Sequence[int] | None) -> list[int]:
        """Plain indices into `feature_info`. Raises UsageError for one that does not exist."""
        n = len(self.feature_info)
        if indices is None:
            return list(range(n))
        wanted = range(n - indices, n) if isinstance(indices, int) else indices
        plain = [i + n if i < 0 else i for i in wanted]
        if not plain or min(plain) < 0 or max(plain) >= n:
            raise UsageError(f"stage {indices} does not exist", why=f"the network has stages 0 to {n - 1}")
        return plain

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: Pooling | None = None) -> None:
        """A fresh classifier for other classes (0: none), perhaps with another pooling."""
        if global_pool is not None:
            self.global_pool = GlobalPool(global_pool)
        self.num_classes = num_classes
        self.config = self.config._replace(num_classes=num_classes, global_pool=self.global_pool.kind)
        self.fc = self._linear(num_classes)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory: compute each stage again in the backward pass instead of keeping its maps."""
        self.grad_checkpointing = enable

    def run_stage(self, stage: nn.Module, x: Tensor) -> Tensor:
        """A stage's map, checkpointed when asked for."""
        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(stage, x, use_reentrant=False)  # type: ignore[no-any-return]
        return stage(x)  # type: ignore[no-any-return]

    @abstractmethod
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameter names into layers, first to last (timm's layer-wise decay)."""


class FeatureInfo:
    """timm's view of the declared stages."""

    def __init__(self, stages: Sequence[StageInfo]) -> None:
        self.stages = tuple(stages)

    def channels(self) -> list[int]:
        """Channels of each map."""
        return [s.num_chs for s in self.stages]

    def reduction(self) -> list[int]:
        """How far each map divides the image's resolution."""
        return [s.reduction for s in self.stages]

    def module_name(self) -> list[str]:
        """The module that makes each map."""
        return [s.module for s in self.stages]


class FeatureExtractor(nn.Module):
    """A network that returns its stages' maps instead of logits (`features_only=True`)."""

    def __init__(self, model: ImageModel, out_indices: int | Sequence[int] | None) -> None:
        super().__init__()
        model.reset_classifier(0)
        self.model = model
        self.indices = model.feature_indices(out_indices)
        self.feature_info = FeatureInfo([model.feature_info[i] for i in self.indices])

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> one (B, C_i, H_i, W_i) for each chosen stage."""
        maps = self.model.forward_stages(x, max(self.indices))
        return [maps[i] for i in self.indices]

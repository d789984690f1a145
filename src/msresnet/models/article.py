"""The network of the article that the project starts from, repaired: the baseline to beat.

Three 3x3 convolutions without padding, each followed by a 2x2 max-pool, then two dense layers; 110,474 parameters for a
28x28 grey image and ten classes. Its last map is flattened, so it takes images of one size only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.models.base import Config, FeatureInfo, ImageModel, StageInfo


@dataclass(frozen=True)
class ArticleSpec:
    """The article leaves nothing to choose."""


class ArticleCNN(ImageModel):
    """(B, C, H, W) -> (B, K), with H and W those of `img_size`."""

    min_size = 22
    tail = ("hidden",)

    def __init__(self, spec: ArticleSpec, config: Config) -> None:
        super().__init__(config)
        self.spec = spec
        height, width = config.img_size
        for _ in range(3):
            height, width = (height - 2) // 2, (width - 2) // 2
        if min(height, width) < 1:
            raise UsageError(
                f"article_cnn cannot take an image of {config.img_size[0]}x{config.img_size[1]} pixels",
                why="three unpadded convolutions and pools leave nothing",
                hint=f"at least {self.min_size} pixels: --image-size 28",
            )
        if config.drop_path_rate or config.global_pool is not None:
            what = "article_cnn has no drop_path_rate and no global_pool"
            raise UsageError(what, why="it has no residual blocks", hint="leave them out")
        chs = (32, 64, 128)
        for i, (c_in, c_out) in enumerate(zip((config.in_chans, *chs), chs, strict=False)):
            layers = (nn.Conv2d(c_in, c_out, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2))
            self.add_module(f"layer{i + 1}", nn.Sequential(*layers))
        self.feature_info = FeatureInfo([StageInfo(c, 2 ** (i + 1), f"layer{i + 1}") for i, c in enumerate(chs)])
        self.attribution_layer = "layer3.1"
        self.num_features = 128
        self.add_classifier()
        self.hidden = nn.Sequential(nn.Linear(128 * height * width, 128), nn.ReLU(inplace=True))

    @property
    def head_hidden_size(self) -> int:
        """Length of the dense layer."""
        return 128

    def forward_stages(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        """(B, C, H, W) -> the three pooled maps."""
        if tuple(x.shape[-2:]) != tuple(self.config.img_size):
            what = f"article_cnn takes images of {self.config.img_size}, not {tuple(x.shape[-2:])}"
            raise UsageError(what, hint=f"img_size={list(x.shape[-2:])} when it is made")
        maps = []
        for name in ("layer1", "layer2", "layer3")[: None if last is None else last + 1]:
            x = self.get_submodule(name)(x)
            maps.append(x)
        return maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, 128, h, w) -> (B, K), or the dense layer (B, 128)."""
        x = self.drop(self.hidden(x.flatten(1)))
        return x if pre_logits else self.fc(x)

    def reset_classifier(self, num_classes: int, global_pool: Any = None) -> None:
        """A fresh classifier for other classes. Raises UsageError for a pooling: the map is flattened."""
        if global_pool is not None:
            raise UsageError("article_cnn flattens its map", hint="leave global_pool out")
        self.num_classes = num_classes
        self.config = self.config._replace(num_classes=num_classes)
        self.fc = self._linear(num_classes)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Three layers, then the dense one."""
        return {"stem": r"^layer1", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

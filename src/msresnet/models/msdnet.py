"""Multi-scale DenseNet: a grid of scales and depth, with an answer wherever the coarsest scale is ready.

Huang et al., Multi-Scale Dense Networks for Resource Efficient Image Classification (arXiv 1703.09844). Every layer
keeps a map at each scale; a map grows by what two paths add, one from its own scale and one strided from the next finer
one, and all earlier features stay (dense). The classifiers read the coarsest map only, so an easy image can leave early
and a hard one goes on. B batch, C channels, H and W pixels.

- Blocks of layers end in an exit. The finest scale is given up after equal shares of the layers, since only coarse
  features are read in the end; a 1x1 transition then halves the channels (section 4, "network reduction").
- Bottleneck 1x1 convolutions before the 3x3, as the paper uses them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.models.arguments import MOST_BLOCKS, MOST_CHANNELS, check_choice, check_count, check_counts
from msresnet.models.base import Config, FeatureInfo, ImageModel, StageInfo
from msresnet.nn.convolution import conv_bn, he_init
from msresnet.nn.heads import ExitHead
from msresnet.nn.stems import StemKind, stem_for

MOST_SCALES = 8
"""The eighth map of a 224-pixel image has a side of less than one pixel behind the ImageNet stem."""


@dataclass(frozen=True)
class MSDNetSpec:
    """A member as data.

    Args:
        layers: of each block; every block ends in an exit.
        growth: channels that a layer adds to the finest scale.
        factors: growth at each scale relative to the finest, fine to coarse; also how many times its new channels a
            bottleneck is wide there.
        stem_width: channels of the finest map at the start, twice as many for large images.
        reduce: give up the finest scale after equal shares of the layers.
        exit_width: channels of the exits' convolutions; None as many as the map has that they read.
        stem: None chooses by the image's size.
    """

    layers: tuple[int, ...] = (4, *[2] * 10)
    growth: int = 6
    factors: tuple[int, ...] = (1, 2, 4)
    stem_width: int = 16
    reduce: bool = True
    exit_width: int | None = 128
    stem: StemKind | None = "small"

    def __post_init__(self) -> None:
        """Refuse, with a UsageError, what cannot be built."""
        for name in ("layers", "factors"):
            object.__setattr__(self, name, check_counts(name, getattr(self, name)))
        if len(self.factors) > MOST_SCALES:
            raise UsageError(f"{len(self.factors)} scales", why=f"at most {MOST_SCALES}", hint="factors=[1,2,4]")
        for name in ("growth", "stem_width"):
            check_count(name, getattr(self, name))
        if self.exit_width is not None:
            check_count("exit_width", self.exit_width)
        check_choice("stem", self.stem, ("imagenet", "small", None))
        check_choice("reduce", self.reduce, (True, False))
        if sum(self.layers) > MOST_BLOCKS:
            raise UsageError(f"{sum(self.layers)} layers", why=f"at most {MOST_BLOCKS}", hint="layers=[4,2,2,2,2]")
        widest = max(self.factors) * (2 * self.stem_width + self.growth * sum(self.layers))
        if widest > MOST_CHANNELS:
            what = f"maps of up to {widest} channels"
            raise UsageError(what, why=f"at most {MOST_CHANNELS}", hint="growth=6 stem_width=16")

    def scales_at(self, layer: int) -> int:
        """How many scales, the coarsest ones, a layer keeps, counted from 0 over all blocks."""
        share = -(-sum(self.layers) // len(self.factors))
        return len(self.factors) - (layer // share if self.reduce else 0)


def bottleneck(in_chs: int, out_chs: int, factor: int, stride: int = 1) -> nn.Sequential:
    """A 1x1 convolution to at most `factor` times the new channels, then the 3x3."""
    inner = min(in_chs, factor * out_chs)
    return nn.Sequential(conv_bn(in_chs, inner, 1), conv_bn(inner, out_chs, 3, stride))


class FirstLayer(nn.Module):
    """The image's map, then one strided convolution for each coarser scale (figure 2, left column)."""

    def __init__(self, kind: StemKind, in_chans: int, widths: list[int]) -> None:
        super().__init__()
        self.stem = conv_bn(in_chans, widths[0], 3)
        if kind != "small":
            self.stem = nn.Sequential(conv_bn(in_chans, widths[0], 7, 2), nn.MaxPool2d(3, 2, 1))
        self.down = nn.ModuleList(conv_bn(a, b, 3, 2) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> one map for each scale, fine to coarse."""
        maps = [self.stem(x)]
        for down in self.down:
            maps.append(down(maps[-1]))
        return maps


class DenseLayer(nn.Module):
    """One step to the right in the grid: each map gets new channels from its own scale and from the finer one.

    Where the finest scale ends, its map feeds the next one a last time, and 1x1 transitions then halve the channels.
    """

    def __init__(self, given: list[int], growth: int, factors: tuple[int, ...], dropped: int) -> None:
        super().__init__()
        self.dropped = dropped
        self.same, self.finer, self.transitions = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.out_chs = []
        for i in range(dropped, len(given)):
            new = growth * factors[i]
            half = new // 2 if i else 0
            self.same.append(bottleneck(given[i], new - half, factors[i]))
            self.finer.append(bottleneck(given[i - 1], half, factors[i - 1], stride=2) if half else nn.Identity())
            chs = given[i] + new
            self.out_chs.append(chs // 2 if dropped else chs)
            self.transitions.append(conv_bn(chs, chs // 2, 1) if dropped else nn.Identity())

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """A map for each scale -> the same, wider; without the finest where that scale ends."""
        grown = []
        for i, (same, finer) in enumerate(zip(self.same, self.finer, strict=True), self.dropped):
            parts = [maps[i], same(maps[i])]
            grown.append(torch.cat(parts if isinstance(finer, nn.Identity) else [*parts, finer(maps[i - 1])], 1))
        return [transition(m) for transition, m in zip(self.transitions, grown, strict=True)]


class MSDNet(ImageModel):
    """(B, C, H, W) -> (B, K) at each exit. A stage is a block; its map is the coarsest one."""

    tail = ("exits", "last")

    def __init__(self, spec: MSDNetSpec, config: Config) -> None:
        super().__init__(config)
        if config.drop_path_rate:
            raise UsageError("an MSDNet has no drop_path_rate", why="it has no residual branches", hint="drop_rate")
        self.spec = spec
        kind = spec.stem or stem_for(config.img_size)[0]
        width = spec.stem_width * (1 if kind == "small" else 2)
        chs = [width * factor for factor in spec.factors]
        self.first = FirstLayer(kind, config.in_chans, chs)
        reduction = (1 if kind == "small" else 4) * 2 ** (len(chs) - 1)
        info = []
        for i, depth in enumerate(spec.layers):
            layers = []
            for layer in range(sum(spec.layers[:i]), sum(spec.layers[: i + 1])):
                factors = spec.factors[-len(chs) :]
                layers.append(DenseLayer(chs, spec.growth, factors, len(chs) - spec.scales_at(layer)))
                chs = layers[-1].out_chs
            self.add_module(f"block{i + 1}", nn.Sequential(*layers))
            coarsest = f"block{i + 1}.{depth - 1}.transitions.{len(chs) - 1}"
            info.append(StageInfo(chs[-1], reduction, coarsest))
        self.feature_info = FeatureInfo(info)
        self.num_features = spec.exit_width or info[-1].num_chs
        self.attribution_layer = info[-1].module
        self.exits = nn.ModuleList(
            ExitHead(stage.num_chs, spec.exit_width or stage.num_chs, config.num_classes, depth=2)
            for stage in info[:-1]
        )
        self.num_exits = len(info)
        self.last = ExitHead(info[-1].num_chs, self.num_features, 0, depth=2).layers
        he_init(self)
        self.add_classifier()

    def blocks(self) -> list[nn.Module]:
        """The blocks, in order."""
        return [self.get_submodule(f"block{i + 1}") for i in range(len(self.spec.layers))]

    def forward_stages(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        """(B, C, H, W) -> the coarsest map after each block."""
        maps, coarsest = self.first(x), []
        for block in self.blocks()[: None if last is None else last + 1]:
            maps = self.run_stage(block, maps)
            coarsest.append(maps[-1])
        return coarsest

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, exit_width, h, w): the last exit's map."""
        return self._final(self.forward_stages(x))

    def _final(self, maps: list[Tensor]) -> Tensor:
        return self.last(maps[-1])  # type: ignore[no-any-return]

    def advance(self, state: list[Tensor], exit_index: int) -> tuple[list[Tensor], Tensor]:
        """Run one more block; the state is its map at each scale."""
        maps: list[Tensor] = self.run_stage(self.blocks()[exit_index], state if exit_index else self.first(state[0]))
        if exit_index < len(self.exits):
            return maps, self.exits[exit_index](maps[-1])
        return [], self.forward_head(self._final(maps))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The first layer, then blocks (their layers, unless `coarse`)."""
        return {"stem": r"^first", "blocks": r"^block(\d+)" if coarse else r"^block(\d+)\.(\d+)"}


# Section 5: for CIFAR 24 layers with an answer after the 4th and then every second one; for ImageNet five answers, with
# 4, 6 or 7 layers before each.
MSDNET_CIFAR_ROWS = {"msdnet24_cifar": MSDNetSpec()}
MSDNET_ROWS = {
    f"msdnet{5 * k}": MSDNetSpec((k,) * 5, 16, (1, 2, 4, 4), exit_width=None, stem="imagenet") for k in (4, 6, 7)
}

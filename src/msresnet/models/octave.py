"""OctResNet: maps in two octaves, some channels at the full resolution and the others, smooth ones, at half of it.

Chen et al., "Drop an Octave: Reducing Spatial Redundancy in Convolutional Neural Networks with Octave Convolution",
arXiv 1904.05049. A share alpha of the channels is low. B batch, C channels, H and W pixels. Decisions:

- The stem is a ResNet's. The first block splits; the first 1x1 of the last stage, and the projection beside it, give
  high channels only, so that 7x7 maps are never halved. With this the published operation counts come out.
- Averaging halves a resolution, never a stride (table 3 of the paper). At an odd border it takes the pixels that are
  there, and repeated pixels are cut to the target's size: any image size works.
- Convolutions start as He et al. (arXiv 1502.01852), fan-out; the last BN of each block starts at zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.models.arguments import MOST_BLOCKS, check_choice, check_count, check_counts
from msresnet.models.base import Config, FeatureInfo, ImageModel, StageInfo
from msresnet.nn.convolution import he_init
from msresnet.nn.octave import JoinOctaves, Octaves, OctConv2d, OctConvBN, low_channels
from msresnet.nn.shortcuts import DropPath
from msresnet.nn.stems import build_stem, stem_for

EXPANSION = 4
"""Channels at a bottleneck's end for each planned channel."""


@dataclass(frozen=True)
class OctaveSpec:
    """A family member as data.

    Args:
        alpha: share of the channels that are low, from 0 (a plain ResNet, averaged where it halves) to under 1.
        depths: bottlenecks of each stage; the last one is plain.
        widths: planned channels of each stage; its blocks end with four times as many.
        stem: 'imagenet' halves the resolution twice, 'small' never; None chooses by the image's size.
        stem_width: channels of the stem.
    """

    alpha: float = 0.25
    depths: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: Literal["imagenet", "small"] | None = "imagenet"
    stem_width: int = 64

    def __post_init__(self) -> None:
        """Refuse, with a UsageError, what cannot be built: settings come from the command line and from files too."""
        if not isinstance(self.alpha, (int, float)) or isinstance(self.alpha, bool) or not 0 <= self.alpha < 1:
            what = f"the model argument alpha={self.alpha!r}"
            raise UsageError(what, why="a share of the channels, under 1", hint="alpha=0.5")
        for name in ("depths", "widths"):
            object.__setattr__(self, name, check_counts(name, getattr(self, name)))
        check_count("stem_width", self.stem_width)
        check_choice("stem", self.stem, ("imagenet", "small", None))
        if not 1 < len(self.depths) <= len(self.widths) or sum(self.depths) > MOST_BLOCKS:
            what = f"stages of {self.depths} blocks and {self.widths} channels do not fit together"
            why = f"one of each for 2 stages or more, at most {MOST_BLOCKS} blocks"
            raise UsageError(what, why=why, hint="depths=[2,2,2,2] and widths=[64,128,256,512]")
        if self.alpha and not all(low_channels(width, self.alpha) for width in self.widths):
            raise UsageError(f"alpha={self.alpha} leaves no low channel of widths={self.widths}", hint="alpha=0.25")


@dataclass(frozen=True)
class OctBlockSpec:
    """Everything that shapes one block: channels, stride, shares of low channels before and after, drop path."""

    in_chs: int
    out_chs: int
    width: int
    stride: int
    alpha_in: float
    alpha_out: float
    drop_path: float


class OctBottleneck(nn.Module):
    """A residual bottleneck of octave convolutions; the first of them changes the share of low channels."""

    def __init__(self, spec: OctBlockSpec) -> None:
        super().__init__()
        before, after = spec.alpha_in, spec.alpha_out
        self.conv1 = OctConvBN(OctConv2d(spec.in_chs, spec.width, alpha_in=before, alpha_out=after))
        middle = OctConv2d(spec.width, spec.width, 3, spec.stride, alpha_in=after, alpha_out=after)
        self.conv2 = OctConvBN(middle)
        self.conv3 = OctConvBN(OctConv2d(spec.width, spec.out_chs, alpha_in=after, alpha_out=after), act=False)
        self.downsample: nn.Module = nn.Identity()
        if (spec.in_chs, before, 1) != (spec.out_chs, after, spec.stride):
            shortcut = OctConv2d(spec.in_chs, spec.out_chs, stride=spec.stride, alpha_in=before, alpha_out=after)
            self.downsample = OctConvBN(shortcut, act=False)
        self.drop_path = DropPath(spec.drop_path) if spec.drop_path else nn.Identity()

    def zero_init_last(self) -> None:
        """Zero the last BN's scale in both octaves, so that a deep network begins as a shallow one."""
        for bn in (self.conv3.bn_high, self.conv3.bn_low):
            if isinstance(bn, nn.BatchNorm2d):
                nn.init.zeros_(bn.weight)

    def forward(self, maps: Octaves) -> Octaves:
        """Octaves (B, C_in, H, W) -> octaves (B, C_out, ceil(H/s), ceil(W/s))."""
        high, low = self._residual(maps)
        high_shortcut, low_shortcut = self.downsample(maps)
        return F.relu(high + high_shortcut), None if low is None else F.relu(low + low_shortcut)

    def _residual(self, maps: Octaves) -> Octaves:
        high, low = self.conv3(self.conv2(self.conv1(maps)))
        if isinstance(self.drop_path, nn.Identity) or not self.training:
            return high, low
        # One draw for a sample: it loses its residual in both octaves or in none.
        kept = self.drop_path(high.new_ones(len(high), 1, 1, 1))
        return high * kept, None if low is None else low * kept


class OctResNet(ImageModel):
    """A ResNet's stem, stages of octave bottlenecks, a last stage of plain ones, and a pooled classifier."""

    fold_pairs = (("conv1", "bn1"),)

    def __init__(self, spec: OctaveSpec, config: Config) -> None:
        super().__init__(config)
        self.spec = spec
        stem = build_stem(spec.stem or stem_for(config.img_size)[0], config.in_chans, spec.stem_width)
        self.conv1, self.bn1 = stem.conv1, nn.BatchNorm2d(spec.stem_width)
        self.act1, self.maxpool = nn.ReLU(inplace=True), stem.maxpool
        info = [StageInfo(spec.stem_width, stem.conv_reduction, "act1")]
        for i in range(len(spec.depths)):
            self.add_module(f"layer{i + 1}", nn.Sequential(*self._blocks(i)))
            info.append(StageInfo(spec.widths[i] * EXPANSION, stem.reduction * 2**i, f"join.{i}"))
        self.join = nn.ModuleList(JoinOctaves() for _ in spec.depths)
        self.feature_info = FeatureInfo(info)
        self.num_features = info[-1].num_chs
        self.attribution_layer = info[-1].module
        self._init_weights()
        self.add_classifier()

    def _blocks(self, index: int) -> list[OctBottleneck]:
        """The blocks of a stage; the first one carries the stride, and splits or joins the octaves."""
        spec, last = self.spec, len(self.spec.depths) - 1
        width, start = spec.widths[index], sum(spec.depths[:index])
        before = spec.widths[index - 1] * EXPANSION if index else spec.stem_width
        alpha_before, alpha = spec.alpha if index else 0.0, spec.alpha if index < last else 0.0
        return [
            OctBottleneck(
                OctBlockSpec(
                    in_chs=width * EXPANSION if i else before,
                    out_chs=width * EXPANSION,
                    width=width,
                    stride=2 if index and i == 0 else 1,
                    alpha_in=alpha if i else alpha_before,
                    alpha_out=alpha,
                    drop_path=self.config.drop_path_rate * (start + i) / max(1, sum(spec.depths) - 1),
                )
            )
            for i in range(spec.depths[index])
        ]

    def _init_weights(self) -> None:
        he_init(self.conv1)
        for module in self.modules():
            if isinstance(module, OctBottleneck):
                module.zero_init_last()

    def _octaves(self, x: Tensor, count: int) -> list[Octaves]:
        """The stem's map (B, C, H, W), then both octaves of the first `count` stages."""
        octaves: list[Octaves] = [(self.act1(self.bn1(self.conv1(x))), None)]
        maps: Octaves = (self.maxpool(octaves[0][0]), None) if count else octaves[0]
        for i in range(count):
            maps = self.run_stage(self.get_submodule(f"layer{i + 1}"), maps)
            octaves.append(maps)
        return octaves

    def forward_stages(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        """(B, C, H, W) -> the stem's map and each stage's, its octaves joined; see `feature_info`."""
        (stem, _), *stages = self._octaves(x, len(self.spec.depths) if last is None else last)
        return [stem, *(join(maps) for join, maps in zip(self.join, stages, strict=False))]

    def stage_module(self, index: int) -> str:
        """The stage itself where its octaves are joined for `forward_stages` alone."""
        return f"layer{index}" if 0 < index < len(self.spec.depths) else super().stage_module(index)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the last stage's map (B, num_features, h, w); the others' octaves stay apart."""
        return self.join[-1](self._octaves(x, len(self.spec.depths))[-1])  # type: ignore[no-any-return]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, then blocks (or whole stages when `coarse`)."""
        return {"stem": r"^(?:conv1|bn1)\.", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}


DEPTHS = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
OCTAVE_ROWS: dict[str, OctaveSpec] = {
    f"octresnet{depth}_a{thousandths}": OctaveSpec(thousandths / 1000, DEPTHS[depth])
    for depth, shares in ((26, (125, 250, 500)), (50, (125, 250, 500)), (101, (125, 250)), (152, (125, 250)))
    for thousandths in shares
}

"""Big-Little Net: in each stage a deep branch at half the resolution beside a thin one at the full resolution.

Chen et al., "Big-Little Net: An Efficient Multi-Scale Feature Representation for Visual and Speech Recognition",
arXiv 1807.03848. B batch, C channels, H and W pixels. Decisions; what bears on the published counts agrees with them:

- Of a stage's n blocks the big branch holds n - 1, the first of which halves the resolution. The little branch holds
  max(1, n // beta - 1) blocks of 1/alpha of the channels, then a 1x1 convolution back to all of them.
- The branches are summed at the little one's size. One block fuses the sum and carries the stride to the next stage;
  it opens that stage here, so that a stage's map is finer than what follows it and pyramids get 1/4, 1/8, 1/16, 1/32.
- Nothing projects the shortcut of a fusion block that only halves the resolution: it is averaged.
- A little branch of ResNeXt has 1/alpha of the groups, each as wide as in the big one.
- The last stage is plain. The stem has a big and a little branch too, and no max-pool.
- Convolutions start as He et al. (arXiv 1502.01852), fan-out; the last BN of each block starts at zero.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.models.arguments import MOST_BLOCKS, MOST_CHANNELS, check_choice, check_count, check_counts
from msresnet.models.base import Config, FeatureInfo, ImageModel, StageInfo
from msresnet.nn.blocks import BlockSpec, Bottleneck, init_residual
from msresnet.nn.convolution import conv_bn
from msresnet.nn.fusion import resize_to
from msresnet.nn.grammar import PLAIN
from msresnet.nn.stems import build_stem, stem_for

EXPANSION: int = Bottleneck.expansion
"""Channels at a block's end for each planned channel."""


@dataclass(frozen=True)
class BigLittleSpec:
    """A family member as data.

    Args:
        depths: blocks of each stage; all but the last have two branches.
        alpha: how many times fewer channels the little branches have.
        beta: how many times fewer blocks they have.
        widths: planned channels of each stage; its blocks end with four times as many.
        base_width, cardinality: width of a block's 3x3 is planes * base_width / 64 * cardinality.
        squeeze: whether blocks reweight their channels (SENet).
        stem: 'imagenet' halves the resolution twice, 'small' never; None chooses by the image's size.
        stem_width: channels of the stem.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    alpha: int = 2
    beta: int = 4
    widths: tuple[int, ...] = (64, 128, 256, 512)
    base_width: int = 64
    cardinality: int = 1
    squeeze: bool = False
    stem: Literal["imagenet", "small"] | None = "imagenet"
    stem_width: int = 64

    def __post_init__(self) -> None:
        """Refuse, with a UsageError, what cannot be built: settings come from the command line and from files too."""
        for name in ("depths", "widths"):
            object.__setattr__(self, name, check_counts(name, getattr(self, name)))
        for name in ("alpha", "beta", "base_width", "cardinality", "stem_width"):
            check_count(name, getattr(self, name))
        check_choice("stem", self.stem, ("imagenet", "small", None))
        check_choice("squeeze", self.squeeze, (True, False))
        self._check_fit()

    def _check_fit(self) -> None:
        """Refuse settings of which each is sound and that do not go together."""
        if not 1 < len(self.depths) <= len(self.widths) or sum(self.depths) > MOST_BLOCKS:
            what = f"stages of {self.depths} blocks and {self.widths} channels do not fit together"
            why = f"one of each for 2 stages or more, at most {MOST_BLOCKS} blocks"
            raise UsageError(what, why=why, hint="depths=[2,2,2,2] and widths=[64,128,256,512]")
        if min(self.depths[:-1]) < 2:
            what = f"depths={self.depths}"
            why = "a stage with two branches needs a block for the big one and one for fusion"
            raise UsageError(what, why=why, hint="two blocks or more in all stages but the last: depths=[2,2,2,2]")
        inner = [self.inner_width(width) for width in self.widths]
        if not all(0 < width <= MOST_CHANNELS for width in inner):
            what = f"base_width={self.base_width} and cardinality={self.cardinality} give 3x3 of {inner} channels"
            raise UsageError(what, why=f"from 1 to {MOST_CHANNELS}", hint="base_width=64 cardinality=1")
        groups = self.cardinality if self.cardinality > 1 else self.alpha
        if any(n % self.alpha for n in (groups, self.stem_width, *self.widths, *inner)):
            what = f"alpha={self.alpha} does not divide all widths and groups"
            raise UsageError(what, hint="alpha=2 or alpha=4; widths and cardinality that are multiples of it")

    def inner_width(self, planes: int) -> int:
        """Channels of the 3x3 in a block for so many planned ones."""
        return planes * self.base_width // 64 * self.cardinality


def strided_block(spec: BlockSpec) -> Bottleneck:
    """A bottleneck whose shortcut is averaged, on the grid of its strided 3x3, and projected where channels change."""
    block = Bottleneck(replace(spec, projection="none"))
    shortcut: list[nn.Module] = [nn.AvgPool2d(3, spec.stride, 1)] if spec.stride > 1 else []
    if spec.in_chs != spec.out_chs:
        shortcut += conv_bn(spec.in_chs, spec.out_chs, 1, act=False)
    block.downsample = nn.Sequential(*shortcut) if shortcut else nn.Identity()
    return block


class BigLittle(nn.Module):
    """Two branches over one map, summed (figure 1 of the paper), behind the block that fused the sum before.

    Args:
        big: (B, C_in, H, W) -> (B, C_out, ceil(H/2), ceil(W/2)), or the little one's size.
        little: (B, C_in, H, W) -> (B, C_out, h, w).
        fusion: what comes before both.
    """

    def __init__(self, big: nn.Module, little: nn.Module, fusion: nn.Module | None = None) -> None:
        super().__init__()
        self.fusion = nn.Identity() if fusion is None else fusion
        self.big, self.little, self.act = big, little, nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C_out, h, w) of the little branch's size."""
        x = self.fusion(x)
        little = self.little(x)
        return self.act(little + resize_to(self.big(x), (little.shape[-2], little.shape[-1])))  # type: ignore[no-any-return]


def build_big_little_stem(width: int, alpha: int, stride: int) -> nn.Sequential:
    """What stands in the place of a max-pool: (B, C, H, W) -> (B, C, ceil(H/stride), ceil(W/stride))."""
    big, thin = conv_bn(width, width, 3, 2, act=False), width // alpha
    little = nn.Sequential(conv_bn(width, thin, 3), conv_bn(thin, thin, 3, stride), conv_bn(thin, width, 1, act=False))
    return nn.Sequential(BigLittle(big, little), conv_bn(width, width, 1))


class BigLittleNet(ImageModel):
    """A big-little stem, stages of two branches, a plain last stage, and a pooled classifier."""

    fold_pairs = (("conv1", "bn1"),)

    def __init__(self, spec: BigLittleSpec, config: Config) -> None:
        super().__init__(config)
        self.spec = spec
        small = (spec.stem or stem_for(config.img_size)[0]) == "small"
        stem = build_stem("small" if small else "unpooled", config.in_chans, spec.stem_width)
        self.conv1, self.bn1 = stem.conv1, nn.BatchNorm2d(spec.stem_width)
        self.act1 = nn.ReLU(inplace=True)
        reduction = stem.conv_reduction**2
        self.stem = build_big_little_stem(spec.stem_width, spec.alpha, stem.conv_reduction)
        info = [StageInfo(spec.stem_width, stem.conv_reduction, "act1")]
        for i, planes in enumerate(spec.widths[: len(spec.depths)]):
            self.add_module(f"layer{i + 1}", self._stage(i))
            info.append(StageInfo(planes * EXPANSION, reduction * 2**i, f"layer{i + 1}"))
        self.feature_info = FeatureInfo(info)
        self.num_features = info[-1].num_chs
        self.attribution_layer = f"layer{len(spec.depths)}"
        init_residual(self)
        self.add_classifier()

    def _stage(self, index: int) -> nn.Module:
        """One stage; the block that fuses the branches of the stage before it is the first of it."""
        depths, last = self.spec.depths, index == len(self.spec.depths) - 1
        start, in_chs = sum(depths[:index]), self._out_chs(index - 1)
        # The plain stage halves the resolution in its own first block.
        fusion = self._block(index - 1, start - 1, in_chs, stride=1 if last else 2) if index else nn.Identity()
        if last:
            plain = self._blocks(index, start, depths[index], stride=2)
            return nn.Sequential(OrderedDict(fusion=fusion, **{str(i): block for i, block in enumerate(plain)}))
        big = self._blocks(index, start, depths[index] - 1, stride=2, last_act=False)
        few = max(1, depths[index] // self.spec.beta - 1)
        little = self._blocks(index, start, few, stride=1, shrink=self.spec.alpha)
        chs = self._out_chs(index)
        little.append(conv_bn(chs // self.spec.alpha, chs, 1, act=False))
        return BigLittle(nn.Sequential(*big), nn.Sequential(*little), fusion)

    def _out_chs(self, index: int) -> int:
        """Channels of a stage's map; of the stem's for the one before the first."""
        chs: int = self.spec.widths[index] * EXPANSION if index >= 0 else self.spec.stem_width
        return chs

    def _blocks(
        self, index: int, start: int, count: int, *, stride: int, shrink: int = 1, last_act: bool = True
    ) -> list[nn.Module]:
        """The blocks of a branch, of which the first carries the stride."""
        blocks: list[nn.Module] = []
        in_chs = self._out_chs(index - 1)
        for i in range(count):
            act, first_stride = last_act or i < count - 1, 1 if i else stride
            blocks.append(self._block(index, start + i, in_chs, stride=first_stride, shrink=shrink, last_act=act))
            in_chs = self._out_chs(index) // shrink
        return blocks

    def _block(
        self, index: int, number: int, in_chs: int, *, stride: int, shrink: int = 1, last_act: bool = True
    ) -> nn.Module:
        """One block of a stage's width; `number` counts all blocks on the way from the image to the answer."""
        spec = self.spec
        return strided_block(
            BlockSpec(
                in_chs=in_chs,
                out_chs=self._out_chs(index) // shrink,
                width=spec.inner_width(spec.widths[index]) // shrink,
                operator=PLAIN.with_groups(max(1, spec.cardinality // shrink)),
                stride=stride,
                squeeze=spec.squeeze,
                last_act=last_act,
                drop_path=self.config.drop_path_rate * number / max(1, sum(spec.depths) - 1),
            )
        )

    def forward_stages(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        """(B, C, H, W) -> the first convolution's map and each stage's; see `feature_info`."""
        maps = [self.act1(self.bn1(self.conv1(x)))]
        if last == 0:
            return maps
        x = self.stem(maps[0])
        for i in range(len(self.spec.depths) if last is None else last):
            x = self.run_stage(self.get_submodule(f"layer{i + 1}"), x)
            maps.append(x)
        return maps

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, then blocks, those of two branches side by side (or whole stages when `coarse`)."""
        fine = [(r"^layer(\d+)\.fusion", None), (r"^layer(\d+)\.(?:big\.|little\.)?(\d+)", None)]
        return {"stem": r"^(?:conv1|bn1|stem)\.", "blocks": r"^layer(\d+)" if coarse else fine}


_B50 = BigLittleSpec()
_B101 = replace(_B50, depths=(4, 8, 18, 3))
_X50, _X101 = (replace(row, cardinality=32, base_width=4) for row in (_B50, _B101))
BIG_LITTLE_ROWS: dict[str, BigLittleSpec] = {
    "blresnet50_a2b4": _B50,
    "blresnet50_a4b4": replace(_B50, alpha=4),
    "blresnet101_a2b4": _B101,
    "blresnet152_a2b4": replace(_B50, depths=(5, 12, 30, 3)),
    "blresnext50_32x4d_a2b4": _X50,
    "blresnext101_32x4d_a2b4": _X101,
    "blresnext101_64x4d_a2b4": replace(_X101, cardinality=64),
    "blresnext101_64x4d_a2b2": replace(_X101, cardinality=64, beta=2),
    "blseresnext50_32x4d_a2b4": replace(_X50, squeeze=True),
    "blseresnext101_32x4d_a2b4": replace(_X101, squeeze=True),
}

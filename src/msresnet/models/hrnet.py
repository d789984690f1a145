"""HRNet: streams of several resolutions side by side through the whole network, each exchanging with all others.

Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", arXiv 1908.07919, with its head for
classification. Parameter names are timm's. B batch, C channels, H and W pixels. Decisions:

- Streams are brought to each other's exact size, nearest pixel upwards, so that any image size works.
- Convolutions start as He et al. (arXiv 1502.01852), fan-out; no BN starts at zero, as the authors have it.
- Blocks side by side share one rate of stochastic depth: it grows along the network, not across its streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.models.arguments import MOST_BLOCKS, check_choice, check_count, check_counts
from msresnet.models.base import Config, FeatureInfo, ImageModel, StageInfo
from msresnet.nn.blocks import BasicBlock, BlockSpec, Bottleneck
from msresnet.nn.convolution import conv_bn, he_init
from msresnet.nn.stems import stem_for

STEM_WIDTH = 64
HEAD_WIDTHS = (128, 256, 512, 1024)
"""Channels that the head widens the streams to, whatever the network's width."""
FINAL_WIDTH = 2048


@dataclass(frozen=True)
class HRNetSpec:
    """A family member as data.

    Args:
        width: channels of the finest stream; each coarser one has twice as many.
        modules: how often the streams of stages 2, 3 and 4 exchange what they know.
        depth: blocks of a stream before each exchange.
        first_depth: bottlenecks of stage 1, which has one stream.
        first_width: their planned channels; they end with four times as many.
        stem: 'imagenet' halves the resolution twice, 'small' never; None chooses by the image's size.
    """

    width: int = 18
    modules: tuple[int, ...] = (1, 4, 3)
    depth: int = 4
    first_depth: int = 4
    first_width: int = 64
    stem: Literal["imagenet", "small"] | None = "imagenet"

    def __post_init__(self) -> None:
        """Refuse, with a UsageError, what cannot be built: settings come from the command line and from files too."""
        check_choice("stem", self.stem, ("imagenet", "small", None))
        object.__setattr__(self, "modules", check_counts("modules", self.modules, 3, MOST_BLOCKS))
        for name in ("width", "first_width"):
            check_count(name, getattr(self, name))
        for name in ("depth", "first_depth"):
            check_count(name, getattr(self, name), MOST_BLOCKS)
        if self.blocks > MOST_BLOCKS:
            what = f"{self.blocks} blocks one after another"
            raise UsageError(what, why=f"at most {MOST_BLOCKS}", hint="modules=[1,4,3] depth=4 first_depth=4")

    @property
    def blocks(self) -> int:
        """Residual blocks on the way from the image to the answer, the head's included."""
        return self.first_depth + sum(self.modules) * self.depth + 1


class Transition(nn.ModuleList):
    """Opens a stage: every stream brought to its width, and a new one at half the resolution of the coarsest."""

    def __init__(self, in_widths: list[int], widths: list[int]) -> None:
        kept = [nn.Identity() if i == o else conv_bn(i, o) for i, o in zip(in_widths, widths, strict=False)]
        # The published names count the halvings of a new stream, of which there is one.
        super().__init__([*kept, nn.Sequential(conv_bn(in_widths[-1], widths[-1], stride=2))])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[(B, C_i, H_i, W_i)] of n streams -> n + 1 of them, fine to coarse."""
        return [path(m) for path, m in zip(self, [*maps, maps[-1]], strict=True)]


class Fusion(nn.ModuleList):
    """Sums all streams at one's resolution: strided 3x3 convolutions downwards, 1x1 and nearest pixels upwards."""

    def __init__(self, widths: list[int], target: int) -> None:
        super().__init__(_path(widths, source, target) for source in range(len(widths)))
        self.target = target

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(B, C_i, H_i, W_i)] of all streams -> the target's (B, C, H, W)."""
        size = maps[self.target].shape[-2:]
        parts = []
        for source, m in enumerate(maps):
            part = self[source](m)
            parts.append(F.interpolate(part, size=size) if source > self.target else part)
        return F.relu(sum(parts[1:], parts[0]))


def _path(widths: list[int], source: int, target: int) -> nn.Module:
    if source == target:
        return nn.Identity()
    if source > target:
        return conv_bn(widths[source], widths[target], kernel=1, act=False)
    chs = [*[widths[source]] * (target - source), widths[target]]
    halvings = [conv_bn(i, o, stride=2, act=n < target - source) for n, (i, o) in enumerate(pairwise(chs), 1)]
    return nn.Sequential(*halvings)


class MultiStreamModule(nn.Module):
    """Residual blocks in each stream, then an exchange of every stream with every other (section 3 of the paper)."""

    def __init__(self, widths: list[int], drop_paths: list[float]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(BlockSpec(w, w, w, drop_path=rate)) for rate in drop_paths)) for w in widths
        )
        self.fuse_layers = nn.ModuleList(Fusion(widths, target) for target in range(len(widths)))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[(B, C_i, H_i, W_i)] of all streams -> the same shapes."""
        maps = [branch(m) for branch, m in zip(self.branches, maps, strict=True)]
        return [fuse(maps) for fuse in self.fuse_layers]


class HRNet(ImageModel):
    """A stem, a stage of one stream, stages of 2, 3 and 4 streams, and a head that joins them fine to coarse."""

    classifier_name = "classifier"
    fold_pairs = (("conv1", "bn1"), ("conv2", "bn2"))
    tail = ("downsamp_modules", "final_layer")

    def __init__(self, spec: HRNetSpec, config: Config) -> None:
        super().__init__(config)
        self.spec = spec
        stride = 1 if (spec.stem or stem_for(config.img_size)[0]) == "small" else 2
        self.conv1 = nn.Conv2d(config.in_chans, STEM_WIDTH, 3, stride, 1, bias=False)
        self.bn1, self.act1 = nn.BatchNorm2d(STEM_WIDTH), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(STEM_WIDTH, STEM_WIDTH, 3, stride, 1, bias=False)
        self.bn2, self.act2 = nn.BatchNorm2d(STEM_WIDTH), nn.ReLU(inplace=True)
        rates = [config.drop_path_rate * i / (spec.blocks - 1) for i in range(spec.blocks)]
        self._add_body(rates[:-1])
        self._add_head(rates[-1])
        reductions = (stride, *(stride**2 * 2**i for i in range(len(HEAD_WIDTHS))))
        modules = ("act1", *(f"incre_modules.{i}" for i in range(len(HEAD_WIDTHS))))
        info = zip((STEM_WIDTH, *HEAD_WIDTHS), reductions, modules, strict=True)
        self.feature_info = FeatureInfo([StageInfo(*stage) for stage in info])
        self.num_features = FINAL_WIDTH
        self.attribution_layer = "final_layer"
        he_init(self)
        self.add_classifier()

    def _add_body(self, rates: list[float]) -> None:
        """Stage 1 to 4; `rates` are those of stochastic depth, one for each block in turn."""
        spec = self.spec
        chs = spec.first_width * Bottleneck.expansion
        self.layer1 = nn.Sequential(
            *(
                Bottleneck(BlockSpec(chs if i else STEM_WIDTH, chs, spec.first_width, drop_path=rates[i]))
                for i in range(spec.first_depth)
            )
        )
        in_widths, start = [chs], spec.first_depth
        for streams, modules in enumerate(spec.modules, 2):
            widths = [spec.width * 2**i for i in range(streams)]
            self.add_module(f"transition{streams - 1}", Transition(in_widths, widths))
            starts = [start + i * spec.depth for i in range(modules)]
            stage = nn.ModuleList(MultiStreamModule(widths, rates[s : s + spec.depth]) for s in starts)
            self.add_module(f"stage{streams}", stage)
            in_widths, start = widths, start + modules * spec.depth

    def _add_head(self, rate: float) -> None:
        """A bottleneck that widens each stream, halvings that join them fine to coarse, and a 1x1 convolution."""
        self.incre_modules = nn.ModuleList(
            nn.Sequential(
                Bottleneck(BlockSpec(self.spec.width * 2**i, chs, chs // Bottleneck.expansion, drop_path=rate))
            )
            for i, chs in enumerate(HEAD_WIDTHS)
        )
        # These convolutions have a bias, as in the published weights.
        self.downsamp_modules = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU(inplace=True))
            for i, o in pairwise(HEAD_WIDTHS)
        )
        self.final_layer = nn.Sequential(
            nn.Conv2d(HEAD_WIDTHS[-1], FINAL_WIDTH, 1), nn.BatchNorm2d(FINAL_WIDTH), nn.ReLU(inplace=True)
        )

    def forward_stages(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        """(B, C, H, W) -> the stem's map and the widened streams, at 1/4 to 1/32 behind the ImageNet stem."""
        stem = self.act1(self.bn1(self.conv1(x)))
        if last == 0:
            return [stem]
        streams = self._streams(self.act2(self.bn2(self.conv2(stem))))
        return [stem, *(widen(m) for widen, m in zip(self.incre_modules[:last], streams, strict=False))]

    def _streams(self, x: Tensor) -> list[Tensor]:
        """The stem's last map -> the four streams, fine to coarse."""
        maps = [self.run_stage(self.layer1, x)]
        for streams in range(2, 2 + len(self.spec.modules)):
            maps = self.get_submodule(f"transition{streams - 1}")(maps)
            for module in self.get_submodule(f"stage{streams}").children():
                maps = self.run_stage(module, maps)
        return maps

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2048, h, w): the streams joined at the coarsest one's size."""
        return self._final(self.forward_stages(x))

    def _final(self, maps: list[Tensor]) -> Tensor:
        joined = maps[1]
        for halve, coarser in zip(self.downsamp_modules, maps[2:], strict=True):
            joined = halve(joined) + coarser
        return self.final_layer(joined)  # type: ignore[no-any-return]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, blocks of stage 1 and modules of the others (or whole stages when `coarse`), head."""
        with_the_one_before = (99999,)  # timm's number for it
        return {
            "stem": r"^(?:conv|bn)[12]\.",
            "blocks": [
                (r"^(?:layer|stage)(\d+)" if coarse else r"^(?:layer|stage)(\d+)\.(\d+)", None),
                (r"^transition(\d+)", with_the_one_before),
            ],
            "head": r"^(?:incre_modules|downsamp_modules|final_layer)",
        }


HRNET_ROWS: dict[str, HRNetSpec] = {
    "hrnet_w18_small": HRNetSpec(16, (1, 1, 1), depth=2, first_depth=1, first_width=32),
    "hrnet_w18_small_v2": HRNetSpec(18, (1, 3, 2), depth=2, first_depth=2),
    **{f"hrnet_w{width}": HRNetSpec(width) for width in (18, 30, 32, 40, 44, 48, 64)},
}

"""One residual network for most families: what differs between them is a row of data (`ResNetSpec`).

Parameter names are timm's. B batch, C channels, H and W pixels. Decisions:

- The stride stands on the spatial convolution, not on the 1x1 before it (torchvision's v1.5).
- Convolutions start as He et al. (arXiv 1502.01852), fan-out; the last BN of each block starts at zero.
- `shortcut_levels` 2 adds a gated shortcut over each stage, 3 one more over the whole body.
- `multi_stage` joins every stage's map before the global pooling, so the head sees fine and coarse alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.models.base import Config, ImageModel, StageInfo
from msresnet.nn.blocks import BLOCKS, BlockForm, BlockSpec, ResidualBlock
from msresnet.nn.fusion import MultiStageFusion
from msresnet.nn.grammar import PLAIN, Operator
from msresnet.nn.heads import Pooling
from msresnet.nn.shortcuts import Gate, LayerShortcut, Projection
from msresnet.nn.stems import StemKind, build_stem, stem_for

MOST_BLOCKS, MOST_CHANNELS = 1000, 16_384
"""More would only be a mistake, or a file that wants to keep the machine busy."""


@dataclass(frozen=True)
class ResNetSpec:
    """A family member as data.

    Args:
        depths: blocks of each stage.
        widths: planned channels of each stage; a bottleneck ends with four times as many.
        block: the residual block's form.
        operator: what its spatial convolutions are.
        stem: None chooses by the image's size.
        stem_width: channels of the stem.
        strides: of each stage's first block; None is 1, 2, 2, 2.
        base_width, cardinality: width of a bottleneck's operator is planes * base_width / 64 * cardinality * scale.
        scale: groups of a Res2Net operator, by which its width is multiplied.
        shortcut_levels: 1 blocks, 2 stages, 3 the whole body.
        multi_stage: whether the head pools every stage.
        pool: the global pooling, unless `global_pool` says otherwise.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    block: BlockForm = "basic"
    operator: Operator = PLAIN
    stem: StemKind | None = "imagenet"
    stem_width: int = 64
    strides: tuple[int, ...] | None = None
    base_width: int = 64
    cardinality: int = 1
    scale: int = 1
    projection: Projection = "conv1x1"
    shortcut_levels: int = 1
    gate: Gate = "bn"
    multi_stage: bool = False
    pool: Pooling = "avg"

    def __post_init__(self) -> None:
        """Refuse, with a UsageError, what cannot be built: settings come from the command line and from files too."""
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                known = ", ".join(map(str, allowed))
                raise UsageError(f"the model argument {name}={getattr(self, name)!r}", hint=f"one of {known}")
        for name in ("depths", "widths", "strides"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _counts(name, value))
        for name in ("stem_width", "base_width", "cardinality", "scale"):
            _counts(name, (getattr(self, name),))
        stages = len(self.depths)
        if sum(self.depths) > MOST_BLOCKS or stages > len(self.widths) or len(self.strides or self.depths) != stages:
            what = f"stages of {self.depths} blocks, {self.widths} channels and strides {self.strides}"
            raise UsageError(f"{what} do not fit together", why=f"one of each a stage, at most {MOST_BLOCKS} blocks")


def _counts(name: str, values: Any) -> tuple[int, ...]:
    """Whole numbers from 1 as a tuple. Raises UsageError for anything else."""
    sound = isinstance(values, (list, tuple)) and values
    if not sound or not all(isinstance(v, int) and not isinstance(v, bool) and 0 < v <= MOST_CHANNELS for v in values):
        raise UsageError(f"the model argument {name}={values!r}", why=f"whole numbers from 1 to {MOST_CHANNELS}")
    return tuple(values)


_CHOICES: dict[str, tuple[Any, ...]] = {
    "block": get_args(BlockForm),
    "stem": (*get_args(StemKind), None),
    "projection": get_args(Projection),
    "gate": get_args(Gate),
    "pool": get_args(Pooling),
    "shortcut_levels": (1, 2, 3),
    "multi_stage": (True, False),
}


class Stage(nn.Module):
    """Blocks at one resolution, named '0', '1', ...; at level 2 with a shortcut over them all."""

    def __init__(self, blocks: list[ResidualBlock], shortcut: LayerShortcut | None) -> None:
        super().__init__()
        self.depth = len(blocks)
        for i, block in enumerate(blocks):
            self.add_module(str(i), block)
        self.shortcut = shortcut

    def blocks(self) -> list[nn.Module]:
        """The blocks, in order."""
        return [self.get_submodule(str(i)) for i in range(self.depth)]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H/s), ceil(W/s))."""
        body = x
        for block in self.blocks():
            body = block(body)
        return body if self.shortcut is None else self.shortcut(x, body)


class MultiScaleResNet(ImageModel):
    """A stem, stages of residual blocks around any operator, shortcuts up to level 3, and a pooled classifier."""

    fold_pairs = (("conv1", "bn1"),)

    def __init__(self, spec: ResNetSpec, config: Config) -> None:
        super().__init__(config if config.global_pool is not None else config._replace(global_pool=spec.pool))
        self.spec = spec
        stem = build_stem(spec.stem or stem_for(config.img_size)[0], config.in_chans, spec.stem_width)
        self.conv1, self.bn1, self.act1 = stem.conv1, nn.BatchNorm2d(spec.stem_width), nn.ReLU(inplace=True)
        self.maxpool = stem.maxpool
        strides = spec.strides or (1, *[2] * (len(spec.depths) - 1))
        info = [StageInfo(spec.stem_width, stem.conv_reduction, "act1")]
        chs, reduction = spec.stem_width, stem.reduction
        for i, stride in enumerate(strides):
            stage, reduction = self._stage(i, chs, stride), reduction * stride
            self.add_module(f"layer{i + 1}", stage)
            chs = spec.widths[i] * BLOCKS[spec.block].expansion
            info.append(StageInfo(chs, reduction, f"layer{i + 1}"))
        self.feature_info = tuple(info)
        self.body_shortcut = LayerShortcut(spec.stem_width, chs, spec.gate) if spec.shortcut_levels == 3 else None
        preact = spec.block.startswith("preact")
        self.norm = nn.Sequential(nn.BatchNorm2d(chs), nn.ReLU(inplace=True)) if preact else nn.Identity()
        self.fusion = MultiStageFusion() if spec.multi_stage else None
        self.num_features = sum(s.num_chs for s in info[1:]) if spec.multi_stage else chs
        self.attribution_layer = f"layer{len(spec.depths)}"
        self._add_classifier()
        self._init_weights()

    def _stage(self, index: int, in_chs: int, stride: int) -> Stage:
        spec, width = self.spec, self.spec.widths[index]
        form = BLOCKS[spec.block]
        out_chs = width * form.expansion
        inner = int(width * spec.base_width / 64) * spec.cardinality * spec.scale
        start, total = sum(spec.depths[:index]), max(1, sum(spec.depths) - 1)
        blocks = [
            form(
                BlockSpec(
                    in_chs=out_chs if i else in_chs,
                    out_chs=out_chs,
                    width=inner,
                    operator=spec.operator.with_groups(spec.cardinality),
                    stride=1 if i else stride,
                    first=i == 0,
                    projection=spec.projection,
                    drop_path=self.config.drop_path_rate * (start + i) / total,
                )
            )
            for i in range(spec.depths[index])
        ]
        shortcut = LayerShortcut(in_chs, out_chs, spec.gate) if spec.shortcut_levels >= 2 else None
        return Stage(blocks, shortcut)

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                module.zero_init_last()

    def stages(self) -> list[nn.Module]:
        """The stages, fine to coarse."""
        return [self.get_submodule(f"layer{i + 1}") for i in range(len(self.spec.depths))]

    def forward_stages(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        """(B, C, H, W) -> the stem's map and each stage's; see `feature_info`."""
        maps = [self.act1(self.bn1(self.conv1(x)))]
        stem = x = self.maxpool(maps[0])
        for stage in self.stages()[: None if last is None else last]:
            x = self.run_stage(stage, x)
            maps.append(x)
        if len(maps) == len(self.feature_info):
            if self.body_shortcut is not None:
                maps[-1] = self.body_shortcut(stem, maps[-1])
            maps[-1] = self.norm(maps[-1])
        return maps

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, num_features, h, w): the last stage's map, or all stages joined at its size."""
        return self._final(self.forward_stages(x))

    def _final(self, maps: list[Tensor]) -> Tensor:
        return maps[-1] if self.fusion is None else self.fusion(maps[1:])

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, then blocks (or whole stages when `coarse`)."""
        return {"stem": r"^conv1|bn1|maxpool", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

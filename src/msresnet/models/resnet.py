"""One residual network for most families: what differs between them is a row of data (`ResNetSpec`).

Parameter names are timm's. B batch, C channels, H and W pixels. Decisions:

- The stride stands on the spatial convolution, not on the 1x1 before it (torchvision's v1.5).
- Convolutions start as He et al. (arXiv 1502.01852), fan-out; the last BN of each block starts at zero.
- `shortcut_levels` 2 adds a gated shortcut over each stage, 3 one more over the whole body. A block that ends where a
  longer shortcut is added leaves its ReLU to the sum (arXiv 1608.02908).
- Pre-activation networks leave BN and ReLU of the stem to the first block, and end with one BN and ReLU.
- `exits` adds an answer after every stage but the last, which has its own.
- `multi_stage` joins every stage's map before the global pooling, so the head sees fine and coarse alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.models.arguments import MOST_BLOCKS, MOST_CHANNELS, check_choice, check_count, check_counts
from msresnet.models.base import Config, FeatureInfo, ImageModel, StageInfo
from msresnet.nn.blocks import BLOCKS, BlockForm, BlockSpec, ResidualBlock, init_residual, rename_keys
from msresnet.nn.downsampling import Downsampling
from msresnet.nn.fusion import MultiStageFusion
from msresnet.nn.grammar import OPERATORS, PLAIN, Operator
from msresnet.nn.heads import ExitHead, Pooling
from msresnet.nn.shortcuts import Gate, LayerShortcut, Projection
from msresnet.nn.stems import StemKind, build_stem, stem_for

EXIT_WIDTH = 128
"""Channels of an exit's convolution: as in MSDNet (arXiv 1703.09844)."""


@dataclass(frozen=True)
class ResNetSpec:
    """A family member as data.

    Args:
        depths: blocks of each stage.
        widths: planned channels of each stage; a bottleneck ends with four times as many.
        block: the residual block's form.
        operator: what its spatial convolutions are; one for all stages, or one for each.
        stem: None chooses by the image's size.
        stem_width: channels of the stem.
        strides: of each stage's first block; None is 1, 2, 2, 2.
        base_width, cardinality: width of a bottleneck's operator is planes * base_width / 64 * cardinality * scale.
        scale: groups of a Res2Net operator, by which its width is multiplied.
        projection: of the shortcuts where the shape changes.
        downsampling: what halves the resolution inside blocks, and in the stem for 'blur' and 'avg'.
        squeeze: whether blocks reweight their channels (SENet).
        shortcut_levels: 1 blocks, 2 stages, 3 the whole body.
        gate: of the shortcuts of levels 2 and 3.
        multi_stage: whether the head pools every stage.
        pool: the global pooling, unless `global_pool` says otherwise.
        exits: whether each stage gives an answer of its own.
        inner_widths: channels inside each block, all blocks in order, where pruning left other numbers than
            `inner_width` gives.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    block: BlockForm = "basic"
    operator: Operator | tuple[Operator, ...] = PLAIN
    stem: StemKind | None = "imagenet"
    stem_width: int = 64
    strides: tuple[int, ...] | None = None
    base_width: int = 64
    cardinality: int = 1
    scale: int = 1
    projection: Projection = "conv1x1"
    downsampling: Downsampling = "conv"
    squeeze: bool = False
    shortcut_levels: int = 1
    gate: Gate = "bn"
    multi_stage: bool = False
    pool: Pooling = "avg"
    exits: bool = False
    inner_widths: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse, with a UsageError, what cannot be built: settings come from the command line and from files too.

        Operators may be given by name there.
        """
        object.__setattr__(self, "operator", _operators(self.operator))
        for name, allowed in _CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        for name in ("depths", "widths", "strides"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check_counts(name, value))
        for name in ("stem_width", "base_width", "cardinality", "scale"):
            check_count(name, getattr(self, name))
        stages = len(self.depths)
        if sum(self.depths) > MOST_BLOCKS or stages > len(self.widths) or len(self.strides or self.depths) != stages:
            what = f"stages of {self.depths} blocks, {self.widths} channels and strides {self.strides}"
            why = f"one of each a stage, at most {MOST_BLOCKS} blocks"
            raise UsageError(f"{what} do not fit together", why=why, hint="depths=[2,2] widths=[64,128] strides=[1,2]")
        if self.inner_widths is not None:
            inner_widths = check_counts("inner_widths", self.inner_widths, sum(self.depths))
            object.__setattr__(self, "inner_widths", inner_widths)
        halves = 2 if self.block == "elastic" else 1
        inner = list(dict.fromkeys(w // halves for stage in range(stages) for w in self.inner_widths_of(stage)))
        if not all(0 < width <= MOST_CHANNELS for width in inner):
            what, why = f"operators of {inner} channels", f"from 1 to {MOST_CHANNELS} can be built"
            raise UsageError(what, why=why, hint="widths=[64,128,256,512] base_width=64 cardinality=1")
        if isinstance(self.operator, tuple) and len(self.operator) != stages:
            raise UsageError(f"{len(self.operator)} operators for {stages} stages", hint="one for each, or one for all")
        if self.downsampling != "conv" and self.block not in ("basic", "bottleneck"):
            raise UsageError(
                f"downsampling={self.downsampling!r} with block={self.block!r}",
                why="only basic blocks and bottlenecks have a place for a pool",
                hint="downsampling=conv",
            )

    def inner_width(self, planes: int) -> int:
        """Channels of a block's operator for so many planned ones."""
        return int(planes * self.base_width / 64) * self.cardinality * self.scale

    def inner_widths_of(self, stage: int) -> tuple[int, ...]:
        """Channels of each block's operator in a stage, counted from 0."""
        if self.inner_widths is None:
            return (self.inner_width(self.widths[stage]),) * self.depths[stage]
        start = sum(self.depths[:stage])
        return self.inner_widths[start : start + self.depths[stage]]

    def operator_of(self, stage: int) -> Operator:
        """The operator of a stage, counted from 0, with its groups."""
        chosen = self.operator[stage] if isinstance(self.operator, tuple) else self.operator
        return chosen.with_groups(self.cardinality)


def _operators(value: Any) -> Operator | tuple[Operator, ...]:
    """One operator or several, given as such or by name. Raises UsageError for anything else."""
    if isinstance(value, (list, tuple)) and value:
        several = tuple(_operators(v) for v in value if not isinstance(v, (list, tuple)))
        if len(several) != len(value):
            what = f"the model argument operator={value!r}"
            raise UsageError(what, why="one operator a stage, or one for all", hint="operator=res2net")
        return tuple(v for v in several if isinstance(v, Operator))
    if isinstance(value, Operator):
        return value
    if not isinstance(value, str):
        raise UsageError(f"the model argument operator={value!r}", hint=f"one of {', '.join(OPERATORS.names())}")
    return OPERATORS[value]


_CHOICES: dict[str, tuple[Any, ...]] = {
    "block": get_args(BlockForm),
    "stem": (*get_args(StemKind), None),
    "projection": tuple(p for p in get_args(Projection) if p != "none"),
    "downsampling": get_args(Downsampling),
    "squeeze": (True, False),
    "gate": get_args(Gate),
    "pool": get_args(Pooling),
    "shortcut_levels": (1, 2, 3),
    "multi_stage": (True, False),
    "exits": (True, False),
}


class Stage(nn.Module):
    """Blocks at one resolution, named '0', '1', ...; at level 2 with a shortcut over them all, then perhaps a ReLU."""

    def __init__(self, blocks: list[ResidualBlock], shortcut: LayerShortcut | None, act: bool) -> None:
        super().__init__()
        self.depth = len(blocks)
        for i, block in enumerate(blocks):
            self.add_module(str(i), block)
        self.shortcut = shortcut
        self.act = nn.ReLU(inplace=True) if act else nn.Identity()

    def blocks(self) -> list[nn.Module]:
        """The blocks, in order."""
        return [self.get_submodule(str(i)) for i in range(self.depth)]

    def __getitem__(self, index: int) -> nn.Module:
        return self.blocks()[index]

    def __len__(self) -> int:
        return self.depth

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H/s), ceil(W/s))."""
        body = x
        for block in self.blocks():
            body = block(body)
        return body if self.shortcut is None else self.act(self.shortcut(x, body))


class MultiScaleResNet(ImageModel):
    """A stem, stages of residual blocks around any operator, shortcuts up to level 3, and a pooled classifier."""

    fold_pairs = (("conv1", "bn1"),)
    tail = ("norm", "exits")

    def __init__(self, spec: ResNetSpec, config: Config) -> None:
        super().__init__(config if config.global_pool is not None else config._replace(global_pool=spec.pool))
        self.spec = spec
        stem = build_stem(
            spec.stem or stem_for(config.img_size)[0], config.in_chans, spec.stem_width, spec.downsampling
        )
        preact = spec.block.startswith("preact")
        self.conv1 = stem.conv1
        self.bn1 = nn.Identity() if preact else nn.BatchNorm2d(spec.stem_width)
        self.act1 = nn.Identity() if preact else nn.ReLU(inplace=True)
        self.maxpool = stem.maxpool
        strides = spec.strides or (1, *[2] * (len(spec.depths) - 1))
        info = [StageInfo(spec.stem_width, stem.conv_reduction, "act1")]
        chs, reduction = spec.stem_width, stem.reduction
        for i, stride in enumerate(strides):
            stage, reduction = self._stage(i, chs, stride), reduction * stride
            self.add_module(f"layer{i + 1}", stage)
            chs = spec.widths[i] * BLOCKS[spec.block].expansion
            info.append(StageInfo(chs, reduction, f"layer{i + 1}"))
        self.feature_info = FeatureInfo(info)
        self.body_shortcut = LayerShortcut(spec.stem_width, chs, spec.gate) if spec.shortcut_levels == 3 else None
        self.body_act = nn.Identity() if preact else nn.ReLU(inplace=True)
        self.fusion = MultiStageFusion() if spec.multi_stage else None
        self.num_features = sum(s.num_chs for s in info[1:]) if spec.multi_stage else chs
        last_norm = (nn.BatchNorm2d(self.num_features), nn.ReLU(inplace=True))
        self.norm = nn.Sequential(*last_norm) if preact else nn.Identity()
        self.attribution_layer = f"layer{len(spec.depths)}"
        self.exits = nn.ModuleList(
            ExitHead(stage.num_chs, min(stage.num_chs, EXIT_WIDTH), config.num_classes)
            for stage in (info[1:-1] if spec.exits else ())
        )
        self.num_exits = len(self.exits) + 1
        self.optional_weights = r"exits\..+"
        init_residual(self)
        self.convolutional_classifier = preact
        self.add_classifier()
        if preact:
            names = {f"layer{i + 1}.": f"stages.{i}.blocks." for i in range(len(spec.depths))}
            rename_keys(self, names | {"conv1.": "stem.conv.", "norm.0.": "norm.", "fc.": "head.fc."})

    def _stage(self, index: int, in_chs: int, stride: int) -> Stage:
        spec, width = self.spec, self.spec.widths[index]
        form = BLOCKS[spec.block]
        out_chs = width * form.expansion
        inner = spec.inner_widths_of(index)
        start, total = sum(spec.depths[:index]), max(1, sum(spec.depths) - 1)
        levels, depth, preact = spec.shortcut_levels, spec.depths[index], spec.block.startswith("preact")
        blocks = [
            form(
                BlockSpec(
                    in_chs=out_chs if i else in_chs,
                    out_chs=out_chs,
                    width=inner[i],
                    operator=spec.operator_of(index),
                    stride=1 if i else stride,
                    first=i == 0,
                    projection=spec.projection,
                    downsampling=spec.downsampling,
                    squeeze=spec.squeeze,
                    last_act=levels == 1 or i < depth - 1,
                    drop_path=self.config.drop_path_rate * (start + i) / total,
                    # Elastic blocks halve only where the block does not, and not the last, small maps.
                    coarse=1 if (stride > 1 and not i) or index == len(spec.depths) - 1 else 2,
                )
            )
            for i in range(depth)
        ]
        shortcut = LayerShortcut(in_chs, out_chs, spec.gate) if levels >= 2 else None
        summed_later = levels == 3 and index == len(spec.depths) - 1
        return Stage(blocks, shortcut, act=not (preact or summed_later))

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
            maps[-1] = self._closed(stem, x)
        return maps

    def _closed(self, stem: Tensor, x: Tensor) -> Tensor:
        """The last stage's map, with the shortcut over the whole body."""
        return x if self.body_shortcut is None else self.body_act(self.body_shortcut(stem, x))

    def advance(self, state: list[Tensor], exit_index: int) -> tuple[list[Tensor], Tensor]:
        """Run one more stage; the state is the stem's map and each stage's so far."""
        if not self.exits:
            return super().advance(state, exit_index)
        maps = state if exit_index else [self.maxpool(self.act1(self.bn1(self.conv1(state[0]))))]
        maps = [*maps, self.run_stage(self.stages()[exit_index], maps[-1])]
        if exit_index < len(self.exits):
            return maps, self.exits[exit_index](maps[-1])
        maps[-1] = self._closed(maps[0], maps[-1])
        return [], self.forward_head(self._final(maps))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, num_features, h, w): the last stage's map, or all stages joined at its size."""
        return self._final(self.forward_stages(x))

    def _final(self, maps: list[Tensor]) -> Tensor:
        x = maps[-1] if self.fusion is None else self.fusion(maps[1:])
        return self.norm(x)  # type: ignore[no-any-return]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, then blocks (or whole stages when `coarse`)."""
        return {"stem": r"^conv1|bn1|maxpool", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

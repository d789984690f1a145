"""Deep layer aggregation: stages are trees, whose roots join the outputs of blocks near and far.

Yu et al., "Deep Layer Aggregation", arXiv 1707.06484; with Res2Net's blocks, arXiv 1904.01169. Parameter names are
timm's. B batch, C channels, H and W pixels. Decisions:

- At an odd border the pooled shortcut keeps the pixels that are there, as the strided convolution beside it does.
- Convolutions start as He et al. (arXiv 1502.01852), fan-out; no BN starts at zero, as the authors have it.
- The classifier is a 1x1 convolution, as in the published weights, and starts as linear layers do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.models.arguments import MOST_CHANNELS, check_choice, check_count, check_counts
from msresnet.models.base import Config, FeatureInfo, ImageModel, StageInfo
from msresnet.nn.blocks import BLOCKS, BlockSpec
from msresnet.nn.convolution import conv_bn, he_init
from msresnet.nn.grammar import OPERATORS, PLAIN, Operator, res2net
from msresnet.nn.stems import stem_for

MOST_DEPTH = 8
"""A tree of depth n holds 2 ** n blocks."""
BLOCK_REDUCTION = {"basic": 1, "bottleneck": 2}
"""How much narrower a block is inside than at its end."""


@dataclass(frozen=True)
class DLASpec:
    """A family member as data.

    Args:
        depths: of the trees that levels 2 to 5 are; a tree of depth n holds 2 ** n blocks.
        widths: channels of levels 0 to 5.
        block: the residual block's form.
        operator: what its spatial convolutions are.
        base_width, cardinality: a block's operator has C * base_width / 64 * cardinality * scale channels, a
            bottleneck's half as many.
        scale: groups of a Res2Net operator, by which its width is multiplied.
        residual_root: whether a root adds its nearest input to its output.
        stem: 'imagenet' is a 7x7 convolution, and levels 1 and 2 halve the resolution; 'small' a 3x3, and they do not.
            None chooses by the image's size.
    """

    depths: tuple[int, ...] = (1, 2, 2, 1)
    widths: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    block: Literal["basic", "bottleneck"] = "basic"
    operator: Operator = PLAIN
    base_width: int = 64
    cardinality: int = 1
    scale: int = 1
    residual_root: bool = False
    stem: Literal["imagenet", "small"] | None = "imagenet"

    def __post_init__(self) -> None:
        """Refuse, with a UsageError, what cannot be built: settings come from the command line and from files too.

        The operator may be given by name there.
        """
        if isinstance(self.operator, str):
            object.__setattr__(self, "operator", OPERATORS[self.operator])
        if not isinstance(self.operator, Operator):
            raise UsageError(f"the model argument operator={self.operator!r}", hint=", ".join(OPERATORS.names()))
        check_choice("block", self.block, tuple(BLOCK_REDUCTION))
        check_choice("residual_root", self.residual_root, (True, False))
        check_choice("stem", self.stem, ("imagenet", "small", None))
        object.__setattr__(self, "depths", check_counts("depths", self.depths, 4, MOST_DEPTH))
        object.__setattr__(self, "widths", check_counts("widths", self.widths, 6))
        for name in ("base_width", "cardinality", "scale"):
            check_count(name, getattr(self, name))
        inner = [self.inner_width(chs) for chs in self.widths[2:]]
        if min(inner) < 1 or max(inner) > MOST_CHANNELS:
            what, why = f"blocks with {inner} channels inside", f"1 to {MOST_CHANNELS} can be built"
            raise UsageError(what, why=why, hint="base_width=64 cardinality=1")

    def inner_width(self, chs: int) -> int:
        """Channels of the spatial convolutions of a block that ends with `chs`."""
        return int(chs * self.base_width / 64) * self.cardinality // BLOCK_REDUCTION[self.block] * self.scale


class Root(nn.Module):
    """An aggregation node: its inputs side by side, a 1x1 convolution, BN, ReLU (section 3.3 of the paper)."""

    fold_pairs = (("conv", "bn"),)

    def __init__(self, in_chs: int, out_chs: int, residual: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chs, out_chs, 1, bias=False)
        self.bn, self.act = nn.BatchNorm2d(out_chs), nn.ReLU(inplace=True)
        self.residual = residual

    def forward(self, children: list[Tensor]) -> Tensor:
        """[(B, C_i, H, W)], the nearest first -> (B, C, H, W)."""
        x = self.bn(self.conv(torch.cat(children, 1)))
        return self.act(x + children[0] if self.residual else x)  # type: ignore[no-any-return]


class Shape(NamedTuple):
    """A tree's channels, its stride, and the channels of what its last root takes besides its own two blocks."""

    in_chs: int
    out_chs: int
    stride: int = 1
    extra: int = 0


class Tree(nn.Module):
    """Two blocks and a root; or two smaller trees, of which the second hands the first one's output to its last root.

    Hierarchical deep aggregation (section 3.2 of the paper): a root so joins blocks of all depths below it.

    Args:
        spec: the network's row.
        depth: 1 for blocks, more for trees.
        shape: see `Shape`.
        drop_paths: rates of stochastic depth, one taken for each block in turn.
        joins_input: whether the last root takes the tree's (pooled) input as well.
    """

    def __init__(
        self, spec: DLASpec, depth: int, shape: Shape, drop_paths: Iterator[float], joins_input: bool = False
    ) -> None:
        super().__init__()
        in_chs, out_chs, stride, extra = shape
        self.depth, self.joins_input = depth, joins_input
        pools = stride > 1 and (depth == 1 or joins_input)
        self.pool = nn.MaxPool2d(stride, stride, ceil_mode=True) if pools else nn.Identity()
        extra += in_chs if joins_input else 0
        second = Shape(out_chs, out_chs, extra=extra)
        if depth > 1:
            self.tree1: nn.Module = Tree(spec, depth - 1, Shape(in_chs, out_chs, stride), drop_paths)
            self.tree2: nn.Module = Tree(spec, depth - 1, second._replace(extra=extra + out_chs), drop_paths)
            return
        self.tree1 = _block(spec, shape, drop_paths)
        self.tree2 = _block(spec, second, drop_paths)
        self.root = Root(2 * out_chs + extra, out_chs, spec.residual_root)
        self.project: nn.Module = nn.Identity()
        if in_chs != out_chs:
            self.project = nn.Sequential(nn.Conv2d(in_chs, out_chs, 1, bias=False), nn.BatchNorm2d(out_chs))

    def forward(self, x: Tensor, children: tuple[Tensor, ...] = ()) -> Tensor:
        """(B, C_in, H, W), and what the last root takes besides -> (B, C_out, ceil(H/s), ceil(W/s))."""
        pooled = self.pool(x)
        if self.joins_input:
            children = (*children, pooled)
        if self.depth > 1:
            first = self.tree1(x)
            return self.tree2(first, (*children, first))  # type: ignore[no-any-return]
        first = self.tree1(x, self.project(pooled))
        return self.root([self.tree2(first), first, *children])  # type: ignore[no-any-return]


def _block(spec: DLASpec, shape: Shape, drop_paths: Iterator[float]) -> nn.Module:
    """A residual block without a projection: the tree hands it its shortcut where the shape changes."""
    return BLOCKS[spec.block](
        BlockSpec(
            in_chs=shape.in_chs,
            out_chs=shape.out_chs,
            width=spec.inner_width(shape.out_chs),
            operator=spec.operator.with_groups(spec.cardinality),
            stride=shape.stride,
            first=shape.stride > 1 or shape.in_chs != shape.out_chs,
            projection="none",
            drop_path=next(drop_paths),
        )
    )


def _unused_projections(spec: DLASpec) -> str:
    """Pattern of the tensors that the authors' files hold for projections of trees of trees, which nothing reads."""
    deep = [(level, depth) for level, depth in enumerate(spec.depths, 2) if depth > 1]
    return "|".join(rf"level{level}(\.tree1){{0,{depth - 2}}}\.project\..+" for level, depth in deep)


class DLA(ImageModel):
    """Two plain levels, then four that are trees, each at half the resolution of the one before."""

    convolutional_classifier = True
    attribution_layer = "level5"

    def __init__(self, spec: DLASpec, config: Config) -> None:
        super().__init__(config)
        self.spec = spec
        small = (spec.stem or stem_for(config.img_size)[0]) == "small"
        strides = (1, 1, 1, 2, 2, 2) if small else (1, 2, 2, 2, 2, 2)
        widths, blocks = spec.widths, sum(2**depth for depth in spec.depths)
        rates = iter([config.drop_path_rate * i / (blocks - 1) for i in range(blocks)])
        self.base_layer = conv_bn(config.in_chans, widths[0], 3 if small else 7)
        self.level0 = conv_bn(widths[0], widths[0])
        self.level1 = conv_bn(widths[0], widths[1], stride=strides[1])
        info, reduction = [], 1
        for i, (chs, stride) in enumerate(zip(widths, strides, strict=True)):
            if i > 1:
                shape = Shape(widths[i - 1], chs, stride)
                self.add_module(f"level{i}", Tree(spec, spec.depths[i - 2], shape, rates, joins_input=i > 2))
            reduction *= stride
            info.append(StageInfo(chs, reduction, f"level{i}"))
        self.feature_info = FeatureInfo(info)
        self.num_features = widths[-1]
        self.unused_weights = _unused_projections(spec)
        he_init(self)
        self.add_classifier()

    def forward_stages(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        """(B, C, H, W) -> the maps of levels 0 to 5, at 1/1 to 1/32 behind the ImageNet stem."""
        x = self.base_layer(x)
        maps = []
        for stage in self.feature_info.module_name()[: None if last is None else last + 1]:
            x = self.run_stage(self.get_submodule(stage), x)
            maps.append(x)
        return maps

    @property
    def default_indices(self) -> list[int]:
        """All but level 0, whose map has the image's own resolution, as timm chooses."""
        return list(range(1, len(self.feature_info)))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, then the halves of each level's tree (or whole levels when `coarse`)."""
        halves = [(r"^level(\d+)\.tree(\d)", None), (r"^level(\d+)\.root", (2,)), (r"^level(\d+)", (1,))]
        return {"stem": r"^base_layer", "blocks": r"^level(\d+)" if coarse else halves}


_NARROW, _WIDE = (16, 32, 64, 64, 128, 256), (16, 32, 128, 256, 512, 1024)
_46C = DLASpec((1, 2, 2, 1), _NARROW, "bottleneck")
_60 = DLASpec((1, 2, 3, 1), _WIDE, "bottleneck")
_102 = DLASpec((1, 3, 4, 1), _WIDE, "bottleneck", residual_root=True)
DLA_ROWS: dict[str, DLASpec] = {
    "dla34": DLASpec(),
    "dla46_c": _46C,
    "dla46x_c": replace(_46C, cardinality=32, base_width=4),
    "dla60x_c": replace(_46C, depths=_60.depths, cardinality=32, base_width=4),
    "dla60": _60,
    "dla60x": replace(_60, cardinality=32, base_width=4),
    "dla102": _102,
    "dla102x": replace(_102, cardinality=32, base_width=4),
    "dla102x2": replace(_102, cardinality=64, base_width=4),
    "dla169": replace(_102, depths=(2, 3, 5, 1)),
    "dla60_res2net": replace(_60, operator=res2net(4), scale=4, base_width=28),
    "dla60_res2next": replace(_60, operator=res2net(4), scale=4, base_width=4, cardinality=8),
}

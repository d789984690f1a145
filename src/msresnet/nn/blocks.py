"""Residual blocks. Each takes any operator for its spatial convolutions; parameter names are timm's.

B batch, C channels, H and W pixels. All map (B, C_in, H, W) to (B, C_out, ceil(H/s), ceil(W/s)).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from msresnet.nn.attention import SqueezeExcite
from msresnet.nn.convolution import he_init
from msresnet.nn.downsampling import Downsampling, pools
from msresnet.nn.fusion import resize_to
from msresnet.nn.grammar import PLAIN, Operator
from msresnet.nn.operators import CascadeConv2d, Geometry, MultiScaleConv2d, build_operator
from msresnet.nn.shortcuts import DropPath, Projection, projection

BlockForm = Literal["basic", "bottleneck", "elastic", "preact_basic", "preact_bottleneck"]


@dataclass(frozen=True)
class BlockSpec:
    """Everything that shapes one block.

    Args:
        in_chs, out_chs: channels at its ends.
        width: channels of its spatial convolutions.
        stride: of the block; the first spatial convolution carries it, or the pool beside it.
        first: whether the block begins a stage (Res2Net adds nothing between groups there).
        projection: of its shortcut where the shape changes.
        downsampling: what does the striding.
        squeeze: whether the residual's channels are reweighted (SENet, arXiv 1709.01507).
        last_act: whether it ends in a ReLU (not where an inter-layer shortcut is added right after it).
        drop_path: probability of dropping the residual branch of a sample.
        coarse: resolution divisor of an elastic block's second half.
    """

    in_chs: int
    out_chs: int
    width: int
    operator: Operator = PLAIN
    stride: int = 1
    first: bool = False
    projection: Projection = "conv1x1"
    downsampling: Downsampling = "conv"
    squeeze: bool = False
    last_act: bool = True
    drop_path: float = 0.0
    coarse: int = 2


class ResidualBlock(nn.Module, ABC):
    """x -> act(residual(x) + shortcut(x)); subclasses say what the residual is."""

    expansion: ClassVar[int]
    """Channels at the block's end for each planned channel of the stage."""
    conv1: nn.Module
    bn1: nn.Module
    act1: nn.Module
    conv2: nn.Module
    bn2: nn.Module
    act2: nn.Module

    def __init__(self, spec: BlockSpec, norm_projection: bool = True) -> None:
        super().__init__()
        self.spec = spec
        self.downsample = projection(spec.projection, spec.in_chs, spec.out_chs, spec.stride, norm_projection)
        self.se = SqueezeExcite(spec.out_chs) if spec.squeeze else nn.Identity()
        self.drop_path = DropPath(spec.drop_path) if spec.drop_path else nn.Identity()

    def operator_at(self, index: int) -> Operator:
        """The operator of a basic block's first or second convolution: some stand at one of them only."""
        place = self.spec.operator.place
        return self.spec.operator if place in ("every", ("first", "second")[index - 1]) else PLAIN

    def add_operator(self, index: int, operator: Operator, geometry: Geometry) -> None:
        """Register an operator as conv<index>, with bn<index> and act<index> unless it holds its own.

        At a stride, `pool_before<index>` and `pool<index>` stand around them.
        """
        before, after, stride = pools(self.spec.downsampling, geometry.out_chs, geometry.stride)
        geometry = geometry._replace(stride=stride)
        conv = build_operator(operator, geometry)
        has_norm, has_act = getattr(conv, "has_norm", False), getattr(conv, "has_act", False)
        self.add_module(f"pool_before{index}", before)
        self.add_module(f"conv{index}", conv)
        self.add_module(f"bn{index}", nn.Identity() if has_norm else nn.BatchNorm2d(geometry.out_chs))
        self.add_module(f"act{index}", nn.Identity() if has_act else nn.ReLU(inplace=True))
        self.add_module(f"pool{index}", after)
        if isinstance(conv, CascadeConv2d):
            hoist(self, f"conv{index}")

    def publish_names(self, *plain: int) -> None:
        """Beside a selective operator, write conv<i> and bn<i> as published weights do: conv<i>.conv, conv<i>.bn."""
        if any(isinstance(m, MultiScaleConv2d) and m.spec.merge == "softmax" for m in self.children()):
            names = {f"conv{i}.": f"conv{i}.conv." for i in plain} | {f"bn{i}.": f"conv{i}.bn." for i in plain}
            rename_keys(self, names)

    @abstractmethod
    def zero_init_last(self) -> None:
        """Start the residual at zero, so that a deep network begins as a shallow one (arXiv 1706.02677)."""


class BasicBlock(ResidualBlock):
    """Two spatial convolutions (arXiv 1512.03385, figure 5 left)."""

    expansion = 1
    fold_pairs = (("conv1", "bn1"), ("conv2", "bn2"))
    pool_before1: nn.Module
    pool1: nn.Module

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec)
        self.add_operator(1, self.operator_at(1), Geometry(spec.in_chs, spec.width, spec.stride, spec.first))
        conv = build_operator(self.operator_at(2), Geometry(spec.width, spec.out_chs))
        self.conv2 = conv
        self.bn2 = nn.Identity() if getattr(conv, "has_norm", False) else nn.BatchNorm2d(spec.out_chs)
        if isinstance(conv, CascadeConv2d):
            hoist(self, "conv2")
        self.act2 = nn.ReLU(inplace=True) if spec.last_act else nn.Identity()
        self.publish_names(2)

    def zero_init_last(self) -> None:
        """Zero the last BN's scale, where the block holds it."""
        if isinstance(self.bn2, nn.BatchNorm2d):
            nn.init.zeros_(self.bn2.weight)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H/s), ceil(W/s)); `shortcut`, if given, takes the place of x's own."""
        residual = self.pool1(self.act1(self.bn1(self.conv1(self.pool_before1(x)))))
        residual = self.drop_path(self.se(self.bn2(self.conv2(residual))))
        return self.act2(residual + (self.downsample(x) if shortcut is None else shortcut))  # type: ignore[no-any-return]


class Bottleneck(ResidualBlock):
    """1x1 down, an operator, 1x1 up (arXiv 1512.03385, figure 5 right); the operator carries the stride."""

    expansion = 4
    fold_pairs = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))
    pool_before2: nn.Module
    pool2: nn.Module

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec)
        self.conv1 = nn.Conv2d(spec.in_chs, spec.width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(spec.width)
        self.act1 = nn.ReLU(inplace=True)
        self.add_operator(2, spec.operator, Geometry(spec.width, spec.width, spec.stride, spec.first))
        self.conv3 = nn.Conv2d(spec.width, spec.out_chs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(spec.out_chs)
        self.act3 = nn.ReLU(inplace=True) if spec.last_act else nn.Identity()
        self.publish_names(1, 3)

    def zero_init_last(self) -> None:
        """Zero the last BN's scale."""
        nn.init.zeros_(self.bn3.weight)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H/s), ceil(W/s)); `shortcut`, if given, takes the place of x's own."""
        residual = self.pool_before2(self.act1(self.bn1(self.conv1(x))))
        residual = self.pool2(self.act2(self.bn2(self.conv2(residual))))
        residual = self.drop_path(self.se(self.bn3(self.conv3(residual))))
        return self.act3(residual + (self.downsample(x) if shortcut is None else shortcut))  # type: ignore[no-any-return]


class ElasticPath(nn.Module):
    """One half of an elastic bottleneck, at the full resolution or at half of it: 1x1, operator, 1x1."""

    fold_pairs = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, spec: BlockSpec, down: int) -> None:
        super().__init__()
        self.pool: nn.Module = nn.Identity()
        if down > 1:
            self.pool = nn.AvgPool2d(down, ceil_mode=True, count_include_pad=False)
        self.conv1 = nn.Conv2d(spec.in_chs, spec.width, 1, bias=False)
        self.bn1, self.act1 = nn.BatchNorm2d(spec.width), nn.ReLU(inplace=True)
        self.conv2 = build_operator(spec.operator, Geometry(spec.width, spec.width, spec.stride, spec.first))
        has_norm = getattr(self.conv2, "has_norm", False)
        self.bn2 = nn.Identity() if has_norm else nn.BatchNorm2d(spec.width)
        self.act2 = nn.Identity() if getattr(self.conv2, "has_act", False) else nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(spec.width, spec.out_chs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H/s), ceil(W/s)), or half of that."""
        x = self.act1(self.bn1(self.conv1(self.pool(x))))
        return self.conv3(self.act2(self.bn2(self.conv2(x))))  # type: ignore[no-any-return]


class ElasticBottleneck(ResidualBlock):
    """Two bottlenecks of half the width, the second at a lower resolution, summed (ELASTIC, arXiv 1812.05262)."""

    expansion = 4

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec)
        half = replace(spec, width=spec.width // 2, operator=spec.operator.halved())
        self.fine, self.coarse = ElasticPath(half, 1), ElasticPath(half, spec.coarse)
        self.bn3 = nn.BatchNorm2d(spec.out_chs)
        self.act3 = nn.ReLU(inplace=True) if spec.last_act else nn.Identity()

    def zero_init_last(self) -> None:
        """Zero the last BN's scale."""
        nn.init.zeros_(self.bn3.weight)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H/s), ceil(W/s)); `shortcut`, if given, takes the place of x's own."""
        fine = self.fine(x)
        residual = fine + resize_to(self.coarse(x), (fine.shape[-2], fine.shape[-1]))
        residual = self.drop_path(self.se(self.bn3(residual)))
        return self.act3(residual + (self.downsample(x) if shortcut is None else shortcut))  # type: ignore[no-any-return]


PREACT_NAMES = {f"bn{i}.": f"norm{i}." for i in (1, 2, 3)} | {"downsample.0.": "downsample.conv."}
"""How published pre-activation weights name a block's parts."""


class PreActBasicBlock(ResidualBlock):
    """BN and ReLU before each of two operators; the shortcut stays clean (arXiv 1603.05027)."""

    expansion = 1
    fold_pairs = (("conv1", "bn2"),)

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec, norm_projection=False)
        self.bn1, self.act1 = nn.BatchNorm2d(spec.in_chs), nn.ReLU(inplace=False)
        self.conv1 = build_operator(self.operator_at(1), Geometry(spec.in_chs, spec.width, spec.stride, spec.first))
        self.bn2, self.act2 = nn.BatchNorm2d(spec.width), nn.ReLU(inplace=True)
        self.conv2 = build_operator(self.operator_at(2), Geometry(spec.width, spec.out_chs))
        rename_keys(self, PREACT_NAMES)

    def zero_init_last(self) -> None:
        """Nothing to zero: the residual ends in a convolution."""

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H/s), ceil(W/s)); `shortcut`, if given, takes the place of x's own."""
        active = self.act1(self.bn1(x))
        if shortcut is None:
            shortcut = x if isinstance(self.downsample, nn.Identity) else self.downsample(active)
        residual = self.conv2(self.act2(self.bn2(self.conv1(active))))
        return self.drop_path(self.se(residual)) + shortcut  # type: ignore[no-any-return]


class PreActBottleneck(ResidualBlock):
    """The bottleneck with BN and ReLU before each convolution (arXiv 1603.05027)."""

    expansion = 4
    fold_pairs = (("conv1", "bn2"), ("conv2", "bn3"))

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec, norm_projection=False)
        self.bn1, self.act1 = nn.BatchNorm2d(spec.in_chs), nn.ReLU(inplace=False)
        self.conv1 = nn.Conv2d(spec.in_chs, spec.width, 1, bias=False)
        self.bn2, self.act2 = nn.BatchNorm2d(spec.width), nn.ReLU(inplace=True)
        self.conv2 = build_operator(spec.operator, Geometry(spec.width, spec.width, spec.stride, spec.first))
        self.bn3, self.act3 = nn.BatchNorm2d(spec.width), nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(spec.width, spec.out_chs, 1, bias=False)
        rename_keys(self, PREACT_NAMES)

    def zero_init_last(self) -> None:
        """Nothing to zero: the residual ends in a convolution."""

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H/s), ceil(W/s)); `shortcut`, if given, takes the place of x's own."""
        active = self.act1(self.bn1(x))
        if shortcut is None:
            shortcut = x if isinstance(self.downsample, nn.Identity) else self.downsample(active)
        residual = self.conv2(self.act2(self.bn2(self.conv1(active))))
        residual = self.conv3(self.act3(self.bn3(residual)))
        return self.drop_path(self.se(residual)) + shortcut  # type: ignore[no-any-return]


BLOCKS: dict[BlockForm, type[ResidualBlock]] = {
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
    "elastic": ElasticBottleneck,
    "preact_basic": PreActBasicBlock,
    "preact_bottleneck": PreActBottleneck,
}


def init_residual(network: nn.Module) -> None:
    """Start the convolutions of a network as `he_init` does, and the residual of each of its blocks at zero."""
    he_init(network)
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            module.zero_init_last()


def hoist(block: nn.Module, child: str) -> None:
    """Let a child's entries stand one level higher in the state dict: 'conv2.convs.0' is written as 'convs.0'.

    Published Res2Net weights name the cascade's parts directly in the block; ours live in an operator like any other.
    """
    parts = [name for name, _ in block.get_submodule(child).named_children()]
    rename_keys(block, {f"{child}.{part}.": f"{part}." for part in parts})


def rename_keys(module: nn.Module, names: dict[str, str]) -> None:
    """Write a module's state dict under published names: {our prefix: the published one}, applied in order."""
    ours, published = list(names), list(names.values())
    module.register_state_dict_post_hook(partial(_rename, ours, published))
    module.register_load_state_dict_pre_hook(partial(_rename, published[::-1], ours[::-1]))


def _rename(
    old: list[str], new: list[str], _module: nn.Module, state: dict[str, Any], prefix: str, *_rest: Any
) -> None:
    for before, after in zip(old, new, strict=True):
        start = prefix + before
        for key in [k for k in state if k.startswith(start)]:
            state[prefix + after + key[len(start) :]] = state.pop(key)

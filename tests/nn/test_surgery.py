"""Taking channels out of blocks is exact: the smaller network is the larger one with those channels at zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from msresnet.models.base import Config, ImageModel
from msresnet.models.factory import MODELS, create_classifier, create_segmenter
from msresnet.models.resnet import MultiScaleResNet, ResNetSpec
from msresnet.nn.grammar import REPARAMETERISED, res2net
from msresnet.nn.operators import CascadeConv2d, MultiScaleConv2d
from msresnet.nn.surgery import FORMS, Inside, blocks_of, inside, pruned_state
from randomise import randomised, relative_error

SIDE = 32
SMALL = ResNetSpec((2, 1), (32, 64), stem="small", stem_width=16)
NARROW = replace(SMALL, block="bottleneck")
"""Inner widths 32 and 64, ends 128 and 256."""
ROWS: dict[str, ResNetSpec] = {
    "plain": SMALL,
    "online": replace(SMALL, operator="online"),  # type: ignore[arg-type]
    "preact": replace(SMALL, block="preact_basic", shortcut_levels=3),
    "pyramid in basic blocks": replace(SMALL, operator="pyramid", widths=(128, 256)),  # type: ignore[arg-type]
    "bottleneck": replace(NARROW, shortcut_levels=2),
    "bottleneck online": replace(NARROW, operator="online", downsampling="blur"),  # type: ignore[arg-type]
    "preact bottleneck": replace(NARROW, block="preact_bottleneck"),
    "groups": replace(NARROW, cardinality=8, base_width=4),
    "cascade": replace(NARROW, operator=res2net(4), base_width=26, scale=4),
    "cascade of groups": replace(NARROW, operator=res2net(4), base_width=4, scale=4, cardinality=4),
    "low resolution": replace(NARROW, operator="low_resolution"),  # type: ignore[arg-type]
    "mixed depthwise": replace(NARROW, operator="mixed_depthwise", base_width=96),  # type: ignore[arg-type]
    "inception": replace(NARROW, operator="inception_depthwise", squeeze=True),  # type: ignore[arg-type]
    "reparameterised": replace(NARROW, operator=REPARAMETERISED),
    "several stages' operators": replace(NARROW, operator=("plain", "low_resolution"), multi_stage=True),  # type: ignore[arg-type]
}


def built(row: ResNetSpec, **more: Any) -> MultiScaleResNet:
    torch.manual_seed(0)
    config = Config(num_classes=5, in_chans=2, img_size=(SIDE, SIDE))
    model = MultiScaleResNet(replace(row, **more), config)
    randomised(model)
    return model


def half(model: nn.Module, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Gates kept at random, about half of each block that can lose any, and the widths that remain."""
    generator = torch.Generator().manual_seed(seed)
    kept, widths = {}, {}
    for path, block in blocks_of(model).items():
        found = inside(block)
        widths[path] = block.spec.width
        if found is not None and found.step < found.width:
            widths[path] = max(1, found.width // 2 // found.step) * found.step
            gates = found.width * len(FORMS[type(block)].given)
            kept[path] = found.kept(torch.rand(gates, generator=generator), widths[path])
    return kept, widths


def zeroed(model: nn.Module, kept: dict[str, Tensor]) -> None:
    """Put the other channels to zero, in the network itself: BN before the ReLU gives nothing there."""
    for path, gates in kept.items():
        block = blocks_of(model)[path]
        form, width = FORMS[type(block)], block.spec.width
        for index, norm in enumerate(form.norms):
            gone = torch.ones(width, dtype=torch.bool)
            gone[gates[(gates >= index * width) & (gates < (index + 1) * width)] - index * width] = False
            module, operator = block.get_submodule(norm), block.get_submodule(f"conv{index + 1}")
            if isinstance(module, nn.BatchNorm2d):
                module.weight.data[gone] = 0
                module.bias.data[gone] = 0
            elif isinstance(operator, CascadeConv2d):
                for i, inner in enumerate(operator.bns):
                    part = gone[i * operator.width : (i + 1) * operator.width]
                    inner.weight.data[part] = 0  # type: ignore[operator]
                    inner.bias.data[part] = 0  # type: ignore[operator]
            else:
                assert isinstance(operator, MultiScaleConv2d)
                for branch in operator.paths:
                    inner = branch.get_submodule("bn")
                    inner.weight.data[gone] = 0  # type: ignore[operator]
                    inner.bias.data[gone] = 0  # type: ignore[operator]


@pytest.mark.parametrize("name", ROWS)
def test_the_pruned_network_is_the_whole_one_with_zeros(name: str) -> None:
    whole = built(ROWS[name])
    kept, widths = half(whole)
    assert len(kept) == 3
    small = built(ROWS[name], inner_widths=tuple(widths.values()))
    small.load_state_dict(pruned_state(whole, kept))
    before = {key: tensor.clone() for key, tensor in whole.state_dict().items()}
    assert all(torch.equal(before[key], tensor) for key, tensor in built(ROWS[name]).state_dict().items())
    zeroed(whole, kept)
    x = torch.randn(2, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert relative_error(small.eval()(x), whole(x)) < 1e-5
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in whole.parameters())


@pytest.mark.parametrize("name", ["selective", "radix"])
def test_attention_over_all_channels_ties_them_together(name: str) -> None:
    blocks = blocks_of(built(replace(NARROW, operator=name)))  # type: ignore[arg-type]
    assert [inside(block) for block in blocks.values()] == [None] * 3


def test_an_identity_between_the_ends_of_a_block_ties_them_together() -> None:
    blocks = blocks_of(built(replace(SMALL, operator=REPARAMETERISED)))
    assert all(inside(block) is None for block in blocks.values())


def test_of_each_split_the_same_share_is_kept() -> None:
    block = next(iter(blocks_of(built(ROWS["groups"])).values()))
    found = inside(block)
    assert isinstance(found, Inside)
    width = block.spec.width  # 8 groups
    gates = found.kept(torch.arange(2.0 * width), width // 2)
    first, second = gates[gates < width], gates[gates >= width] - width
    for part in (first, second):
        assert torch.equal((part // (width // 8)).unique(return_counts=True)[1], torch.full((8,), width // 16))
        assert bool((part % (width // 8) >= width // 16).all())  # the best of each


def test_a_cascade_loses_the_same_channels_of_each_group() -> None:
    block = next(iter(blocks_of(built(ROWS["cascade"])).values()))
    found = inside(block)
    assert isinstance(found, Inside)
    assert found.step == 4
    gates = found.kept(
        torch.rand(2 * found.width, generator=torch.Generator().manual_seed(0)), found.width // 2 // 4 * 4
    )
    group = found.width // 4
    for start in range(0, 2 * found.width, group):
        part = gates[(gates >= start) & (gates < start + group)] - start
        assert torch.equal(part, gates[gates < group])


@pytest.mark.parametrize(
    "name", ["msresnet_micro", "msresnet50", "resnext50_32x4d", "res2net50_26w_4s", "pyconvresnet50"]
)
def test_registered_networks_can_be_pruned(name: str) -> None:
    arguments: dict[str, Any] = {"num_classes": 4, "in_chans": 1, "img_size": 32}
    whole = create_classifier(name, **arguments)
    kept, widths = half(whole)
    small = create_classifier(name, **arguments, inner_widths=list(widths.values()))
    small.load_state_dict(pruned_state(whole, kept))


def test_a_segmenter_is_pruned_below_its_pyramid() -> None:
    arguments: dict[str, Any] = {"num_classes": 4, "in_chans": 1, "img_size": 28}
    whole = randomised(create_segmenter("msresnet_micro", **arguments))
    kept, widths = half(whole)
    small = create_segmenter("msresnet_micro", **arguments, inner_widths=list(widths.values()))
    small.load_state_dict(pruned_state(whole, kept))
    zeroed(whole, kept)
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert relative_error(small.eval()(x), whole(x)) < 1e-5


@pytest.mark.parametrize("widths", [(8,), (8, 8, 0), (8, 8, True), "8", (8, 8, 10**9), (8.5, 8, 8)])
def test_impossible_inner_widths_are_refused(widths: Any) -> None:
    with pytest.raises(Exception, match="inner_widths") as caught:
        replace(SMALL, inner_widths=widths)
    assert caught.value.exit_code == 2  # type: ignore[attr-defined]


def test_every_family_of_residual_blocks_takes_inner_widths() -> None:
    assert all("inner_widths" in MODELS[name].arguments for name in ("msresnet18", "resnet50", "ror3_56"))
    model: ImageModel = create_classifier("resnet20", inner_widths=[8] * 9)
    assert {block.spec.width for block in blocks_of(model).values()} == {8}

"""Blocks and shortcuts: what is added to what."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from msresnet.nn.blocks import BLOCKS, BlockForm, BlockSpec
from msresnet.nn.grammar import OPERATORS, PLAIN, res2net
from msresnet.nn.heads import GlobalPool
from msresnet.nn.shortcuts import DropPath, LayerShortcut, projection
from randomise import randomised

SPEC = BlockSpec(in_chs=64, out_chs=64, width=64, operator=PLAIN)


@pytest.mark.parametrize("form", BLOCKS)
@pytest.mark.parametrize("operator", ["plain", "res2net", "selective", "online", "low_resolution"])
@pytest.mark.parametrize("stride", [1, 2])
def test_every_block_takes_every_operator_at_odd_sizes(form: BlockForm, operator: str, stride: int) -> None:
    spec = replace(SPEC, out_chs=64, operator=OPERATORS[operator], stride=stride, first=True)
    block = BLOCKS[form](spec).eval()
    assert block(torch.randn(1, 64, 9, 7)).shape == (1, 64, -(-9 // stride), -(-7 // stride))


@pytest.mark.parametrize("form", ["basic", "bottleneck"])
def test_zeroed_residual_leaves_the_shortcut(form: BlockForm) -> None:
    block = BLOCKS[form](SPEC).eval()
    block.zero_init_last()
    x = torch.randn(2, 64, 8, 8)
    assert torch.equal(block(x), F.relu(x))


@pytest.mark.parametrize("form", ["preact_basic", "preact_bottleneck"])
def test_pre_activation_keeps_the_shortcut_clean(form: BlockForm) -> None:
    block = randomised(BLOCKS[form](SPEC))
    last = "conv2" if form == "preact_basic" else "conv3"
    torch.nn.init.zeros_(block.get_submodule(last).weight)  # type: ignore[arg-type]
    x = torch.randn(2, 64, 8, 8)
    assert torch.equal(block(x), x)


def test_drop_path_touches_the_residual_only() -> None:
    block = BLOCKS["basic"](replace(SPEC, drop_path=0.999999)).train()
    x = torch.randn(4, 64, 8, 8)
    assert torch.equal(block(x), F.relu(x))
    assert torch.equal(block.eval().drop_path(x), x)


def test_drop_path_keeps_the_mean() -> None:
    torch.manual_seed(1)
    dropped = DropPath(0.3).train()(torch.ones(20_000, 1, 1, 1))
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kind", ["conv1x1", "avg_conv", "max_conv", "pad"])
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (1, 3)])
def test_projections_match_a_strided_convolution(kind: str, size: tuple[int, int]) -> None:
    shortcut = projection(kind, 8, 16, 2)  # type: ignore[arg-type]
    assert shortcut(torch.randn(2, 8, *size)).shape == (2, 16, -(-size[0] // 2), -(-size[1] // 2))


def test_scale_gate_starts_as_nothing_and_learns() -> None:
    shortcut = LayerShortcut(8, 16, "scale")
    x, body = torch.randn(2, 8, 9, 9), torch.randn(2, 16, 5, 5)
    assert torch.equal(shortcut(x, body), body)
    shortcut(x, body).square().sum().backward()
    assert shortcut.scale is not None
    assert shortcut.scale.grad is not None
    assert shortcut.scale.grad.abs() > 0


def test_paper_gate_adds_the_projection_as_it_is() -> None:
    shortcut = LayerShortcut(16, 16, "none").eval()
    x, body = torch.randn(2, 16, 5, 5), torch.randn(2, 16, 5, 5)
    assert torch.equal(shortcut(x, body), body + x)


def test_res2net_names_stand_in_the_block() -> None:
    block = BLOCKS["bottleneck"](replace(SPEC, operator=res2net(4)))
    keys = list(block.state_dict())
    assert "convs.0.weight" in keys
    assert "bns.2.running_mean" in keys
    assert not [k for k in keys if k.startswith("conv2.")]
    other = BLOCKS["bottleneck"](replace(SPEC, operator=res2net(4)))
    other.load_state_dict(block.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), block.parameters(), strict=True))


@pytest.mark.parametrize(("kind", "expected"), [("avg", 2.5), ("max", 4.0), ("avgmax", 3.25)])
def test_global_pooling(kind: str, expected: float) -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert GlobalPool(kind)(x).item() == expected  # type: ignore[arg-type]
    assert GlobalPool("catavgmax")(x).tolist() == [[2.5, 4.0]]
    assert GlobalPool("")(x) is x


def test_the_gradient_of_pooling_is_that_of_mean_and_maximum_in_the_maps_layout() -> None:
    x = torch.randn(3, 5, 4, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    weights = torch.randn(3, 10)
    pooled = GlobalPool("catavgmax")(x)
    (found,) = torch.autograd.grad((pooled * weights).sum(), x)
    expected = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
    assert torch.allclose(pooled, expected, atol=1e-6)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), x)
    assert torch.allclose(found, gradient, atol=1e-6)
    (of_mean,) = torch.autograd.grad(GlobalPool("avg")(x).sum(), x)
    assert of_mean.is_contiguous(memory_format=torch.channels_last)

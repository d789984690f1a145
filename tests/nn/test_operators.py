"""Operators: shapes, each branch's part, independent formulas for the families, and errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.nn.grammar import OPERATORS, Branch, Operator, allocate, receptive_fields, res2net
from msresnet.nn.operators import CascadeConv2d, Geometry, MultiScaleConv2d, RadixConv2d, build_operator
from randomise import randomised, relative_error

MULTI = [name for name in OPERATORS.names() if name != "plain"]


@pytest.mark.parametrize("name", OPERATORS.names())
@pytest.mark.parametrize("stride", [1, 2])
def test_any_size_gives_the_shape_of_a_padded_convolution(name: str, stride: int) -> None:
    operator = build_operator(OPERATORS[name], Geometry(64, 64, stride, first=stride == 2)).eval()
    for height, width in ((8, 8), (7, 13), (1, 5), (33, 2)):
        expected = (2, 64, -(-height // stride), -(-width // stride))
        assert operator(torch.randn(2, 64, height, width)).shape == expected


@pytest.mark.parametrize("name", MULTI)
def test_parts_add_up_to_the_output(name: str) -> None:
    operator = randomised(build_operator(OPERATORS[name], Geometry(64, 64))).double()
    assert isinstance(operator, MultiScaleConv2d | CascadeConv2d | RadixConv2d)
    x = torch.randn(2, 64, 9, 6, dtype=torch.float64)
    whole = torch.zeros(2, 64, 9, 6, dtype=torch.float64)
    for channels, part in operator.parts(x):
        whole[:, channels] += part
    assert relative_error(whole, operator(x)) < 1e-12
    assert len(operator.branches) == len(operator.parts(x))


@pytest.mark.parametrize("name", OPERATORS.names())
def test_every_parameter_gets_a_gradient(name: str) -> None:
    operator = build_operator(OPERATORS[name], Geometry(64, 64))
    (operator(torch.randn(4, 64, 8, 8)) * torch.randn(4, 64, 8, 8)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in operator.parameters())


def test_cascade_equals_the_paper_formula() -> None:
    """Res2Net, equation 1: y_i = K_i(x_i + y_(i-1)); the group without a kernel passes through."""
    operator = randomised(build_operator(res2net(4), Geometry(32, 32)))
    assert isinstance(operator, CascadeConv2d)
    x = torch.randn(2, 32, 7, 5).relu()
    groups, before, expected = x.chunk(4, 1), torch.zeros(2, 8, 7, 5), []
    for i in range(3):
        before = F.relu(operator.bns[i](F.conv2d(groups[i] + before, operator.convs[i].weight, padding=1)))  # type: ignore[arg-type]
        expected.append(before)
    assert torch.allclose(operator(x), torch.cat([*expected, groups[3]], 1), atol=1e-6)


def test_first_cascade_of_a_stage_adds_nothing_and_averages_the_last_group() -> None:
    operator = randomised(build_operator(res2net(2), Geometry(16, 16, 2, first=True)))
    x = torch.randn(2, 16, 9, 9)
    assert torch.equal(operator(x)[:, 8:], F.avg_pool2d(x[:, 8:], 3, 2, 1))


def test_selective_weights_are_a_softmax_over_branches() -> None:
    operator = randomised(build_operator(OPERATORS["selective"], Geometry(32, 32)))
    assert isinstance(operator, MultiScaleConv2d)
    maps = torch.stack(operator.branch_maps(torch.randn(3, 32, 8, 8)), 1)
    weights = operator.attn.weights(maps)  # type: ignore[operator]
    assert weights.shape == (3, 2, 32, 1, 1)
    assert torch.allclose(weights.sum(1), torch.ones(3, 32, 1, 1))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_radix_equals_a_loop_over_groups_and_splits(groups: int) -> None:
    """ResNeSt, section 3.1, written out: cardinal groups one by one, radix splits one by one."""
    spec = replace(OPERATORS["radix"], branches=(Branch(3, groups=groups),) * 2)
    operator = randomised(build_operator(spec, Geometry(32, 32)))
    assert isinstance(operator, RadixConv2d)
    x = torch.randn(2, 32, 6, 6)
    maps = F.relu(operator.bn0(operator.conv(x))).view(2, 2, groups, 32 // groups, 6, 6)  # radix, group, channel
    pooled = maps.sum(1).mean((3, 4)).view(2, 32, 1, 1)
    logits = operator.fc2(F.relu(operator.bn1(operator.fc1(pooled)))).view(2, groups, 2, 32 // groups)
    expected = torch.zeros(2, groups, 32 // groups, 6, 6)
    for g in range(groups):
        weights = logits[:, g].softmax(1)  # (B, radix, C/G)
        for r in range(2):
            expected[:, g] += maps[:, r, g] * weights[:, r, :, None, None]
    assert torch.allclose(operator(x), expected.reshape(2, 32, 6, 6), atol=1e-6)


def test_mixed_depthwise_equals_separate_convolutions() -> None:
    operator = build_operator(OPERATORS["mixed_depthwise"], Geometry(24, 24)).eval()
    assert isinstance(operator, MultiScaleConv2d)
    x = torch.randn(1, 24, 10, 10)
    expected = [
        F.conv2d(part, path.conv.weight, padding=kernel // 2, groups=8)  # type: ignore[union-attr, arg-type]
        for part, path, kernel in zip(x.chunk(3, 1), operator.paths, (3, 5, 7), strict=True)
    ]
    assert torch.allclose(operator(x), torch.cat(expected, 1), atol=1e-6)


def test_low_resolution_branch_sees_the_average() -> None:
    operator = build_operator(Operator((Branch(1), Branch(1, down=2)), merge="sum"), Geometry(4, 4)).eval()
    assert isinstance(operator, MultiScaleConv2d)
    flat = torch.full((1, 4, 7, 5), 3.0)
    fine, coarse = operator.branch_maps(flat)
    assert torch.allclose(coarse, F.conv2d(flat, operator.paths[1].conv.weight), atol=1e-5)  # type: ignore[union-attr, arg-type]
    assert fine.shape == coarse.shape == (1, 4, 7, 5)


def impulse_extent(operator: nn.Module, channels: int, side: int = 41) -> tuple[int, int]:
    """Height and width of the area of the input that one output pixel depends on."""
    x = torch.randn(1, channels, side, side, requires_grad=True)
    operator(x)[0, :, side // 2, side // 2].sum().backward()
    assert isinstance(x.grad, Tensor)
    rows, columns = torch.nonzero(x.grad.abs().sum((0, 1)), as_tuple=True)
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


@pytest.mark.parametrize("name", ["res2net", "pyramid", "mixed_depthwise", "reparameterised", "online"])
def test_receptive_fields_are_what_gradients_show(name: str) -> None:
    spec = OPERATORS[name]
    declared = [max(field[axis] for field in receptive_fields(spec)) for axis in (0, 1)]
    operator = build_operator(spec, Geometry(64, 64))
    assert impulse_extent(operator.eval(), 64) == tuple(declared)


@given(st.integers(1, 300), st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_channels_are_shared_out_completely(channels: int, shares: list[int]) -> None:
    branches = tuple(Branch(share=s) for s in shares)
    if any(channels * s // sum(shares) < 1 for s in shares[1:]) or channels < len(shares):
        return
    widths = allocate(channels, branches)
    assert sum(widths) == channels
    assert min(widths) >= 1


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(3, 20), st.integers(3, 20), st.sampled_from(["online", "reparameterised"]))
def test_a_linear_operator_is_linear(batch: int, height: int, width: int, name: str) -> None:
    operator = build_operator(OPERATORS[name], Geometry(8, 8)).eval()
    a, b = torch.randn(2, batch, 8, height, width)
    zero = operator(torch.zeros(batch, 8, height, width))
    assert torch.allclose(operator(a + b) - zero, operator(a) + operator(b) - 2 * zero, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Operator((Branch(3),), merge="nosuch"), "one of concat, sum, softmax"),  # type: ignore[arg-type]
        (lambda: Operator((Branch(3),), split="nosuch"), "one of none, channels, radix"),  # type: ignore[arg-type]
        (lambda: Operator(Branch(3)), "a tuple of branches"),  # type: ignore[arg-type]
        (lambda: Operator(()), "a tuple of branches"),
        (lambda: Branch(4), "odd sides"),
        (lambda: Branch(kind="x"), "one of conv, identity, avg_pool"),  # type: ignore[arg-type]
        (lambda: Branch(groups=0), "or 'depthwise'"),
        (lambda: Branch(down=0), "a whole number from 1"),
    ],
)
def test_what_is_no_operator_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


@pytest.mark.parametrize(
    ("spec", "geometry", "words"),
    [
        (OPERATORS["pyramid"], Geometry(24, 24), "4 groups cannot map 24 channels to 6"),
        (res2net(4), Geometry(30, 30), "30 -> 30 channels cannot make a cascade of 4"),
        (OPERATORS["radix"], Geometry(9, 9), "cannot make 2 radix splits"),
        (OPERATORS["mixed_depthwise"], Geometry(2, 2), "2 channels cannot be shared among 3 branches"),
    ],
)
def test_impossible_widths_are_named(spec: Operator, geometry: Geometry, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build_operator(spec, geometry)

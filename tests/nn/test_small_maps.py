"""Convolutions of small maps: outputs and gradients are those of torch's own convolution."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from msresnet.nn.small_maps import MANY_CHANNELS, MANY_IMAGES, Pair, SmallMapConv2d, convolve

N = MANY_CHANNELS
SIDES, KERNELS, PADDINGS = st.integers(1, 7), st.integers(1, 5), st.integers(0, 2)


class Case(NamedTuple):
    """A convolution of maps."""

    batch: int
    out_chs: int
    size: Pair
    kernel: Pair
    padding: Pair
    stride: Pair
    layout: torch.memory_format


CASES = st.builds(
    Case,
    st.sampled_from([MANY_IMAGES, MANY_IMAGES + 1]),
    st.sampled_from([N, N + 2]),
    st.tuples(SIDES, SIDES),
    st.tuples(KERNELS, KERNELS),
    st.tuples(PADDINGS, PADDINGS),
    st.sampled_from([(1, 1), (2, 2), (1, 2), (3, 1)]),
    st.sampled_from([torch.channels_last, torch.contiguous_format]),
)


def learnt(x: Tensor, weight: Tensor, run: Any, low: bool) -> list[Tensor]:
    """Output, and gradients by pixels and weights, of a loss that tells places apart."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        out = run(x, weight)
    torch.manual_seed(1)
    out.backward(torch.randn(out.shape).to(out.dtype))
    assert x.grad is not None
    assert weight.grad is not None
    return [out.detach().float(), x.grad, weight.grad]


@settings(max_examples=80, deadline=None)
@given(CASES, st.booleans())
def test_outputs_and_gradients_are_torchs(case: Case, low: bool) -> None:
    """The oracle computes in float64: oneDNN's own gradients of strided maps of one pixel are wrong in bf16."""
    assume(all(s + 2 * p >= k for s, p, k in zip(case.size, case.padding, case.kernel, strict=True)))
    torch.manual_seed(0)
    x = torch.randn(case.batch, N, *case.size).contiguous(memory_format=case.layout)
    weight = (torch.randn(case.out_chs, N, *case.kernel) / N).contiguous(memory_format=case.layout)
    found = learnt(x, weight, lambda a, w: convolve(a, w, case.stride, case.padding), low)
    exact = learnt(x.double(), weight.double(), lambda a, w: F.conv2d(a, w, None, case.stride, case.padding), False)
    for mine, theirs in zip(found, exact, strict=True):
        assert (mine.double() - theirs).norm() <= (1e-2 if low else 1e-5) * theirs.norm()


def layer_of(channels: int = N, bias: bool = False) -> SmallMapConv2d:
    torch.manual_seed(0)
    return SmallMapConv2d(channels, channels, 3, padding=1, bias=bias)


def kind(layer: SmallMapConv2d, side: int, low: bool, images: int = MANY_IMAGES) -> str:
    """What a layer's output was computed by."""
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        out = layer(torch.randn(images, layer.in_channels, side, side))
    return type(out.grad_fn).__name__


def test_only_small_maps_of_many_channels_that_learn_are_special() -> None:
    wide, narrow, plain = layer_of(), layer_of(N // 2), "ConvolutionBackward0"
    assert kind(wide, 2, low=True) == kind(wide, 1, low=False) == "_WholeBackward"
    assert kind(wide, 3, low=True) == "_GatheredBackward"
    assert kind(wide, 3, low=False) == kind(wide, 4, low=True) == kind(narrow, 2, low=True) == plain
    assert kind(wide, 2, low=True, images=MANY_IMAGES - 1) == kind(layer_of(bias=True), 2, low=True) == plain
    assert kind(wide.eval(), 2, low=True) == plain
    with torch.no_grad():
        assert kind(wide.train(), 2, low=True) == "NoneType"
    assert kind(wide.requires_grad_(False), 2, low=True) == "NoneType"


def test_a_large_kernel_is_not_written_out_for_all_places() -> None:
    layer = SmallMapConv2d(N, N, 5, padding=2, bias=False)
    assert kind(layer, 3, low=False) == "ConvolutionBackward0"
    assert kind(layer, 3, low=True) == "_GatheredBackward"


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("low", [False, True])
def test_what_follows_may_change_the_output_in_place(side: int, low: bool) -> None:
    layer = layer_of()
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        layer(torch.randn(MANY_IMAGES, N, side, side)).relu_().sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("side", [1, 2, 3])
def test_gradients_have_gradients(side: int) -> None:
    """As a penalty on gradients needs them; the oracle is torch's convolution in float64."""
    x, weight = torch.randn(MANY_IMAGES, N, side, side), torch.randn(N, N, 3, 3) / N
    torch.manual_seed(0)
    for low in (False, True):
        found = []
        for dtype, run in ((torch.float32, convolve), (torch.float64, lambda a, w, s, p: F.conv2d(a, w, None, s, p))):
            a, w = x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=low and dtype == torch.float32):
                out = run(a, w, (1, 1), (1, 1))
            slope = torch.autograd.grad(out.float().square().sum(), a, create_graph=True)[0]
            found.append(torch.autograd.grad(slope.square().sum(), w)[0].double())
        assert (found[0] - found[1]).norm() < (3e-2 if low else 1e-5) * found[1].norm()


def test_only_the_weights_may_learn() -> None:
    for side in (1, 2, 3):
        layer = layer_of()
        with torch.autocast("cpu", torch.bfloat16):
            layer(torch.randn(MANY_IMAGES, N, side, side)).sum().backward()
        assert layer.weight.grad is not None


def test_a_bias_is_added() -> None:
    layer, x = layer_of(bias=True), torch.randn(MANY_IMAGES, N, 2, 2)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1))


def test_it_is_exported_and_compiled_as_any_other() -> None:
    layer, x = layer_of(), torch.randn(MANY_IMAGES, N, 2, 2)
    program = torch.export.export(layer, (x,))
    assert any("conv2d" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(x), layer(x))
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))

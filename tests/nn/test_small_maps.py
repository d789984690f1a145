"""Convolutions of small maps: outputs and gradients are those of torch's own convolution."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from msresnet.nn.small_maps import MANY_CHANNELS, Convolution, Pair, convolve

SIDES, KERNELS = st.integers(1, 7), st.sampled_from([1, 3, 5])


class Case(NamedTuple):
    """A convolution of maps."""

    batch: int
    size: Pair
    kernel: Pair
    stride: Pair
    layout: torch.memory_format


CASES = st.builds(
    Case,
    st.integers(1, 3),
    st.tuples(SIDES, SIDES),
    st.tuples(KERNELS, KERNELS),
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


@settings(max_examples=60, deadline=None)
@given(CASES, st.booleans())
def test_outputs_and_gradients_are_torchs(case: Case, low: bool) -> None:
    """The oracle computes in float64: oneDNN's own gradients of strided maps of one pixel are wrong in bf16."""
    torch.manual_seed(0)
    padding, n = (case.kernel[0] // 2, case.kernel[1] // 2), MANY_CHANNELS
    x = torch.randn(case.batch, n, *case.size).contiguous(memory_format=case.layout)
    weight = (torch.randn(n, n, *case.kernel) / n).contiguous(memory_format=case.layout)
    found = learnt(x, weight, lambda a, w: convolve(a, w, case.stride, padding), low)
    exact = learnt(x.double(), weight.double(), lambda a, w: F.conv2d(a, w, None, case.stride, padding), False)
    for mine, theirs in zip(found, exact, strict=True):
        assert (mine.double() - theirs).norm() / theirs.norm() < (1e-2 if low else 1e-5)


def kind(layer: Convolution, side: int, low: bool) -> str:
    """What a layer's output was computed by."""
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        out = layer(torch.randn(2, layer.in_channels, side, side))
    return type(out.grad_fn).__name__


def test_only_small_maps_of_many_channels_that_learn_are_special() -> None:
    wide, narrow = (Convolution(n, n, 3, padding=1, bias=False) for n in (MANY_CHANNELS, MANY_CHANNELS // 2))
    assert kind(wide, 2, low=True) == kind(wide, 1, low=False) == "_WholeBackward"
    assert kind(wide, 4, low=True) == "_GatheredBackward"
    plain = "ConvolutionBackward0"
    assert kind(wide, 4, low=False) == kind(wide, 5, low=True) == kind(narrow, 2, low=True) == plain
    assert kind(wide.eval(), 2, low=True) == plain
    with torch.no_grad():
        assert kind(wide.train(), 2, low=True) == "NoneType"


def test_a_bias_is_added() -> None:
    layer = Convolution(MANY_CHANNELS, MANY_CHANNELS, 3, padding=1)
    x = torch.randn(2, MANY_CHANNELS, 2, 2)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1))

"""Strided 1x1 convolutions of few channels, whose gradients oneDNN computes beyond its memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from msresnet.models.factory import create_model, create_network, list_models
from msresnet.nn.convolution import SAFE, Subsampled, pointwise
from msresnet.nn.grammar import Branch, Operator
from msresnet.nn.operators import Geometry, build_operator


def gradients(layer: nn.Conv2d, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output, and gradients by the image and by the weights, of a loss that tells places apart."""
    x = x.clone().requires_grad_()
    out = layer(x)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is not None
    return out.detach(), x.grad, layer.weight.grad


@pytest.mark.parametrize(("in_chs", "out_chs", "groups"), [(8, 8, 1), (8, 16, 1), (3, 5, 1), (15, 4, 1), (8, 8, 2)])
@pytest.mark.parametrize("side", [56, 57, 112])
def test_few_channels_have_right_gradients(in_chs: int, out_chs: int, groups: int, side: int) -> None:
    """With the planes one after the other, oneDNN is right: that is the oracle."""
    mine = pointwise(in_chs, out_chs, 2, groups)
    assert isinstance(mine, Subsampled)
    oracle = nn.Conv2d(in_chs, out_chs, 1, 2, groups=groups, bias=False)
    oracle.load_state_dict(mine.state_dict())
    x = torch.randn(4, in_chs, side, side)
    mine.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found, wanted = gradients(mine, x.contiguous(memory_format=torch.channels_last)), gradients(oracle, x)
    for left, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(mine(x), oracle(x))


def test_others_are_plain() -> None:
    assert type(pointwise(SAFE, 8, 2)) is nn.Conv2d
    assert type(pointwise(8, 8, 1)) is nn.Conv2d


def unsafe(model: nn.Module) -> list[str]:
    """Strided 1x1 convolutions of few channels that are left to oneDNN."""
    return [
        name
        for name, m in model.named_modules()
        if isinstance(m, nn.Conv2d)
        and not isinstance(m, Subsampled)
        and m.kernel_size == (1, 1)
        and max(m.stride) > 1
        and m.in_channels // m.groups < SAFE
    ]


def test_no_network_of_the_zoo_leaves_one_to_onednn() -> None:
    with torch.device("meta"):
        for name in list_models():
            assert unsafe(create_model(name)) == [], name
        assert unsafe(create_model("msresnet10", widths=[8, 8, 8, 8], stem_width=8)) == []
        assert unsafe(create_model("resnet50", widths=[2, 2, 2, 2], stem_width=8)) == []


def test_a_narrow_detector_learns() -> None:
    """It ended in a segmentation fault."""
    model = create_network("detector", "msresnet10", num_classes=2, img_size=224, widths=[8, 8, 8, 8], stem_width=8)
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    flat = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    x = torch.randn(2, 3, 224, 224)
    for network, layout in ((model, torch.channels_last), (flat, torch.contiguous_format)):
        network(x.contiguous(memory_format=layout)).square().mean().backward()
    for (name, mine), theirs in zip(model.named_parameters(), flat.parameters(), strict=True):
        if mine.grad is not None and theirs.grad is not None:
            error = (mine.grad - theirs.grad).norm() / theirs.grad.norm().clamp_min(1e-6)
            assert error < 2e-2, name


def test_an_operator_of_one_pixel_is_guarded_too() -> None:
    operator = build_operator(Operator((Branch(1),)), Geometry(8, 8, 2, True))
    assert any(isinstance(module, Subsampled) for module in operator.modules())
    assert unsafe(operator) == []

"""Octave convolution against its equations written out, a plain convolution, timm's ResNet, and published figures."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.models.base import Config
from msresnet.models.cost import count_macs
from msresnet.models.octave import DEPTHS, OCTAVE_ROWS, OctaveSpec, OctBottleneck, OctResNet
from msresnet.nn.octave import OctConv2d
from msresnet.nn.shortcuts import DropPath
from oracles import timm
from randomise import randomised, relative_error

TINY = OctaveSpec(alpha=0.25, depths=(2, 1, 2, 2), widths=(8, 8, 16, 16), stem_width=8)
CONFIG = Config(num_classes=5, in_chans=2, img_size=(64, 64))


def tiny(spec: OctaveSpec = TINY, **config: Any) -> OctResNet:
    """A network of which every number matters, in evaluation mode."""
    model = OctResNet(spec, CONFIG._replace(**config))
    randomised(model)
    return model


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(batch: int = 2, height: int = 64, width: int = 64) -> Tensor:
    return noise(batch, 2, height, width)


# Billions of operations: to one decimal in table 2 of the paper, to three in the table of an independent implementation
# (github.com/d-li14/octconv.pytorch).
@pytest.mark.parametrize(
    ("depth", "alpha", "macs", "decimals"),
    [(50, 0.125, 3.6, 1), (50, 0.25, 3.1, 1), (50, 0.5, 2.367, 3), (50, 0.75, 1.9, 1), (101, 0.5, 3.991, 3)],
)
def test_operations_are_the_published_ones(depth: int, alpha: float, macs: float, decimals: int) -> None:
    with torch.device("meta"):
        model = OctResNet(OctaveSpec(alpha, DEPTHS[depth]), Config())
    assert round(count_macs(model) / 1e9, decimals) == macs


@pytest.mark.parametrize(
    ("names", "params"),
    [
        ("octresnet26", 15_995_176),
        ("octresnet50", 25_557_032),
        ("octresnet101", 44_549_160),
        ("octresnet152", 60_192_808),
    ],
)
def test_parameters_are_those_of_the_plain_network(names: str, params: int) -> None:
    for name in (n for n in OCTAVE_ROWS if n.startswith(f"{names}_")):
        with torch.device("meta"):
            assert sum(p.numel() for p in OctResNet(OCTAVE_ROWS[name], Config()).parameters()) == params


def halve(x: Tensor) -> Tensor:
    """Means of 2x2 pixels; at an odd border of those that are there."""
    rows = [x[:, :, i : i + 2].mean(2) for i in range(0, x.shape[2], 2)]
    halved = torch.stack(rows, 2)
    return torch.stack([halved[..., i : i + 2].mean(3) for i in range(0, x.shape[3], 2)], 3)


def double(x: Tensor, like: Tensor) -> Tensor:
    """Every pixel twice a side."""
    doubled = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return doubled[:, :, : like.shape[2], : like.shape[3]]


def four_paths(conv: OctConv2d, high: Tensor, low: Tensor, high_in: int) -> tuple[Tensor, Tensor]:
    """Equation 4 of the paper; at stride 2 on a high map that is averaged first, with the low one beside it."""
    assert isinstance(conv.low, nn.Conv2d)
    to_high, to_low = conv.high.weight, conv.low.weight
    pad = to_high.shape[-1] // 2
    if conv.stride == 2:
        high = halve(high)
        y_high = F.conv2d(high, to_high[:, :high_in], None, 1, pad) + F.conv2d(low, to_high[:, high_in:], None, 1, pad)
        low = halve(low)
    else:
        y_high = F.conv2d(high, to_high[:, :high_in], None, 1, pad)
        y_high = y_high + double(F.conv2d(low, to_high[:, high_in:], None, 1, pad), y_high)
    y_low = F.conv2d(low, to_low[:, high_in:], None, 1, pad) + F.conv2d(halve(high), to_low[:, :high_in], None, 1, pad)
    return y_high, y_low


@pytest.mark.parametrize("size", [(8, 12), (7, 7), (9, 6), (1, 1), (5, 4)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
def test_four_paths(kernel: int, stride: int, size: tuple[int, int]) -> None:
    conv = OctConv2d(12, 8, kernel, stride, alpha_in=0.25, alpha_out=0.5)
    high = noise(2, 9, *size)
    low = noise(2, 3, *(-(-side // 2) for side in size), seed=2)
    with torch.no_grad():
        y_high, y_low = conv((high, low))
        expected_high, expected_low = four_paths(conv, high, low, 9)
        assert y_low is not None
        assert relative_error(y_high, expected_high) < 1e-5
        assert relative_error(y_low, expected_low) < 1e-5


@pytest.mark.parametrize("stride", [1, 2])
def test_the_first_convolution_splits_and_the_last_joins(stride: int) -> None:
    high, low = noise(2, 9, 7, 6), noise(2, 3, 4, 3, seed=2)
    conv = OctConv2d(12, 8, 3, stride, alpha_in=0.25, alpha_out=0.5)
    first = OctConv2d(9, 8, 3, stride, alpha_in=0, alpha_out=0.5)
    last = OctConv2d(12, 4, 3, stride, alpha_in=0.25, alpha_out=0)
    last.load_state_dict({"high.weight": conv.high.weight})
    first.load_state_dict({key: value[:, :9] for key, value in conv.state_dict().items()})
    with torch.no_grad():
        split, without_low = first((high, None)), four_paths(conv, high, torch.zeros_like(low), 9)
        assert split[1] is not None
        assert relative_error(split[0], without_low[0]) < 1e-5
        assert relative_error(split[1], without_low[1]) < 1e-5
        joined, nothing = last((high, low))
        assert nothing is None
        assert relative_error(joined, four_paths(conv, high, low, 9)[0]) < 1e-5


@pytest.mark.parametrize("kernel", [1, 3])
def test_where_the_octaves_coincide_it_is_the_plain_convolution(kernel: int) -> None:
    """For a 1x1 kernel: on maps constant in each 2x2 square. For a 3x3: on constant maps, away from the border."""
    side = 4 if kernel == 1 else 1
    conv = OctConv2d(16, 16, kernel, alpha_in=0.25, alpha_out=0.25)
    coarse = noise(2, 16, side, side).repeat_interleave(4 // side, 2).repeat_interleave(4 // side, 3)
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert isinstance(conv.low, nn.Conv2d)
    kernels = torch.cat([conv.high.weight, conv.low.weight])
    with torch.no_grad():
        high, low = conv((fine[:, :12], coarse[:, 12:]))
        assert low is not None
        plain, inside = F.conv2d(fine, kernels, padding=kernel // 2), slice(kernel // 2 * 2, 8 - kernel // 2 * 2)
        assert relative_error(high[..., inside, inside], plain[:, :12, inside, inside]) < 1e-5
        doubled = double(low, plain)
        assert relative_error(doubled[..., inside, inside], plain[:, 12:, inside, inside]) < 1e-5


def test_without_low_channels_the_first_stage_is_the_one_of_resnet50() -> None:
    theirs = randomised(timm().create_model("resnet50"))
    ours = OctResNet(OctaveSpec(0.0), Config()).eval()
    state = {}
    for key, value in theirs.state_dict().items():
        if key.startswith(("conv1", "bn1")):
            state[key] = value
        elif key.startswith("layer1"):
            state[ours_key(key)] = value
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected
    assert not [key for key in missing if key.startswith(("conv1", "bn1", "layer1"))]
    x = noise(1, 3, 64, 75)
    with torch.no_grad():
        expected = theirs.forward_intermediates(x, indices=[0, 1], intermediates_only=True)  # type: ignore[operator]
        for a, b in zip(ours.forward_stages(x, 1), expected, strict=True):
            assert relative_error(a, b) < 1e-5


def ours_key(key: str) -> str:
    """timm's name of a tensor in layer1 -> ours: layer1.0.bn2.weight -> layer1.0.conv2.bn_high.weight."""
    for i in (1, 2, 3):
        key = key.replace(f".conv{i}.", f".conv{i}.conv.high.").replace(f".bn{i}.", f".conv{i}.bn_high.")
    return key.replace("downsample.0.", "downsample.conv.high.").replace("downsample.1.", "downsample.bn_high.")


@pytest.mark.parametrize("size", [(33, 97), (100, 100), (225, 190), (32, 32)])
@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_maps_have_the_declared_size_for_any_image(size: tuple[int, int], stem: Any) -> None:
    model = tiny(replace(TINY, stem=stem))
    with torch.no_grad():
        maps = model.forward_stages(images(1, *size))
        assert torch.equal(maps[-1], model.forward_features(images(1, *size)))
    expected = [(i.num_chs, *(-(-side // i.reduction) for side in size)) for i in model.feature_info]
    assert [tuple(m.shape[1:]) for m in maps] == expected


def test_the_stem_follows_the_image() -> None:
    assert tiny(replace(TINY, stem=None), img_size=(96, 95)).feature_info.reduction() == [1, 1, 2, 4, 8]
    assert tiny(replace(TINY, stem=None), img_size=(96, 96)).feature_info.reduction() == [2, 4, 8, 16, 32]


def test_joined_maps_hold_each_low_pixel_twice_a_side() -> None:
    model = tiny()
    with torch.no_grad():
        _, layer1, *_, layer4 = model.forward_stages(images())
        octaves = model.layer1((model.maxpool(model.act1(model.bn1(model.conv1(images())))), None))  # type: ignore[operator]
    assert layer1.shape[1] == 32
    assert torch.equal(layer1, torch.cat([octaves[0], double(octaves[1], octaves[0])], 1))
    assert octaves[1].shape == (2, 8, 8, 8)
    assert layer4.shape == (2, 64, 2, 2)


def test_drop_path_takes_the_residual_in_both_octaves_and_leaves_the_shortcut() -> None:
    model = tiny(drop_path_rate=0.3)
    rates = [m.probability for m in model.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.3 * i / 6 for i in range(1, 7)])
    blocks = [m for m in model.modules() if isinstance(m, OctBottleneck)]
    block = blocks[1]
    maps = noise(64, 24, 6, 6).relu(), noise(64, 8, 3, 3).relu()
    with torch.no_grad():
        whole = block(maps)
        block.training = block.drop_path.training = True
        block.drop_path.probability = 0.5
        high, low = block(maps)
    untouched = [(a == b).flatten(1).all(1) for a, b in ((high, maps[0]), (low, maps[1]))]
    assert torch.equal(untouched[0], untouched[1])
    assert 16 < untouched[0].sum() < 48
    assert not torch.equal(whole[0], high)


def test_weights_start_as_those_of_the_plain_convolution() -> None:
    conv = OctConv2d(256, 256, 3, alpha_in=0.5, alpha_out=0.5)
    assert isinstance(conv.low, nn.Conv2d)
    for part in (conv.high, conv.low):
        assert float(part.weight.detach().std()) == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)


def test_layers_are_sorted_from_the_image_to_the_answer() -> None:
    model = tiny()
    groups = timm().models.group_parameters(model, model.group_matcher())
    layers = [set(names) for names in groups.values()]
    assert sum(map(len, layers)) == len(list(model.parameters()))
    where = {name: i for i, names in enumerate(layers) for name in names}
    blocks = [where[f"layer{n}.{i}.conv1.conv.high.weight"] for n, i in ((1, 0), (1, 1), (2, 0), (4, 1))]
    assert sorted(set(blocks)) == blocks
    assert where["conv1.weight"] < blocks[0]
    assert blocks[-1] < where["fc.weight"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"alpha": 1.0}, "under 1"),
        ({"alpha": -0.1}, "under 1"),
        ({"alpha": float("nan")}, "under 1"),
        ({"alpha": "half"}, "under 1"),
        ({"alpha": True}, "under 1"),
        ({"alpha": 0.01}, "no low channel"),
        ({"depths": (3,)}, "2 stages or more"),
        ({"depths": "3463"}, "whole numbers"),
        ({"depths": (3, 4, 6, 3, 3)}, "do not fit together"),
        ({"depths": (3, 4, 4000, 3)}, "at most 1000"),
        ({"depths": (3, 0, 6, 3)}, "whole numbers"),
        ({"widths": (64, 128, 256, 10**9)}, "whole numbers"),
        ({"stem_width": 0}, "whole numbers"),
        ({"stem": "deep"}, "one of imagenet"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        partial(OctaveSpec, **arguments)()


def test_settings_from_a_file_are_taken() -> None:
    assert OctaveSpec(0.5, [1, 1], [8, 8]).depths == (1, 1)  # type: ignore[arg-type]

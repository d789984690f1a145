"""Big-Little Net against its formula written out, and against the figures that its authors published."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.models.base import Config
from msresnet.models.big_little import BIG_LITTLE_ROWS, BigLittleNet, BigLittleSpec
from msresnet.models.cost import count_macs
from msresnet.nn.shortcuts import DropPath
from oracles import timm
from randomise import randomised, relative_error

# Parameters in millions (table 6 of OctConv, arXiv 1904.05049; sums over the authors' code for the two without a row
# there), operations in billions (table of the authors' repository; the same OctConv table for a4b4).
# The authors list 7.97 for ResNeXt-101 64x4d under beta 4; their other figures' rules give that for beta 2.
PUBLISHED = {
    "blresnet50_a2b4": (26.7, 2.85),
    "blresnet50_a4b4": (26.2, 2.5),
    "blresnet101_a2b4": (41.9, 3.89),
    "blresnext50_32x4d_a2b4": (26.2, 3.03),
    "blresnext101_32x4d_a2b4": (None, 4.08),
    "blresnext101_64x4d_a2b2": (None, 7.97),
    "blseresnext50_32x4d_a2b4": (None, 3.03),
    "blseresnext101_32x4d_a2b4": (None, 4.08),
}
TINY = BigLittleSpec(depths=(2, 8, 3, 2), alpha=2, beta=2, widths=(8, 16, 16, 32), stem_width=8)
TINY_GROUPS = replace(TINY, cardinality=4, base_width=32)
CONFIG = Config(num_classes=5, in_chans=2, img_size=(64, 64))


def tiny(spec: BigLittleSpec = TINY, **config: Any) -> BigLittleNet:
    """A network of which every number matters, in evaluation mode."""
    model = BigLittleNet(spec, CONFIG._replace(**config))
    randomised(model)
    return model


def images(batch: int = 2, height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(batch, 2, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        model = BigLittleNet(BIG_LITTLE_ROWS[name], Config())
    params, macs = PUBLISHED[name]
    if params is not None:
        assert sum(p.numel() for p in model.parameters()) == pytest.approx(params * 1e6, rel=0.01)
    assert count_macs(model) == pytest.approx(macs * 1e9, rel=0.01)


class Formula:
    """The network of the paper as functions of a state dict."""

    def __init__(self, state: dict[str, Tensor], spec: BigLittleSpec, stride: int, dropped: bool = False) -> None:
        self.state, self.spec, self.stride, self.dropped = state, spec, stride, dropped

    def conv(self, x: Tensor, conv: str, bn: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = self.state[f"{conv}.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)
        scale = self.state[f"{bn}.weight"] / (self.state[f"{bn}.running_var"] + 1e-5).sqrt()
        centred = x - self.state[f"{bn}.running_mean"].view(1, -1, 1, 1)
        return centred * scale.view(1, -1, 1, 1) + self.state[f"{bn}.bias"].view(1, -1, 1, 1)

    def block(self, x: Tensor, path: str, stride: int, groups: int, act: bool = True) -> Tensor:
        residual = self.conv(x, f"{path}.conv1", f"{path}.bn1").relu()
        residual = self.conv(residual, f"{path}.conv2", f"{path}.bn2", stride, groups).relu()
        residual = self.conv(residual, f"{path}.conv3", f"{path}.bn3")
        first = path in ("layer1.big.0", "layer1.little.0")
        shortcut = F.avg_pool2d(x, 3, 2, 1) if stride == 2 else x
        at = 1 if stride == 2 else 0
        if f"{path}.downsample.{at}.weight" in self.state:
            shortcut = self.conv(shortcut, f"{path}.downsample.{at}", f"{path}.downsample.{at + 1}")
        total = shortcut if self.dropped and not first else residual + shortcut
        return total.relu() if act else total

    def stem(self, x: Tensor) -> Tensor:
        big = self.conv(x, "stem.0.big.0", "stem.0.big.1", 2)
        little = self.conv(x, "stem.0.little.0.0", "stem.0.little.0.1").relu()
        little = self.conv(little, "stem.0.little.1.0", "stem.0.little.1.1", self.stride).relu()
        little = self.conv(little, "stem.0.little.2.0", "stem.0.little.2.1")
        merged = (little + F.interpolate(big, size=little.shape[-2:], mode="bilinear")).relu()
        return self.conv(merged, "stem.1.0", "stem.1.1").relu()

    def maps(self, x: Tensor) -> list[Tensor]:
        spec = self.spec
        maps = [self.conv(x, "conv1", "bn1", self.stride).relu()]
        x = self.stem(maps[0])
        for i, n in enumerate(spec.depths[:-1], 1):
            if i > 1:
                x = self.block(x, f"layer{i}.fusion", 2, spec.cardinality)
            big, little = x, x
            for j in range(n - 1):
                big = self.block(big, f"layer{i}.big.{j}", 1 if j else 2, spec.cardinality, act=j < n - 2)
            thin = max(1, math.floor(n / spec.beta) - 1)
            for j in range(thin):
                little = self.block(little, f"layer{i}.little.{j}", 1, max(1, spec.cardinality // spec.alpha))
            little = self.conv(little, f"layer{i}.little.{thin}.0", f"layer{i}.little.{thin}.1")
            x = (little + F.interpolate(big, size=little.shape[-2:], mode="bilinear")).relu()
            maps.append(x)
        last = len(spec.depths)
        x = self.block(x, f"layer{last}.fusion", 1, spec.cardinality)
        for j in range(spec.depths[-1]):
            x = self.block(x, f"layer{last}.{j}", 1 if j else 2, spec.cardinality)
        return [*maps, x]


@pytest.mark.parametrize("spec", [TINY, TINY_GROUPS, replace(TINY, alpha=4, beta=4)], ids=["plain", "groups", "a4b4"])
@pytest.mark.parametrize(("size", "stem"), [((64, 64), "imagenet"), ((97, 66), "imagenet"), ((33, 40), "small")])
def test_stages_follow_the_formula(spec: BigLittleSpec, size: tuple[int, int], stem: Any) -> None:
    model = tiny(replace(spec, stem=stem))
    formula = Formula(model.state_dict(), spec, 2 if stem == "imagenet" else 1)
    x = images(2, *size)
    with torch.no_grad():
        maps, expected = model.forward_stages(x), formula.maps(x)
        assert len(maps) == len(expected)
        assert all(relative_error(a, b) < 1e-5 for a, b in zip(maps, expected, strict=True))
        assert isinstance(model.fc, nn.Linear)
        logits = F.linear(expected[-1].mean((2, 3)), model.fc.weight, model.fc.bias)
        assert relative_error(model(x), logits) < 1e-5


def test_drop_path_takes_the_residual_and_leaves_the_shortcut() -> None:
    model = tiny(drop_path_rate=0.3)
    drops = [m for m in model.modules() if isinstance(m, DropPath)]
    rates = [m.probability for m in drops]
    assert max(rates) == rates[-1] == 0.3
    # All blocks but the first of both branches, at 1/14, 2/14, ... of the rate along the network.
    assert {round(rate * 14 / 0.3) for rate in rates} == set(range(1, 15))
    for drop in drops:
        drop.probability = 1 - 1e-12
        drop.train()
    expected = Formula(model.state_dict(), TINY, 2, dropped=True).maps(images())
    assert relative_error(model.forward_features(images()), expected[-1]) < 1e-5


@pytest.mark.parametrize("size", [(33, 97), (100, 100), (225, 190), (32, 32)])
@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_maps_have_the_declared_size_for_any_image(size: tuple[int, int], stem: Any) -> None:
    model = tiny(replace(TINY, stem=stem))
    with torch.no_grad():
        maps = model.forward_stages(images(1, *size))
    expected = [(i.num_chs, *(-(-side // i.reduction) for side in size)) for i in model.feature_info]
    assert [tuple(m.shape[1:]) for m in maps] == expected


def test_the_stem_follows_the_image() -> None:
    assert tiny(replace(TINY, stem=None), img_size=(96, 95)).feature_info.reduction() == [1, 1, 2, 4, 8]
    assert tiny(replace(TINY, stem=None), img_size=(96, 96)).feature_info.reduction() == [2, 4, 8, 16, 32]


def test_layers_are_sorted_from_the_image_to_the_answer() -> None:
    model = tiny()
    groups = timm().models.group_parameters(model, model.group_matcher())
    layers = [set(names) for names in groups.values()]
    assert sum(map(len, layers)) == len(list(model.parameters()))
    where = {name: i for i, names in enumerate(layers) for name in names}
    at = [where[f"{name}.conv1.weight"] for name in ("layer1.big.0", "layer2.fusion", "layer2.big.0", "layer2.big.1")]
    assert where["conv1.weight"] < at[0] < at[1] < at[2] < at[3] < where["layer4.1.conv1.weight"] < where["fc.weight"]
    assert where["layer2.little.1.conv1.weight"] == at[3]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"depths": (3,)}, "2 stages or more"),
        ({"depths": "3463"}, "whole numbers"),
        ({"depths": (1, 4, 6, 3)}, "one for fusion"),
        ({"depths": (3, 4, 6, 3, 3)}, "do not fit together"),
        ({"depths": (3, 4, 4000, 3)}, "at most 1000"),
        ({"depths": (3, 4, 6, 3.0)}, "whole numbers"),
        ({"widths": (64, 128, 256, 10**9)}, "whole numbers"),
        ({"alpha": 0}, "whole numbers"),
        ({"alpha": 3}, "does not divide"),
        ({"alpha": 4, "cardinality": 2}, "does not divide"),
        ({"beta": True}, "whole numbers"),
        ({"cardinality": 4096}, "channels"),
        ({"base_width": 1, "widths": (32, 64, 64, 64)}, "channels"),
        ({"squeeze": 1}, "one of True, False"),
        ({"stem": "deep"}, "one of imagenet"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        partial(BigLittleSpec, **arguments)()


def test_settings_from_a_file_are_taken() -> None:
    assert BigLittleSpec(depths=[2, 2, 1], widths=[8, 8, 8]).depths == (2, 2, 1)  # type: ignore[arg-type]
    thin = tiny(BigLittleSpec(depths=(2, 2, 1), alpha=1, beta=1, widths=(8, 8, 8), stem_width=8))
    assert thin(images()).shape == (2, 5)

"""Folding is exact, leaves the original alone, and leaves one convolution where it promises one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from msresnet.errors import UsageError
from msresnet.models.factory import create_classifier
from msresnet.nn.folding import fold, fold_conv_bn, fold_operator
from msresnet.nn.grammar import OPERATORS, Branch, Operator
from msresnet.nn.operators import Geometry, MultiScaleConv2d, build_operator
from randomise import randomised, relative_error

RESIDUAL = Operator((Branch(3), Branch(kind="identity")), merge="sum")
WIDE = Operator(
    (Branch(3), Branch(5, groups=4), Branch(3, dilation=2), Branch(3, kind="avg_pool"), Branch((1, 7))), merge="sum"
)


@pytest.mark.parametrize(
    "spec",
    [OPERATORS["reparameterised"], OPERATORS["online"], WIDE, RESIDUAL],
    ids=["rep", "online", "wide", "residual"],
)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_linear_operator_folds_into_one_convolution(spec: Operator, stride: int) -> None:
    operator = randomised(build_operator(spec, Geometry(16, 16, stride)))
    assert isinstance(operator, MultiScaleConv2d)
    folded = fold_operator(operator)
    x = torch.randn(2, 16, 11, 9)
    assert isinstance(folded, nn.Conv2d)
    assert relative_error(folded(x), operator(x)) < 1e-5


@pytest.mark.parametrize("groups", [1, 4])
def test_batchnorm_folds_into_a_convolution_with_bias(groups: int) -> None:
    conv, bn = nn.Conv2d(8, 12, 3, 2, 1, groups=groups, bias=True), nn.BatchNorm2d(12)
    pair = randomised(nn.Sequential(conv, bn))
    x = torch.randn(3, 8, 7, 7)
    assert relative_error(fold_conv_bn(conv, bn)(x), pair(x)) < 1e-5


@pytest.mark.parametrize("stem", ["imagenet", "deep", "small"])
def test_every_stem_folds(stem: str) -> None:
    model = randomised(create_classifier("resnet18", num_classes=3, stem=stem))
    x = torch.randn(1, 3, 40, 56)
    with torch.no_grad():
        assert relative_error(fold(model)(x), model(x)) < 1e-5
    assert not [m for m in fold(model).modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ({"shortcut_levels": 3}, ["layer1.shortcut.bn"]),
        ({"block": "preact_basic"}, [f"layer{i + 1}.{j}.bn1" for i in range(4) for j in range(2)] + ["norm.0"]),
        ({"operator": "selective"}, []),
        ({"operator": "radix"}, []),
    ],
)
def test_only_batchnorm_without_a_convolution_before_it_is_left(arguments: dict[str, object], left: list[str]) -> None:
    model = randomised(create_classifier("resnet18", num_classes=3, **arguments))
    folded = fold(model)
    x = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        assert relative_error(folded(x), model(x)) < 1e-5
    assert [name for name, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)] == left


@pytest.mark.parametrize(("house", "plain", "width"), [("msresnet18", "resnet18", 64), ("msresnet50", "resnet50", 56)])
def test_the_folded_house_family_is_a_plain_resnet(house: str, plain: str, width: int) -> None:
    ours = fold(create_classifier(house, img_size=224).eval())
    theirs = fold(create_classifier(plain, base_width=width).eval())
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]


def test_training_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="training mode"):
        fold(create_classifier("msresnet_micro"))
    with pytest.raises(UsageError, match="only a linear operator"):
        fold_operator(MultiScaleConv2d(OPERATORS["selective"], Geometry(16, 16)))

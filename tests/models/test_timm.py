"""Networks against timm, number by number: its weights give its outputs, features and gradients."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from msresnet.models.base import FeatureExtractor
from msresnet.models.factory import create_classifier, create_model, list_models
from msresnet.models.families import FAMILIES
from msresnet.models.published import published
from oracles import timm
from randomise import randomised, relative_error

SIZES = ((64, 64), (96, 160), (128, 96))
"""Multiples of 32: there timm's networks with several resolutions run as well."""
ODD = (75, 97)
EVEN_ONLY = ("hrnet", "dla", "resnetaa")
"""Families that fail at odd sizes in timm."""
SHARED = [name for name in list_models() if published(name).source.startswith("params: timm")]
FIRST = {next(n for n in family.members if n in SHARED) for family in FAMILIES if set(family.members) & set(SHARED)}


def images(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(2))


@pytest.fixture(params=[pytest.param(n, marks=[] if n in FIRST else pytest.mark.slow) for n in SHARED], scope="module")
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """Ours and timm's network with the same weights."""
    theirs = randomised(timm().create_model(request.param))
    ours = create_classifier(request.param)
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs


def test_state_dicts_are_the_same(pair: tuple[nn.Module, nn.Module]) -> None:
    ours, theirs = ([(k, v.shape) for k, v in sorted(m.state_dict().items())] for m in pair)
    assert ours == theirs


def test_outputs_and_features_agree(pair: tuple[nn.Module, nn.Module]) -> None:
    ours, theirs = pair
    odd = () if theirs.default_cfg["architecture"].startswith(EVEN_ONLY) else (ODD,)  # type: ignore[index, union-attr]
    with torch.no_grad():
        for size in (*SIZES, *odd):
            x = images(*size)
            assert relative_error(ours(x), theirs(x)) < 1e-5
            assert relative_error(ours.forward_features(x), theirs.forward_features(x)) < 1e-5  # type: ignore[operator]


def test_gradients_agree(pair: tuple[nn.Module, nn.Module]) -> None:
    """Of the image and of every parameter, by its published name."""
    found = []
    for model in map(copy.deepcopy, pair):
        x = images(64, 64).requires_grad_()
        model(x).square().sum().backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.data = parameter.grad
        assert x.grad is not None
        found.append({"image": x.grad, **model.state_dict()})
    ours, theirs = found
    assert relative_error(ours["image"], theirs["image"]) < 1e-5
    largest = max(float(g.abs().max()) for n, g in theirs.items() if n.endswith(("weight", "bias")))
    assert all(float((ours[n] - theirs[n]).abs().max()) < 1e-5 * largest for n in theirs)


@pytest.mark.parametrize("name", sorted(FIRST))
def test_stage_maps_agree(name: str) -> None:
    weights = randomised(timm().create_model(name)).state_dict()
    theirs = timm().create_model(name, features_only=True).eval()
    ours = create_model(name, features_only=True, out_indices=len(theirs.feature_info.channels())).eval()
    assert isinstance(ours, FeatureExtractor)
    for network in (theirs, ours.model):
        # timm flattens the paths of some networks when it extracts features: stages.0 is stages_0 there.
        flat = {re.sub(r"^(stages|stem)\.", r"\1_", k): v for k, v in weights.items()}
        network.load_state_dict({k: v for k, v in (flat | weights).items() if k in network.state_dict()})
    assert ours.feature_info.channels() == theirs.feature_info.channels()
    assert ours.feature_info.reduction() == theirs.feature_info.reduction()
    x = images(96, 64)
    with torch.no_grad():
        for mine, other in zip(ours(x), theirs(x), strict=True):
            assert relative_error(mine, other) < 1e-5


@pytest.mark.parametrize("name", sorted(FIRST - {"hrnet_w18_small", "resnetv2_18"}))
def test_weights_of_feature_extractors_go_both_ways(name: str) -> None:
    """Of HRNet timm leaves the head out, of the pre-activated ResNet it writes stages_0 for stages.0."""
    theirs, ours = (make(name, features_only=True) for make in (timm().create_model, create_model))
    ours.load_state_dict(theirs.state_dict())
    assert all(torch.equal(ours.state_dict()[key], tensor) for key, tensor in theirs.state_dict().items())
    theirs.load_state_dict(ours.state_dict())


def test_a_feature_extractor_within_a_network_is_saved_and_loaded() -> None:
    first, second = (torch.nn.Sequential(create_model("resnet18", features_only=True)) for _ in range(2))
    second.load_state_dict(first.state_dict())
    assert "0.conv1.weight" in first.state_dict()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(RuntimeError, match="unknown"):
        second.load_state_dict(first.state_dict() | {"0.unknown": torch.zeros(1)})


def test_the_recorded_layouts_are_ours(shared_data: Path) -> None:
    """Names and shapes of 13 published models, as recorded beside the real data."""
    recorded = json.loads((shared_data.parent / "reference" / "state_dict_layouts.json").read_text(encoding="utf-8"))
    assert len(recorded) == 13
    for name, layout in recorded.items():
        with torch.device("meta"):
            ours = {k: list(v.shape) for k, v in create_classifier(name).state_dict().items()}
        assert ours == layout, name

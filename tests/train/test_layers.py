"""Layers by depth: for learning rates, frozen stages and the last part of a training."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from msresnet.errors import UsageError
from msresnet.models.factory import create_classifier, list_models
from msresnet.models.families import FAMILIES
from msresnet.train.fit import fit
from msresnet.train.layers import freeze, last_layers, layer_depths, stages_in_words
from msresnet.train.optimiser import Pace, build_optimizer, set_pace
from oracles import timm
from tiny import config, plan_for

FIRST = [*{family.title: next(iter(family.members)) for family in FAMILIES}.values(), "msresnet_micro"]


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize("coarse", [False, True])
def test_depths_rise_without_gaps_and_the_classifier_is_last(name: str, coarse: bool) -> None:
    with torch.device("meta"):
        model = create_classifier(name, num_classes=3, img_size=[64, 64])
    depths = layer_depths(model, coarse)
    found = set(depths.values())
    assert found == set(range(max(found) + 1))
    heads = {id(p) for p in model.get_classifier().parameters()}
    assert {depths[n] for n, p in model.named_parameters() if id(p) in heads} == {max(found)}
    first = next(n for n, _ in model.named_parameters())
    assert depths[first] == 0


@pytest.mark.parametrize("name", ["resnet18", "res2net50_26w_4s", "hrnet_w18_small", "dla34"])
def test_depths_are_timms(name: str) -> None:
    assert name in list_models()
    original = timm().create_model(name)
    theirs = timm().models.group_parameters(original, original.group_matcher(), reverse=True)
    with torch.device("meta"):
        ours = layer_depths(create_classifier(name, num_classes=1000))
    same = {n for n in ours if n in theirs}
    assert len(same) > 60
    order = sorted({(theirs[n], ours[n]) for n in same})
    assert all(a[1] <= b[1] for a, b in itertools.pairwise(order))  # the same order of layers


def test_rates_fall_by_the_factor_from_layer_to_layer() -> None:
    model = create_classifier("resnet18", num_classes=3)
    optimizer = build_optimizer(model, config(Path(), layer_decay=0.5), 0.1, 0.05)
    set_pace(optimizer, 0.1, Pace(1.0))
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    depths = layer_depths(model)
    deepest = max(depths.values())
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.1 * 0.5 ** (deepest - depths[name]))
    assert rates[id(model.fc.weight)] == pytest.approx(0.1)  # type: ignore[union-attr]


def test_frozen_stages_keep_weights_and_statistics() -> None:
    model = create_classifier("resnet18", num_classes=3)
    still = freeze(model, 2)
    frozen = {n.split(".")[0] for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1"}
    assert {type(m).__name__ for m in still} == {"BatchNorm2d"}
    assert len(still) == 5
    with pytest.raises(UsageError, match="a stem and 4 stages"):
        freeze(model, 6)
    freeze(model, 5)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"fc.weight", "fc.bias"}


def test_stages_are_frozen_where_there_are_weights_to_keep(bars: Path, tmp_path: Path) -> None:
    settings = config(bars, epochs=1, freeze=2)
    with pytest.raises(UsageError, match="there are no --weights"):
        fit(settings)
    before = fit(config(bars, epochs=1)).bundle
    fitted = fit(replace(settings, weights=str(before.save(tmp_path / "before"))))
    depths = layer_depths(before.model, coarse=True)
    after = dict(fitted.bundle.model.named_parameters())
    kept = {name for name, weight in before.model.named_parameters() if torch.equal(weight, after[name])}
    assert kept >= {name for name, depth in depths.items() if depth < 2}
    learning = sum(after[name].numel() for name, depth in depths.items() if depth >= 2)
    said = f"frozen: the stem and the first stage; {learning:,} of {before.params:,} parameters learn"
    assert said in fitted.notes


def test_a_run_that_began_without_weights_to_keep_goes_on(bars: Path) -> None:
    assert plan_for(bars, freeze=1, resume=True).config.freeze == 1


@pytest.mark.parametrize(
    ("stages", "words"), [(1, "the stem"), (2, "the stem and the first stage"), (4, "the stem and the first 3 stages")]
)
def test_what_is_frozen_is_said(stages: int, words: str) -> None:
    assert stages_in_words(stages) == words


def test_last_layers_are_the_classifier_and_all_normalisation() -> None:
    model = create_classifier("resnet18", num_classes=3)
    names = last_layers(model)
    assert {"fc.weight", "fc.bias", "bn1.weight", "layer4.1.bn2.bias", "layer2.0.downsample.1.weight"} <= names
    assert not any("conv" in n for n in names)

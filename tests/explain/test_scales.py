"""The response of the scales against what the logit really does, for one image and over sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from explained import ONE_OF_EACH, bundle, picture, side_of
from msresnet.bundle import Bundle
from msresnet.errors import DataError, ModelError, UsageError
from msresnet.explain.attribution import ready
from msresnet.explain.scale_table import scale_table
from msresnet.explain.scales import by_field, places, responses, scale_responses
from msresnet.nn.grammar import OPERATORS
from msresnet.nn.operators import MultiScaleConv2d

MULTI_SCALE: dict[str, dict[str, Any]] = {
    "msresnet_micro": {},
    "res2net50_26w_4s": {"stem": "small"},
    "skresnet18": {"stem": "small"},
    "resnest14d": {"stem": "small"},
}


def images_of(made: Bundle, count: int) -> Tensor:
    """Random preprocessed images (N, C, H, W) uint8."""
    height, width = made.preprocess.size
    return torch.from_numpy(np.stack([picture(height, width, made.preprocess.channels, seed=i) for i in range(count)]))


@pytest.mark.parametrize("operator", ["online", "reparameterised", "low_resolution"])
def test_contributions_of_an_operator_are_its_effect_on_the_logit(operator: str) -> None:
    """Scaling an operator's whole output by 1 + e moves the logit by e times the sum of its contributions."""
    made, image = bundle(operator=OPERATORS[operator]), picture()
    rows = scale_responses(made, image, 1)
    name = rows[-1].operator
    module = made.model.get_submodule(name)
    x = ready(made, image).double()
    made.model.double()
    e = 1e-6

    def scaled(factor: float) -> float:
        handle = module.register_forward_hook(lambda _m, _a, out: out * factor)
        try:
            with torch.no_grad():
                return float(made.model(x)[0, 1])
        finally:
            handle.remove()

    slope = (scaled(1 + e) - scaled(1 - e)) / (2 * e)
    assert sum(r.contribution for r in rows if r.operator == name) == pytest.approx(slope, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("model", MULTI_SCALE)
def test_contributions_of_an_operators_branches_add_up_to_gradient_times_output(model: str) -> None:
    made = bundle(model, 32, **MULTI_SCALE[model])
    x, targets = made.preprocess.tensor(images_of(made, 3)), torch.tensor([0, 1, 2])
    found = responses(made, x, targets)
    names = [place.operator for place in places(made.model)]
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            outputs[name] = output.clone()
            return outputs[name].clone()

        return hook

    chosen = list(dict.fromkeys(names))
    handles = [made.model.get_submodule(n).register_forward_hook(keep(n)) for n in chosen]  # type: ignore[arg-type]
    logits = made.model(x)
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), [outputs[n] for n in chosen])
    for name, gradient in zip(chosen, gradients, strict=True):
        products = (gradient * outputs[name]).detach()
        expected = products.sum((1, 2, 3))
        total = found.contributions[:, [i for i, n in enumerate(names) if n == name]].sum(1)
        scale = float(products.abs().sum((1, 2, 3)).max())
        assert torch.allclose(total, expected, atol=1e-4 * scale)


def test_shares_sum_to_one_in_each_operator_and_over_all() -> None:
    made = bundle()
    rows = scale_responses(made, picture(), 0)
    operators = [n for n, m in made.model.named_modules() if isinstance(m, MultiScaleConv2d)]
    assert [r.operator for r in rows[:: len(rows) // len(operators)]] == operators
    for name in operators:
        assert sum(r.share for r in rows if r.operator == name) == pytest.approx(1)
    assert sum(share for _, share in by_field(rows)) == pytest.approx(1)
    assert {r.branch for r in rows} == {"3x3", "1x1"}


def test_a_silenced_branch_has_no_share() -> None:
    made = bundle()
    operator = made.model.get_submodule("layer2.0.conv2")
    torch.nn.init.zeros_(operator.paths[1].conv.weight)  # type: ignore[index, union-attr]
    rows = [r for r in scale_responses(made, picture(), 0) if r.operator == "layer2.0.conv2"]
    assert [r.share for r in rows] == pytest.approx([1, 0])
    table = scale_table(made, [images_of(made, 5)])
    row = table.by_operator(table.overall())[table.operators.index("layer2.0.conv2")]
    assert dict(zip(table.branches, row, strict=True)) == pytest.approx({"3x3": 1, "1x1": 0})


def test_cascade_is_labelled_by_what_it_sees() -> None:
    made = bundle("res2net50_26w_4s", 32, stem="small")
    labels = {r.branch for r in scale_responses(made, picture(32), 0)}
    assert labels == {"1x1", "3x3", "5x5", "7x7"}
    assert scale_table(made, [images_of(made, 1)]).branches == ["1x1", "3x3", "5x5", "7x7"]


def test_a_plain_network_has_no_scales() -> None:
    made = bundle("resnet18", 32, stem="small")
    assert scale_responses(made, picture(32), 0) == []
    with pytest.raises(UsageError, match="no operator whose scales can be told apart"):
        scale_table(made, [images_of(made, 1)])


@pytest.mark.parametrize("model", ONE_OF_EACH)
def test_every_family_answers(model: str) -> None:
    made = bundle(model, side_of(model))
    found = responses(made, made.preprocess.tensor(images_of(made, 2)))
    assert found.shares.shape == found.contributions.shape == (2, len(places(made.model)))
    assert found.shares.isfinite().all()
    assert torch.equal(found.targets, made.model(made.preprocess.tensor(images_of(made, 2))).argmax(1))


@pytest.mark.parametrize("model", MULTI_SCALE)
def test_a_set_is_the_mean_of_its_images_however_it_is_cut(model: str) -> None:
    made, count = bundle(model, 32, **MULTI_SCALE[model]), 5
    images = images_of(made, count)
    answers = made.model(made.preprocess.tensor(images)).argmax(1).tolist()
    rows = [scale_responses(made, images[i].numpy(), answers[i]) for i in range(count)]
    for size in (2, count):
        table = scale_table(made, images.split(size))
        assert table.counts.tolist() == [answers.count(k) for k in range(3)]
        for k in set(answers):
            members = [row for row, answer in zip(rows, answers, strict=True) if answer == k]
            shares = np.mean([[r.share for r in row] for row in members], 0)
            added = np.mean([[r.contribution for r in row] for row in members], 0)
            assert np.allclose(table.shares[k], shares, atol=1e-5)
            assert np.allclose(table.contributions[k], added, rtol=1e-3, atol=1e-4 * np.abs(added).max())
        assert np.allclose(table.overall(), np.mean([[r.share for r in row] for row in rows], 0), atol=1e-5)


def test_a_class_without_images_is_no_number_and_not_in_the_file() -> None:
    made = bundle()
    table = scale_table(made, [images_of(made, 4)], target=1)
    assert table.counts.tolist() == [0, 4, 0]
    assert np.isnan(table.shares[[0, 2]]).all()
    found = table.to_dict()
    assert found["n"] == 4
    assert all(list(row["shares"]) == ["b"] for row in found["scales"])
    assert np.allclose(table.by_class()[1].sum(), 1)


def test_a_set_without_images_is_refused() -> None:
    with pytest.raises(DataError, match="no image"):
        scale_table(bundle(), [])


def test_outputs_that_are_no_numbers_are_refused() -> None:
    made = bundle()
    made.model.get_submodule("fc").weight.data.fill_(float("inf"))  # type: ignore[operator]
    with pytest.raises(ModelError, match="not finite"):
        scale_table(made, [images_of(made, 1)])


def test_it_leaves_no_trace() -> None:
    made, image = bundle(), picture()
    before = made.model(ready(made, image))
    scale_responses(made, image, 0)
    assert torch.equal(made.model(ready(made, image)), before)
    assert all(p.grad is None for p in made.model.parameters())
    assert not [m for m in made.model.modules() if m._forward_hooks]

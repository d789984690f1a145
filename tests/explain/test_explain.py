"""Explanations: heat maps against a formula, scales against what the logit really does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msresnet.bundle import Bundle
from msresnet.data.preprocess import Preprocess
from msresnet.explain.attribution import grad_cam, ready
from msresnet.explain.scales import by_field, scale_responses
from msresnet.models.factory import create_classifier
from msresnet.nn.grammar import OPERATORS
from msresnet.nn.operators import MultiScaleConv2d
from msresnet.tasks.classification import ClassificationTask
from randomise import randomised


def bundle(model: str = "msresnet_micro", side: int = 20, **arguments: object) -> Bundle:
    network = create_classifier(model, num_classes=3, in_chans=1, img_size=(side, side), **arguments)
    randomised(network)
    return Bundle(network, model, {}, ClassificationTask(["a", "b", "c"]), Preprocess((side, side), 1))


def picture(side: int = 20) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (1, side, side)).astype(np.uint8)


@pytest.mark.parametrize("model", ["msresnet_micro", "article_cnn"])
def test_grad_cam_is_the_papers_formula(model: str) -> None:
    """arXiv 1610.02391, equations 1 and 2: channels weighted by their mean gradient, then ReLU."""
    made, image = bundle(model, 28), picture(28)
    kept: list[Tensor] = []
    layer = made.model.get_submodule(made.model.attribution_layer)

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept.append(output.clone())
        return kept[-1]

    handle = layer.register_forward_hook(keep)
    logits = made.model(ready(made, image))
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[0, 2], kept[0])
    heat = F.relu((gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True))
    heat = F.interpolate(heat, (28, 28), mode="bilinear", align_corners=False)[0, 0]
    expected = (heat / heat.max().clamp_min(1e-12)).detach().numpy()
    assert np.allclose(grad_cam(made, image, 2), expected, atol=1e-5)


def test_heat_map_has_the_size_of_the_input_and_lies_between_0_and_1() -> None:
    heat = grad_cam(bundle(), picture(33), 0)
    assert heat.shape == (20, 20)
    assert heat.min() >= 0
    assert heat.max() <= 1


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


def test_cascade_is_labelled_by_what_it_sees() -> None:
    made = bundle("res2net50_26w_4s", 32, stem="small")
    labels = {r.branch for r in scale_responses(made, picture(32), 0)}
    assert labels == {"1x1", "3x3", "5x5", "7x7"}


def test_a_plain_network_has_no_scales() -> None:
    assert scale_responses(bundle("resnet18", 32, stem="small"), picture(32), 0) == []


def test_explaining_leaves_no_trace() -> None:
    made, image = bundle(), picture()
    before = made.model(ready(made, image))
    scale_responses(made, image, 0)
    grad_cam(made, image, 0)
    assert torch.equal(made.model(ready(made, image)), before)
    assert all(p.grad is None for p in made.model.parameters())
    assert not [m for m in made.model.modules() if m._forward_hooks]

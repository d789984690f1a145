"""Heat maps against the papers' formulas, sums and plain loops, for every family."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explained import ONE_OF_EACH, bundle, heat_map, picture, side_of
from msresnet.bundle import Bundle
from msresnet.errors import ModelError, UsageError
from msresnet.explain.attribution import (
    CLOSE,
    DEFAULT,
    METHODS,
    Question,
    attribute,
    blurred,
    gap,
    heat_maps,
    integrated_gradients,
    layer_of,
    occlusion,
    ready,
)
from msresnet.infer.explain_config import ExplainConfig

METHOD_NAMES = list(METHODS)
DESIGNS = {
    "msresnet_micro": 20,
    "article_cnn": 28,
    "resnetv2_18": 16,
    "octresnet26_a125": 16,
    "dla34": 16,
    "hrnet_w18_small": 16,
    "blresnet50_a2b4": 16,
    "msdnet24_cifar": 8,
}
"""Networks that are built differently (others differ from them in their operators), and the pixels of their images."""


def batch(made: Bundle, count: int = 2) -> tuple[Tensor, Tensor]:
    """Normalised images of a bundle's size, and classes to ask about."""
    height, width = made.preprocess.size
    images = [picture(height, width, made.preprocess.channels, seed=i) for i in range(count)]
    return made.preprocess.tensor(torch.from_numpy(np.stack(images))), torch.arange(count) % 3


def grad_cam_by_hand(made: Bundle, images: Tensor, targets: Tensor, layer: str) -> Tensor:
    """arXiv 1610.02391, equations 1 and 2, before the ReLU: channels weighted by their mean gradient."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept.append(output.clone())
        return kept[-1]

    handle = made.model.get_submodule(layer).register_forward_hook(keep)
    logits = made.model(images)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), kept[0])
    return (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1).detach()


@pytest.mark.parametrize("model", ["msresnet_micro", "article_cnn"])
def test_grad_cam_is_the_papers_formula(model: str) -> None:
    made, image = bundle(model, 28), picture(28)
    x = ready(made, image)
    found = grad_cam_by_hand(made, x, torch.tensor([2]), made.model.attribution_layer)
    heat = F.interpolate(F.relu(found)[:, None], (28, 28), mode="bilinear", align_corners=False)[0, 0]
    expected = (heat / heat.max().clamp_min(1e-12)).numpy()
    assert np.allclose(heat_map(made, image, 2, "grad-cam"), expected, atol=1e-5)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_grad_cam_of_a_stage_is_the_papers_formula(stage: int) -> None:
    made = bundle()
    x, targets = batch(made)
    layer = made.model.feature_info[stage].module
    expected = grad_cam_by_hand(made, x, targets, layer)
    assert torch.allclose(attribute(made, x, targets, "grad-cam", stage), expected, rtol=1e-4, atol=1e-6)


def test_grad_cam_of_octaves_adds_both_at_the_finer_size() -> None:
    made = bundle("octresnet26_a250", 32)
    x, targets = batch(made)
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: tuple[Tensor, Tensor]) -> None:
        kept.extend(output)

    handle = made.model.get_submodule("layer2").register_forward_hook(keep)
    logits = made.model(x)
    handle.remove()
    gradients = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), kept)
    high, low = ((g.mean((2, 3), keepdim=True) * m).sum(1) for g, m in zip(gradients, kept, strict=True))
    expected = high + low.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.allclose(attribute(made, x, targets, "grad-cam", 2), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model", ONE_OF_EACH)
def test_every_family_has_grad_cam_at_every_stage(model: str) -> None:
    made = bundle(model, side_of(model), channels=3)
    x, targets = batch(made, 1)
    for stage in (None, *range(len(made.model.feature_info))):
        found = attribute(made, x, targets, "grad-cam", stage)
        assert found.isfinite().all()
        assert found.ndim == 3
        if stage is not None and layer_of(made.model, stage) == made.model.feature_info[stage].module:
            step = made.model.feature_info[stage].reduction
            assert found.shape[1] in range(x.shape[2] // step - 2, -(-x.shape[2] // step) + 1)


@pytest.mark.parametrize(("model", "side"), DESIGNS.items())
def test_integrated_gradients_add_up_to_the_logits_difference(model: str, side: int) -> None:
    """arXiv 1703.01365, completeness, measured here without `gap`."""
    made = bundle(model, side)
    x, targets = batch(made)
    total = attribute(made, x, targets, "integrated-gradients").sum((1, 2))
    with torch.no_grad():
        logits = [made.model(images).gather(1, targets[:, None])[:, 0] for images in (x, torch.zeros_like(x))]
    difference = logits[0] - logits[1]
    assert bool(((total - difference).abs() <= CLOSE * difference.abs().clamp_min(1) + 1e-4).all())


@pytest.mark.parametrize(("model", "side"), DESIGNS.items())
def test_occlusion_is_finite(model: str, side: int) -> None:
    made = bundle(model, side)
    x, targets = batch(made, 1)
    found = attribute(made, x, targets, "occlusion")
    assert found.shape == (1, *x.shape[2:])
    assert found.isfinite().all()
    assert found.abs().sum() > 0


def test_a_network_with_exits_is_explained_by_its_last_one() -> None:
    made = bundle(exits=True)
    x, targets = batch(made, 1)
    before = {method: attribute(made, x, targets, method) for method in METHODS}
    for parameter in made.model.get_submodule("exits").parameters():
        parameter.data.zero_()
    assert made.model.num_exits > 1
    for method, attribution in before.items():
        assert torch.equal(attribute(made, x, targets, method), attribution)


def linear(weights: Tensor) -> Callable[[Tensor], Tensor]:
    """A model of which everything is known: (B, C, H, W) -> (B, 1)."""
    return lambda images: (images * weights).sum((1, 2, 3))[:, None]


def test_integrated_gradients_of_a_linear_model_are_its_products() -> None:
    weights, x = torch.randn(3, 8, 9), torch.randn(2, 3, 8, 9)
    asked = Question(linear(weights), x, torch.zeros(2, dtype=torch.int64), nn.Identity())
    found = integrated_gradients(asked)
    assert torch.allclose(found, (weights * x).sum(1), atol=1e-5)
    assert float(gap(asked, found).max()) < 1e-4
    off = (weights * x).sum((1, 2, 3)).abs()  # of one logit, where there is less than that to explain
    assert torch.allclose(gap(asked, 2 * found), off / off.clamp_min(1), atol=1e-4)


@pytest.mark.parametrize("shape", [(14, 14), (9, 23)])
def test_occlusion_of_a_linear_model_is_what_each_window_costs(shape: tuple[int, int]) -> None:
    """Plain loops over the windows: a seventh of each side, moved by half of it, cut off at the far border."""
    weights, x = torch.randn(2, *shape), torch.randn(1, 2, *shape)
    products = (weights * x[0]).sum(0)
    cost, times = torch.zeros(shape), torch.zeros(shape)
    (high, wide) = (max(1, round(side / 7)) for side in shape)
    for top in range(0, shape[0] - high + max(1, high // 2), max(1, high // 2)):
        for left in range(0, shape[1] - wide + max(1, wide // 2), max(1, wide // 2)):
            place = (slice(top, top + high), slice(left, left + wide))
            cost[place] += products[place].sum()
            times[place] += 1
    found = occlusion(Question(linear(weights), x, torch.zeros(1, dtype=torch.int64), nn.Identity()))
    assert torch.allclose(found[0], cost / times, atol=1e-4)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_batch_is_explained_as_its_images_are_alone(method: str) -> None:
    made = bundle(channels=3)
    x, targets = batch(made, 3)
    together = attribute(made, x, targets, method)
    alone = torch.cat([attribute(made, x[i : i + 1], targets[i : i + 1], method) for i in range(3)])
    # Integrated gradients take more steps for the whole batch where one image needs them.
    assert torch.allclose(together, alone, atol=(0.03 if method == DEFAULT else 1e-5) * float(alone.abs().max()))


@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("shape", [(1, 33, 20), (3, 7, 61), (1, 1, 1), (3, 1, 500)])
def test_heat_maps_have_the_inputs_size_and_lie_between_0_and_1(method: str, shape: tuple[int, int, int]) -> None:
    heat = heat_map(bundle(channels=3), np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8), 0, method)
    assert heat.shape == (20, 20)
    assert heat.min() >= 0
    assert heat.max() == pytest.approx(1) or heat.max() == 0


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_i16_a_network_of_single_pixels_can_be_explained(method: str) -> None:
    made = bundle("resnet18", 1, stem="small")
    heat = heat_map(made, picture(1), 0, method)
    assert heat.shape == (1, 1)
    assert np.isfinite(heat).all()


def test_nothing_that_speaks_for_a_class_is_a_dark_map() -> None:
    assert heat_maps(-torch.ones(1, 4, 4), (4, 4)).max() == 0


def test_blur_is_a_gaussian() -> None:
    from scipy.ndimage import gaussian_filter

    x = torch.rand(1, 2, 30, 24, dtype=torch.float64)
    expected = [gaussian_filter(c, 3.0, mode="nearest", truncate=3.0) for c in x[0].numpy()]
    assert np.allclose(blurred(x, 3.0 / 30)[0].numpy(), expected, atol=1e-12)


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="integrated-gradients"):
        heat_map(bundle(), picture(), 0, "integrated-gradient")


@pytest.mark.parametrize("stage", [-1, 4, 99])
def test_an_unknown_stage_names_those_that_exist(stage: int) -> None:
    with pytest.raises(UsageError, match=r"there is no stage -?\d+[\s\S]*stages 0 \(fine\) to 3 \(coarse\)"):
        heat_map(bundle(), picture(), 0, "grad-cam", stage)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_outputs_that_are_no_numbers_are_refused(method: str) -> None:
    made = bundle()
    made.model.get_submodule("fc").weight.data.fill_(float("nan"))  # type: ignore[operator]
    with pytest.raises(ModelError, match="no finite explanation"):
        heat_map(made, picture(), 0, method)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_explaining_leaves_no_trace(method: str) -> None:
    made, image = bundle(), picture()
    before = made.model(ready(made, image))
    heat_map(made, image, 0, method)
    assert torch.equal(made.model(ready(made, image)), before)
    assert all(p.grad is None for p in made.model.parameters())
    assert not [m for m in made.model.modules() if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks]


def test_the_help_names_every_method_and_the_default() -> None:
    from pathlib import Path

    import msresnet.infer.explain_config as where

    text = Path(where.__file__).read_text(encoding="utf-8")
    said = text[text.index("class ExplainConfig") :]
    assert ExplainConfig(inputs=("x.png",)).method is None
    assert f"{DEFAULT} (the default)" in said
    assert all(name in said for name in METHODS)

"""A class for each pixel on any backbone: shapes, gradients, folding, weights; and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

import contract
from msresnet.errors import UsageError
from msresnet.models.base import ImageModel
from msresnet.models.cost import count_macs, exit_macs
from msresnet.models.factory import MODELS, create_model, create_network, create_segmenter
from msresnet.models.families import FAMILIES
from msresnet.models.segmenter import levels
from msresnet.nn.folding import fold
from msresnet.nn.heads import PyramidHead
from msresnet.nn.necks import FeaturePyramid
from msresnet.train.layers import freeze, last_layers, layer_depths
from randomise import randomised, relative_error

FIRST = [*{family.title: next(iter(family.members)) for family in FAMILIES}.values(), "msresnet_micro"]


def fresh(name: str) -> ImageModel:
    """A segmenter of five classes for small images of two channels."""
    torch.manual_seed(0)
    return create_segmenter(name, num_classes=5, in_chans=2, img_size=contract.side(name))


@pytest.mark.parametrize("name", FIRST)
def test_any_backbone_gives_every_pixel_a_class_and_learns_with_all_its_parameters(name: str) -> None:
    model = fresh(name)
    randomised(model).train()
    height, width = model.config.img_size
    x = torch.randn(3, 2, height, width + (0 if model.min_size > 1 else 5), generator=torch.Generator().manual_seed(1))
    logits = model(x)
    assert logits.shape == (3, 5, *x.shape[2:])
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    (logits * weights).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", ["msresnet_micro", "resnet18", "hrnet_w18_small"])
def test_what_is_folded_answers_alike_and_what_is_declared_is_true(name: str) -> None:
    model = fresh(name)
    randomised(model).eval()
    x = contract.images(model)
    with torch.no_grad():
        assert relative_error(fold(model)(x), model(x)) < 1e-5
        alone = torch.cat([model(x[i : i + 1]) for i in range(len(x))])
        assert relative_error(alone, model(x)) < 1e-5
        assert model.forward_features(x).shape[1] == model.num_features
    contract.declared_features_are_true(model)
    assert count_macs(model) == exit_macs(model)[-1] > 0
    assert model.get_submodule(model.attribution_layer) is not None


@pytest.mark.parametrize("size", [(33, 97), (100, 100), (6, 7)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    model = fresh("msresnet_micro").eval()
    with torch.no_grad():
        assert model(torch.randn(2, 2, *size)).shape == (2, 5, *size)


def test_small_networks_stay_small() -> None:
    whole, body = (create_network(head, "msresnet_micro", num_classes=2) for head in ("pyramid", "classifier"))
    counts = [sum(p.numel() for p in model.parameters()) for model in (whole, body)]
    assert counts[0] < 1.2 * counts[1]


def test_the_pyramid_begins_at_a_quarter_or_for_small_images_at_their_finest_map() -> None:
    large, small = (create_network("classifier", n).feature_info for n in ("resnet50", "msresnet_micro"))
    assert [large[i].reduction for i in levels(large)] == [4, 8, 16, 32]
    assert [small[i].module for i in levels(small)] == ["act1", "layer1", "layer3"]


def test_the_pyramid_is_the_papers_sum_from_the_top() -> None:
    torch.manual_seed(0)
    neck = FeaturePyramid((3, 4), 6)
    randomised(neck).eval()
    fine, coarse = torch.randn(1, 3, 9, 7), torch.randn(1, 4, 5, 4)
    with torch.no_grad():
        sides = [neck.lateral[0](fine), neck.lateral[1](coarse)]
        rows, columns = (torch.tensor([i * c // f for i in range(f)]) for f, c in ((9, 5), (7, 4)))
        expected = neck.smooth[0](sides[0] + sides[1][:, :, rows][:, :, :, columns])
        found = neck([fine, coarse])
    assert torch.allclose(found[0], expected, atol=1e-6)
    assert torch.allclose(found[1], neck.smooth[1](sides[1]), atol=1e-6)


def test_the_head_takes_a_convolution_for_every_step_to_the_finest_map() -> None:
    head = PyramidHead(4, 8, 3)
    convolutions = [sum(isinstance(m, nn.Conv2d) for m in steps.modules()) for steps in head.steps]
    assert convolutions == [1, 1, 2, 3]  # Panoptic FPN, figure 3: 32 to 4 takes three
    maps = [torch.randn(2, 8, s, s) for s in (16, 8, 4, 2)]
    assert head(maps, (61, 64)).shape == (2, 3, 61, 64)
    total = torch.zeros(2, 8, 16, 16)
    for level, x in enumerate(maps):
        for place, step in enumerate(head.eval().steps[level].children()):
            x = F.interpolate(step(x), size=16 >> max(0, level - place - 1), mode="bilinear")
        total += x.detach()
    assert torch.allclose(head.merged(maps), total, atol=1e-5)


def test_layers_are_sorted_frozen_and_finished_as_the_backbones_are() -> None:
    model = fresh("msresnet_micro")
    depths = layer_depths(model)
    assert depths["body.conv1.weight"] == 0
    assert depths["head.classifier.weight"] == depths["neck.lateral.0.0.weight"] == max(depths.values())
    still = freeze(model, 2)
    assert still
    assert not model.get_parameter("body.conv1.weight").requires_grad
    assert model.get_parameter("neck.lateral.0.0.weight").requires_grad
    assert "head.classifier.weight" in last_layers(model)


def test_weights_of_a_classifier_fill_the_backbone(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    torch.manual_seed(5)
    donor = create_model("resnetv2_18", num_classes=7, in_chans=3, img_size=64)  # has a norm behind its stages
    save_file({k: v.contiguous() for k, v in donor.state_dict().items()}, path)
    model = create_segmenter("resnetv2_18", pretrained=path, num_classes=2, img_size=64)
    mine = model.body.state_dict()
    assert mine
    assert all(torch.equal(tensor, donor.state_dict()[name]) for name, tensor in mine.items())
    assert not any(name.startswith(("norm.", "fc.", "head.")) for name in mine)


@pytest.mark.parametrize("width", [0, -3, True, "8", 10**9])
def test_a_width_that_cannot_be(width: object) -> None:
    with pytest.raises(UsageError, match="pyramid_width"):
        create_segmenter("msresnet_micro", pyramid_width=width)  # type: ignore[arg-type]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="takes no argument"):
        create_network("pyramid", "msresnet_micro", depth=3)
    with pytest.raises(UsageError, match="needs the whole map"):
        fresh("msresnet_micro").reset_classifier(3, "avg")
    with pytest.raises(UsageError, match=r"pooled vector|leaves a map"):
        create_network("classifier", "msresnet_micro", num_classes=3, global_pool="")
    assert "pyramid_width" not in MODELS["msresnet_micro"].arguments

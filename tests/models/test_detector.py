"""Boxes on any backbone: shapes, places, gradients, folding, odd sizes; and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import contract
from msresnet.errors import UsageError
from msresnet.models.base import ImageModel
from msresnet.models.cost import count_macs, exit_macs
from msresnet.models.detector import levels, strides
from msresnet.models.factory import MODELS, create_detector, create_model, create_network, network_arguments
from msresnet.models.families import FAMILIES
from msresnet.nn.detection import ANCHOR, PRIOR, DetectionHead, places
from msresnet.nn.folding import fold
from msresnet.nn.necks import PathAggregation
from msresnet.train.layers import freeze, last_layers, layer_depths
from randomise import randomised, relative_error

FIRST = [*{family.title: next(iter(family.members)) for family in FAMILIES}.values(), "msresnet_micro"]


def fresh(name: str, **more: object) -> ImageModel:
    """A detector of five classes for small images of two channels."""
    torch.manual_seed(0)
    return create_detector(name, num_classes=5, in_chans=2, img_size=contract.side(name), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FIRST)
def test_any_backbone_answers_at_every_place_and_learns_with_all_its_parameters(name: str) -> None:
    model = fresh(name)
    randomised(model).train()
    height, width = model.config.img_size
    size = (height, width + (0 if model.min_size > 1 else 5))
    answers = model(torch.randn(3, 2, *size, generator=torch.Generator().manual_seed(1)))
    assert answers.shape == (3, len(places(size, model.strides)[0]), 9)
    # A factor of a map speaks for nothing where the logarithm of an edge is at its bound.
    weights = torch.randn(answers.shape, generator=torch.Generator().manual_seed(2))
    (answers.clamp(-1e6, 1e6) * weights).sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("name", ["msresnet_micro", "resnet18", "hrnet_w18_small"])
def test_what_is_folded_answers_alike_and_what_is_declared_is_true(name: str) -> None:
    model = fresh(name)
    randomised(model).eval()
    x = contract.images(model)
    with torch.no_grad():
        assert relative_error(fold(model)(x), model(x)) < 1e-5
        alone = torch.cat([model(x[i : i + 1]) for i in range(len(x))])
        assert relative_error(alone, model(x)) < 1e-5
        features = model.forward_features(x)
        assert features.shape[1] == model.num_features
        finest = model.forward_head(features).flatten(2).transpose(1, 2)
        assert relative_error(finest, model(x)[:, : finest.shape[1], 4:]) < 1e-5
    contract.declared_features_are_true(model)
    assert count_macs(model) == exit_macs(model)[-1] > 0
    assert model.get_submodule(model.attribution_layer) is not None


@pytest.mark.parametrize("size", [(33, 97), (100, 100), (6, 7)])
def test_odd_sizes_in_batches_of_two(size: tuple[int, int]) -> None:
    model = fresh("msresnet_micro").train()
    answers = model(torch.randn(2, 2, *size))
    assert answers.shape == (2, len(places(size, model.strides)[0]), 9)
    answers.sum().backward()


def test_a_new_network_answers_an_anchor_around_each_place_and_believes_in_nothing() -> None:
    model = fresh("msresnet_micro").eval()
    middles, steps = places((28, 28), model.strides)
    with torch.no_grad():
        answers = model(torch.randn(2, 2, 28, 28))
    boxes, logits = answers[0].split([4, 5], 1)
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    assert (centres - middles).abs().max() < ANCHOR * steps.max() / 2
    assert (sides / (ANCHOR * steps[:, None])).log().abs().max() < math.log(2)
    assert logits.sigmoid().mean() == pytest.approx(PRIOR, rel=0.3)


def test_places_are_the_middles_of_the_squares_that_tile_the_image() -> None:
    middles, steps = places((10, 17), (4, 8))
    expected = [(4 * x + 2.0, 4 * y + 2.0) for y in range(3) for x in range(5)]
    expected += [(8 * x + 4.0, 8 * y + 4.0) for y in range(2) for x in range(3)]
    assert middles.tolist() == [list(place) for place in expected]
    assert steps.tolist() == [4.0] * 15 + [8.0] * 6


def test_the_head_puts_edges_where_its_logarithms_say() -> None:
    head = DetectionHead((4, 8), 8, 3).eval()
    with torch.no_grad():
        head.box.weight.zero_()
        head.box.bias.copy_(torch.tensor([0.0, math.log(2), -math.log(2), 0.5]))  # type: ignore[union-attr]
        head.scales.copy_(torch.tensor([1.0, 2.0]))
        answers = head([torch.randn(1, 8, 2, 3), torch.randn(1, 8, 1, 2)])
    far = torch.tensor([1, 2, 0.5, math.exp(0.5)])
    for place, (x, y, stride, scale) in {0: (2, 2, 4, 1), 5: (10, 6, 4, 1), 7: (12, 4, 8, 2)}.items():
        left, top, right, bottom = (far**scale * stride * ANCHOR / 2).tolist()
        assert answers[0, place, :4].tolist() == pytest.approx([x - left, y - top, x + right, y + bottom], rel=1e-5)


def test_which_maps_are_taken_goes_by_the_images_size() -> None:
    def of(name: str, **more: object) -> tuple[int, ...]:
        with torch.device("meta"):
            return create_network("detector", name, **more).strides

    assert of("resnet50", img_size=640) == (8, 16, 32, 64, 128)
    assert of("resnet50", img_size=(160, 128)) == (4, 8, 16, 32, 64)
    assert of("resnet50", img_size=640, finest=4) == (4, 8, 16, 32, 64)
    assert of("msresnet_micro", img_size=640) == (8, 16, 32, 64, 128)
    assert of("msresnet_micro", img_size=28) == (4, 8, 16)
    assert of("msdnet20", img_size=224) == (32, 64, 128)
    fine, coarse = (create_network("detector", "msresnet_micro", finest=f) for f in (4, 8))
    assert count_macs(coarse) < count_macs(fine)
    stages = create_network("classifier", "resnet18").feature_info
    assert [stages[i].reduction for i in levels(stages, strides(stages, (512, 512)))] == [8, 16, 32]


def test_a_backbone_that_leaves_a_resolution_out_gives_the_maps_before_it() -> None:
    network: Any = create_network("detector", "resnet18", num_classes=3, img_size=64, strides=[1, 4, 2, 2]).eval()
    assert network.strides == (4, 8, 16, 32, 64)
    assert len(network.levels) == 1
    answers = network(torch.zeros(2, 3, 64, 64))
    assert answers.shape == (2, sum((64 // stride) ** 2 for stride in network.strides), 4 + 3)


def test_the_way_back_is_the_papers_sum_from_below() -> None:
    torch.manual_seed(0)
    neck = PathAggregation((3, 4), 6, extra=1)
    randomised(neck).eval()
    with torch.no_grad():
        maps = [torch.randn(1, 3, 9, 7), torch.randn(1, 4, 5, 4)]
        found, above = neck(maps), neck.pyramid(maps)
        joined = neck.joined[0](above[1] + neck.down[0](above[0]))
        assert torch.equal(found[0], above[0])
        assert torch.allclose(found[1], joined, atol=1e-6)
        assert torch.allclose(found[2], neck.extra[0](joined), atol=1e-6)
    assert [tuple(x.shape[1:]) for x in found] == [(6, 9, 7), (6, 5, 4), (6, 3, 2)]


def test_the_head_knows_no_batch() -> None:
    norms = [m for m in DetectionHead((8, 16), 16, 2).modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    assert [type(norm) for norm in norms] == [nn.GroupNorm] * 8


def test_layers_are_sorted_frozen_and_finished_as_the_backbones_are() -> None:
    model = fresh("msresnet_micro")
    depths = layer_depths(model)
    assert depths["head.classifier.weight"] == max(depths.values())
    assert depths["neck.pyramid.lateral.0.0.weight"] == max(depths.values())
    assert min(depths.values()) == 0
    freeze(model, 1)
    assert not next(iter(model.body.parameters())).requires_grad  # type: ignore[union-attr]
    assert {"head.classifier.weight", "head.classifier.bias"} <= last_layers(model)


def test_new_classes_leave_boxes_alone() -> None:
    model = fresh("msresnet_micro").eval()
    x = contract.images(model)
    with torch.no_grad():
        before = model(x)
        model.reset_classifier(2)
        after = model(x)
    assert after.shape[2] == 6
    assert torch.equal(before[..., :4], after[..., :4])


def test_published_weights_fill_the_backbone(tmp_path: Path) -> None:
    donor = randomised(create_model("resnet18", num_classes=7, img_size=64))
    path = tmp_path / "weights.safetensors"
    save_file(donor.state_dict(), path)
    model = create_detector("resnet18", pretrained=path, num_classes=2, img_size=64)
    mine = model.body.state_dict()
    assert mine
    assert all(torch.equal(tensor, donor.state_dict()[name]) for name, tensor in mine.items())


@pytest.mark.parametrize("finest", [0, 3, True, "4", 64, -4])
def test_a_finest_map_that_cannot_be(finest: object) -> None:
    with pytest.raises(UsageError, match="finest"):
        create_network("detector", "msresnet_micro", finest=finest)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="divides the resolution by 32"):
        create_network("detector", "msdnet20", finest=8)
    with pytest.raises(UsageError, match="pyramid_width"):
        create_network("detector", "msresnet_micro", pyramid_width=0)
    with pytest.raises(UsageError, match="needs the whole map"):
        fresh("msresnet_micro").reset_classifier(3, "avg")
    assert "finest" in network_arguments("detector", "msresnet_micro")
    assert "finest" not in MODELS["msresnet_micro"].arguments

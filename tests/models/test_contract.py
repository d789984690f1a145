"""What every model promises, checked for whatever is registered."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from msresnet.errors import UsageError
from msresnet.models.base import FeatureExtractor, ImageModel
from msresnet.models.cost import count_macs
from msresnet.models.factory import create_classifier, create_model, list_models
from msresnet.nn.grammar import OPERATORS
from randomise import randomised, relative_error

SIDE = 28
ANY_SIZE = [name for name in list_models() if name != "article_cnn"]


@pytest.fixture(params=list_models())
def model(request: pytest.FixtureRequest) -> ImageModel:
    torch.manual_seed(0)
    return create_classifier(request.param, num_classes=5, in_chans=2, img_size=SIDE)


def images(batch: int = 2, height: int = SIDE, width: int = SIDE, chans: int = 2) -> torch.Tensor:
    return torch.randn(batch, chans, height, width, generator=torch.Generator().manual_seed(1))


def test_every_parameter_gets_a_gradient(model: ImageModel) -> None:
    randomised(model).train()
    (model(images(4)) * torch.randn(4, 5)).sum().backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


def test_samples_do_not_influence_each_other(model: ImageModel) -> None:
    randomised(model)
    x = images(3)
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(x[i : i + 1]) for i in range(3)])
    assert relative_error(alone, together) < 1e-5


def test_declared_features_are_true(model: ImageModel) -> None:
    model.eval()
    maps = model.forward_stages(images())
    modules = dict(model.named_modules())
    assert len(maps) == len(model.feature_info)
    for info, stage in zip(model.feature_info, maps, strict=True):
        assert stage.shape[1] == info.num_chs
        assert stage.shape[2] <= -(-SIDE // info.reduction) + 1
        assert info.module in modules
    assert model.attribution_layer in modules
    assert model.forward_features(images()).shape[1] == model.num_features


def test_classifier_can_be_removed_and_replaced(model: ImageModel) -> None:
    model.eval()
    features = model.forward_features(images())
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.head_hidden_size)
    model.reset_classifier(0)
    assert torch.equal(model(images()), pooled)
    model.reset_classifier(9)
    assert model(images()).shape == (2, 9)


def test_intermediates_are_the_stages(model: ImageModel) -> None:
    model.eval()
    x = images()
    final, maps = model.forward_intermediates(x)
    assert torch.equal(final, model.forward_features(x))
    last = model.forward_intermediates(x, indices=1, intermediates_only=True)
    assert torch.equal(last[0], maps[-1])
    early = model.forward_intermediates(x, indices=[0], stop_early=True, intermediates_only=True)
    assert torch.equal(early[0], maps[0])
    with pytest.raises(UsageError, match="does not exist"):
        model.forward_intermediates(x, indices=[17])


def test_channels_last_and_bf16_agree(model: ImageModel) -> None:
    randomised(model)
    x = images()
    with torch.no_grad():
        plain = model(x)
        swapped = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert relative_error(swapped(x.contiguous(memory_format=torch.channels_last)), plain) < 1e-5
        with torch.autocast("cpu", torch.bfloat16):
            assert relative_error(model(x).float(), plain) < 0.1


def test_checkpointed_gradients_agree(model: ImageModel) -> None:
    randomised(model).train()
    grads = []
    for enable in (False, True):
        network = copy.deepcopy(model)
        network.set_grad_checkpointing(enable)
        network(images(4)).square().sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert torch.allclose(grads[0], grads[1], rtol=1e-4, atol=1e-6)


def test_weights_move_between_two_of_a_kind(model: ImageModel) -> None:
    randomised(model)
    other = create_classifier_like(model)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(other.eval()(images()), model(images()))


def create_classifier_like(model: ImageModel) -> nn.Module:
    return copy.deepcopy(model).apply(lambda m: m.reset_parameters() if isinstance(m, nn.Conv2d | nn.Linear) else None)


@pytest.mark.parametrize("name", ANY_SIZE)
@pytest.mark.parametrize("size", [(33, 97), (37, 32)])
def test_any_image_size(name: str, size: tuple[int, int]) -> None:
    model = create_classifier(name, num_classes=3, img_size=size).eval()
    assert model(images(1, *size, chans=3)).shape == (1, 3)


@pytest.mark.parametrize("name", ANY_SIZE)
def test_features_only(name: str) -> None:
    network = create_model(name, features_only=True, out_indices=(1, -1), in_chans=2, img_size=SIDE)
    assert isinstance(network, FeatureExtractor)
    maps = network.eval()(images())
    assert [m.shape[1] for m in maps] == network.feature_info.channels()
    assert len(network.feature_info.reduction()) == len(network.feature_info.module_name()) == 2


@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("gate", ["none", "bn", "scale"])
def test_inter_layer_shortcuts(levels: int, gate: str) -> None:
    model = create_classifier("msresnet_micro", num_classes=3, shortcut_levels=levels, gate=gate)
    randomised(model).train()
    model(images(4, chans=3)).square().sum().backward()
    shortcuts = {n: p for n, p in model.named_parameters() if "shortcut" in n}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in shortcuts.values())
    assert bool([n for n in shortcuts if n.startswith("body_shortcut")]) == (levels == 3)
    assert model(images(2, 33, 47, chans=3)).shape == (2, 3)


def test_multi_stage_head_sees_every_stage() -> None:
    model = create_classifier("resnet18", num_classes=3, multi_stage=True).eval()
    assert model.num_features == 64 + 128 + 256 + 512
    assert model.forward_features(images(1, 65, 97, chans=3)).shape == (1, 960, 3, 4)


@pytest.mark.parametrize(("pool", "width"), [("max", 512), ("catavgmax", 1024)])
def test_global_pool_is_the_callers_choice(pool: str, width: int) -> None:
    model = create_classifier("resnet18", num_classes=3, global_pool=pool)
    assert model.head_hidden_size == width
    assert model.eval()(images(1, 32, 32, chans=3)).shape == (1, 3)


def test_unpooled_output_is_a_map() -> None:
    model = create_classifier("resnet18", num_classes=0, global_pool="").eval()
    assert model(images(1, 64, 64, chans=3)).shape == (1, 512, 2, 2)


def test_macs_of_a_known_network() -> None:
    """arXiv 1512.03385, table 1, counts 1.8 G for resnet18; the exact sum is 1.814 G."""
    assert count_macs(create_classifier("resnet18")) == pytest.approx(1.814e9, rel=1e-3)
    assert count_macs(create_classifier("resnet50")) == pytest.approx(4.09e9, rel=1e-2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "resnet19"}, "resnet18"),
        ({"name": "resnet18", "num_clases": 3}, "num_classes"),
        ({"name": "resnet18", "pretrained": True}, "no published weights"),
        ({"name": "resnet18", "out_indices": (1,)}, "features_only"),
        ({"name": "article_cnn", "img_size": 20}, "22"),
        ({"name": "article_cnn", "drop_path_rate": 0.1, "img_size": 28}, "no residual blocks"),
        ({"name": "resnet18", "shortcut_levels": 4}, "one of 1, 2, 3"),
        ({"name": "resnet18", "stem": "smal"}, "one of imagenet, deep, small"),
        ({"name": "resnet18", "gate": "foo"}, "one of none, bn, scale"),
        ({"name": "resnet18", "block": "foo"}, "one of basic"),
        ({"name": "resnet18", "projection": "foo"}, "one of conv1x1"),
        ({"name": "resnet18", "operator": "plane"}, "plain"),
        ({"name": "resnet18", "strides": [1, 2]}, "do not fit together"),
        ({"name": "resnet18", "widths": "abcd"}, "whole numbers"),
        ({"name": "resnet18", "depths": [2, 2, 2, "x"]}, "whole numbers"),
        ({"name": "resnet18", "depths": [2, 2, 2, 10**9]}, "whole numbers"),
        ({"name": "resnet18", "global_pool": "mean"}, "catavgmax"),
    ],
)
def test_wrong_arguments_are_answered(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        create_model(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "msresnet_micro"])
@pytest.mark.parametrize("operator", OPERATORS.names())
def test_every_operator_in_every_kind_of_network(name: str, operator: str) -> None:
    if operator == "pyramid" and name == "msresnet_micro":
        with pytest.raises(UsageError, match="the groups must divide both"):
            create_classifier(name, operator=operator)
        return
    model = randomised(create_classifier(name, num_classes=3, operator=operator, shortcut_levels=3, img_size=32))
    other = create_classifier(name, num_classes=3, operator=operator, shortcut_levels=3, img_size=32).eval()
    other.load_state_dict(model.state_dict())
    x = images(1, 32, 33, chans=3)
    with torch.no_grad():
        assert torch.equal(other(x), model(x))


def test_counting_leaves_the_mode_alone() -> None:
    model = create_classifier("msresnet_micro", img_size=28).train()
    assert count_macs(model) > 0
    assert model.training


def test_list_models_takes_patterns() -> None:
    assert list_models("res2*") == ["res2net50_26w_4s"]
    assert {"msresnet10", "msresnet18", "msresnet34", "msresnet50", "msresnet_micro"} == set(list_models("ms*"))

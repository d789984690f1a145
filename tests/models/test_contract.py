"""Every network keeps its promises (contract.py); what single networks take, and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import contract
from msresnet.errors import UsageError
from msresnet.models.base import Config, Family, FeatureInfo, ImageModel, StageInfo
from msresnet.models.cost import count_macs
from msresnet.models.factory import MODELS, create_classifier, create_model, list_models, register
from msresnet.models.families import FAMILIES
from msresnet.nn.grammar import OPERATORS
from oracles import timm
from randomise import randomised

FIRST = [*{family.title: next(iter(family.members)) for family in reversed(FAMILIES)}.values(), "msresnet_micro"]
"""One of each family: the first in its table, which is a small one."""
OTHERS = [name for name in list_models() if name not in FIRST]
EXPORTED = ("msresnet_micro", "skresnet18")


def names(check: contract.Check) -> str:
    return check.__name__


@pytest.mark.parametrize("check", contract.CHECKS, ids=names)
@pytest.mark.parametrize("name", [*FIRST, *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)])
def test_contract(name: str, check: contract.Check) -> None:
    check(contract.fresh(name))


@pytest.mark.parametrize("check", contract.TOOL_CHECKS, ids=names)
@pytest.mark.parametrize(
    "name", [*EXPORTED, *(pytest.param(n, marks=pytest.mark.slow) for n in list_models() if n not in EXPORTED)]
)
@pytest.mark.filterwarnings("ignore")  # torch's exporter and compiler warn of themselves
def test_traced_and_exported(name: str, check: contract.Check) -> None:
    check(contract.fresh(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST)
@pytest.mark.filterwarnings("ignore")
def test_compiled(name: str) -> None:
    contract.compiled_agrees(contract.fresh(name))


@dataclass(frozen=True)
class ToySpec:
    """A row of a family that nobody has seen before."""

    width: int = 8


class Toy(ImageModel):
    """Two convolutions: all that a new family has to write."""

    def __init__(self, spec: ToySpec, config: Config) -> None:
        super().__init__(config)
        if config.drop_path_rate:
            raise UsageError("a toy has no drop_path_rate")
        self.spec = spec
        self.conv1 = nn.Sequential(
            nn.Conv2d(config.in_chans, spec.width, 3, 2, 1), nn.BatchNorm2d(spec.width), nn.ReLU()
        )
        self.conv2 = nn.Sequential(nn.Conv2d(spec.width, spec.width, 3, 2, 1), nn.BatchNorm2d(spec.width), nn.ReLU())
        self.feature_info = FeatureInfo([StageInfo(spec.width, 2 * i, f"conv{i}") for i in (1, 2)])
        self.num_features, self.attribution_layer = spec.width, "conv2"
        self.add_classifier()

    def forward_stages(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        first = self.run_stage(self.conv1, x)
        return [first] if last == 0 else [first, self.run_stage(self.conv2, first)]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^conv1", "blocks": r"^conv(\d+)"}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    """A new family, registered and nothing more."""
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    register(Family("Toy", "", Toy, {"toy": ToySpec()}))
    return "toy"


@pytest.mark.parametrize("check", [*contract.CHECKS, *contract.TOOL_CHECKS], ids=names)
@pytest.mark.filterwarnings("ignore")  # torch's exporter and compiler warn of themselves
def test_a_new_family_is_covered_by_its_registration(toy: str, check: contract.Check) -> None:
    assert toy in list_models("to*")
    check(contract.fresh(toy))


def test_a_name_is_registered_once(toy: str) -> None:
    with pytest.raises(ValueError, match="registered twice"):
        register(Family("Toy", "", Toy, {toy: ToySpec()}))


def images(batch: int = 2, height: int = 28, width: int = 28, chans: int = 2) -> Tensor:
    return torch.randn(batch, chans, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("gate", ["none", "bn", "scale"])
def test_inter_layer_shortcuts(levels: int, gate: str) -> None:
    model = create_classifier("msresnet_micro", num_classes=3, in_chans=3, shortcut_levels=levels, gate=gate)
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
        ({"name": "msresnet18", "pretrained": True}, "no published weights"),
        ({"name": "resnet18", "stem": "smal"}, "one of imagenet, unpooled, deep, small"),
        ({"name": "resnet18", "exits": "yes"}, "one of True, False"),
        ({"name": "resnet18", "num_classes": -1}, "a whole number from 0"),
        ({"name": None}, "not a model's name"),
        ({"name": "resnet18", "img_size": "224"}, "or .height, width."),
        ({"name": "resnet18", "img_size": (3, 224, 224)}, "or .height, width."),
        ({"name": "resnet50", "base_width": 1, "widths": (8, 8, 8, 8)}, "operators of"),
        ({"name": "resnet18", "operator": ["plain", ["online", "radix"], "plain", "plain"]}, "one operator a stage"),
        ({"name": "msdnet20", "factors": [1] * 900}, "at most 8"),
        ({"name": "resnet18", "drop_path_rate": 1.5}, "under 1"),
        ({"name": "resnet18", "features_only": True, "out_indices": -1}, "an int: the last n"),
        ({"name": "resnet18", "features_only": True, "out_indices": "1"}, "the network has stages 0 to 4"),
        ({"name": "resnet18", "num_classes": 3, "global_pool": ""}, "num_classes=0"),
        ({"name": "msdnet20", "layers": [4, "x"]}, "whole numbers"),
        ({"name": "msdnet20", "stem": "deep"}, "one of imagenet, small"),
        ({"name": "msdnet20", "drop_path_rate": 0.1}, "no residual branches"),
        ({"name": "resnet18", "out_indices": (1,)}, "features_only"),
        ({"name": "article_cnn", "img_size": 20}, "22"),
        ({"name": "article_cnn", "drop_path_rate": 0.1, "img_size": 28}, "no residual blocks"),
        ({"name": "resnet18", "shortcut_levels": 4}, "one of 1, 2, 3"),
        ({"name": "resnet18", "gate": "foo"}, "one of none, bn, conv, scale"),
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
    arguments: dict[str, Any] = {"num_classes": 3, "in_chans": 3, "operator": operator, "shortcut_levels": 3}
    model = randomised(create_classifier(name, img_size=32, **arguments))
    other = create_classifier(name, img_size=32, **arguments).eval()
    other.load_state_dict(model.state_dict())
    x = images(1, 32, 33, chans=3)
    with torch.no_grad():
        assert torch.equal(other(x), model(x))


def test_counting_leaves_the_mode_alone() -> None:
    model = create_classifier("msresnet_micro", img_size=28).train()
    assert count_macs(model) > 0
    assert model.training


def test_list_models_takes_patterns() -> None:
    assert list_models("res2net50_2*") == ["res2net50_26w_4s", "res2net50_26w_6s", "res2net50_26w_8s"]
    assert {"msresnet10", "msresnet18", "msresnet34", "msresnet50", "msresnet101", "msresnet_micro"} == set(
        list_models("msres*")
    )
    assert list_models(["ror*", "article*"], exclude_filters="*_1*") == ["ror3_56", "article_cnn"]
    assert "res2net50_26w_4s" in list_models(pretrained=True)
    assert not list_models("msresnet*", pretrained=True)


def test_stages_are_sequences_of_blocks() -> None:
    model = create_classifier("resnet18")
    assert len(model.layer4) == 2  # type: ignore[arg-type]
    assert model.layer4[-1] is model.get_submodule("layer4.1")  # type: ignore[index]


def test_features_of_dla_begin_at_half_the_resolution() -> None:
    info = create_model("dla34", features_only=True).feature_info
    assert info.channels() == [32, 64, 128, 256, 512]  # type: ignore[union-attr, operator]
    assert info.reduction() == [2, 4, 8, 16, 32]  # type: ignore[union-attr, operator]


def test_feature_info_is_asked_as_timms_is() -> None:
    theirs = timm().create_model("resnet18", features_only=True, out_indices=(1, 3)).feature_info
    ours: Any = create_model("resnet18", features_only=True, out_indices=(1, 3)).feature_info
    for question in ("channels", "reduction", "module_name"):
        assert getattr(ours, question)() == getattr(theirs, question)()
        assert getattr(ours, question)(1) == getattr(theirs, question)(1)
    assert ours[-1]["num_chs"] == theirs[-1]["num_chs"]
    assert tuple(ours.out_indices) == tuple(theirs.out_indices)
    assert [d["num_chs"] for d in ours.get_dicts()] == [64, 256]
    assert "num_chs=512" in repr(ours)


@pytest.mark.parametrize("name", ["msresnet18", "msresnet_micro", "resnetv2_18"])
@pytest.mark.parametrize("levels", [1, 3])
def test_exits_on_any_residual_network(name: str, levels: int) -> None:
    """The last exit is the network itself; the others stand after each stage, and samples can leave between them."""
    model = create_classifier(name, num_classes=4, in_chans=2, exits=True, shortcut_levels=levels, multi_stage=True)
    randomised(model)
    x = images(5, 40, 33)
    with torch.no_grad():
        answers = model(x, exits=True)
        assert len(answers) == model.num_exits == len(model.stages())  # type: ignore[operator]
        torch.testing.assert_close(answers[-1], model(x), rtol=1e-5, atol=1e-5)
        state, _ = model.advance([x], 0)
        stay = torch.tensor([True, False, True, False, False])
        _, later = model.advance([t[stay] for t in state], 1)
        torch.testing.assert_close(later, answers[1][stay], rtol=1e-5, atol=1e-5)

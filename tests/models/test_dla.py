"""DLA against timm number by number, against published counts, and at sizes that timm's does not take."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import nn

from msresnet.errors import UsageError
from msresnet.models.base import Config
from msresnet.models.dla import DLA, DLA_ROWS, DLASpec
from msresnet.nn.blocks import ResidualBlock
from msresnet.nn.grammar import OPERATORS, res2net
from msresnet.nn.shortcuts import DropPath
from oracles import timm
from randomise import randomised, relative_error

TINY = DLASpec((1, 2, 2, 1), (4, 4, 6, 8, 10, 12))


def build(name: str, **config: Any) -> DLA:
    return DLA(DLA_ROWS[name], Config(**config))


def images(height: int, width: int, batch: int = 2, chans: int = 3) -> torch.Tensor:
    return torch.randn(batch, chans, height, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", ["dla34", "dla60_res2net"])
@pytest.mark.parametrize("size", [(33, 97), (100, 100), (225, 190)])
def test_odd_sizes_are_timms_once_its_pools_keep_the_border(name: str, size: tuple[int, int]) -> None:
    theirs, ours = randomised(timm().create_model(name)), build(name).eval()
    ours.load_state_dict(theirs.state_dict())
    x = images(*size, batch=1)
    with pytest.raises(RuntimeError, match="size"):
        theirs(x)
    for module in theirs.modules():
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = True
    with torch.no_grad():
        assert relative_error(ours(x), theirs(x)) < 1e-5
        shapes = [tuple(-(-side // s.reduction) for side in size) for s in ours.feature_info]
        assert [m.shape[-2:] for m in ours.forward_stages(x)] == shapes


def test_a_root_sees_blocks_of_all_depths_below_it() -> None:
    """Section 3.2 of the paper, counted by hand for a tree of depth 3 from C to D channels, its input joined too.

    The last root reads its own two blocks, the tree of depth 2 in the second half, the first half, and the input.
    """
    spec = DLASpec((1, 3, 1, 1), (4, 4, 6, 8, 10, 12))
    inputs, ours, model = 6, 8, DLA(spec, Config())
    widths = {
        path: m.in_channels
        for path, m in model.named_modules()
        if isinstance(m, nn.Conv2d) and path.startswith("level3") and path.endswith("root.conv")
    }
    assert widths == {
        "level3.tree1.tree1.root.conv": 2 * ours,
        "level3.tree1.tree2.root.conv": 3 * ours,
        "level3.tree2.tree1.root.conv": 2 * ours,
        "level3.tree2.tree2.root.conv": 4 * ours + inputs,
    }


def test_the_authors_unused_projections_are_named() -> None:
    """Their files give each tree a projection, those of trees of trees too: 21.15 M with them, for dla60_res2net."""
    with torch.device("meta"):
        model = build("dla60_res2net")
    unused = {
        f"{tree}.project.{entry}": shape
        for tree, (i, o) in {"level3": (128, 256), "level4": (256, 512), "level4.tree1": (256, 512)}.items()
        for entry, shape in {"0.weight": i * o, "1.weight": o, "1.bias": o, "1.running_var": o}.items()
    }
    trained = sum(n for key, n in unused.items() if "running" not in key)
    assert (sum(p.numel() for p in model.parameters()) + trained) / 1e6 == pytest.approx(21.15, abs=0.005)
    assert all(re.fullmatch(model.unused_weights, key) for key in unused)
    for name in DLA_ROWS:
        with torch.device("meta"):
            model = build(name)
        assert not [key for key in model.state_dict() if re.fullmatch(model.unused_weights, key)]


def test_small_stem_keeps_the_resolution() -> None:
    for spec, size in ((replace(TINY, stem="small"), (224, 224)), (replace(TINY, stem=None), (32, 32))):
        model = DLA(spec, Config(img_size=size, in_chans=1)).eval()
        assert model.feature_info.reduction() == [1, 1, 1, 2, 4, 8]
        maps = model.forward_stages(images(32, 29, chans=1))
        assert [tuple(m.shape[-2:]) for m in maps] == [*[(32, 29)] * 3, (16, 15), (8, 8), (4, 4)]
    assert DLA(replace(TINY, stem=None), Config(img_size=(96, 200))).feature_info.reduction()[-1] == 32


def test_drop_path_grows_linearly_over_the_blocks() -> None:
    """2 + 4 + 4 + 2 blocks: the k-th drops its residual at rate * k / 11."""
    model = DLA(TINY, Config(drop_path_rate=0.55)).eval()
    order: list[ResidualBlock] = []
    for module in model.modules():
        if isinstance(module, ResidualBlock):
            module.register_forward_hook(lambda block, *_: order.append(block))
    model(images(32, 32))
    rates = [b.drop_path.probability if isinstance(b.drop_path, DropPath) else 0.0 for b in order]
    assert rates == pytest.approx([0.05 * i for i in range(12)])


def test_layers_in_timms_order() -> None:
    """timm sorts the names by our patterns: each layer's inputs come from layers before it."""
    model = DLA(TINY, Config())
    for coarse in (False, True):
        layers = timm().models.group_parameters(model, model.group_matcher(coarse))
        place = {n: i for i, names in enumerate(layers.values() if isinstance(layers, dict) else layers) for n in names}
        assert place.keys() == dict(model.named_parameters()).keys()
        order = [place[f"{path}.weight"] for path in WAY]
        assert order == sorted(order)
        assert order[0] == 0
        assert order[-2] < order[-1] == max(place.values())


WAY = (
    "base_layer.0",
    "level0.0",
    "level1.0",
    "level2.project.0",
    "level2.tree1.conv1",
    "level2.tree2.conv1",
    "level2.root.conv",
    "level3.tree1.project.0",
    "level3.tree1.tree1.conv1",
    "level3.tree1.root.conv",
    "level3.tree2.tree1.conv1",
    "level3.tree2.root.conv",
    "level5.tree1.conv1",
    "level5.root.conv",
    "fc",
)


def test_the_classifier_reads_vectors_and_maps() -> None:
    """A 1x1 convolution answers for every place of an unpooled map; averaged, that is the pooled answer."""
    places = cast(DLA, randomised(DLA(TINY, Config(num_classes=7, global_pool=""))))
    pooled = DLA(TINY, Config(num_classes=7)).eval()
    pooled.load_state_dict(places.state_dict())
    x = images(64, 96)
    assert places(x).shape == (2, 7, 2, 3)
    assert pooled(x).shape == (2, 7)
    assert relative_error(pooled(x), places(x).mean((2, 3))) < 1e-5


@pytest.mark.parametrize("operator", OPERATORS.names())
def test_every_operator_fits(operator: str) -> None:
    spec = replace(DLA_ROWS["dla60"], depths=(1, 1, 1, 1), operator=OPERATORS[operator])
    spec = replace(spec, scale=4 if operator == "res2net" else 1)
    model = DLA(spec, Config(num_classes=3)).eval()
    assert model(images(33, 47, batch=1)).shape == (1, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"depths": (1, 2, 2)}, "4 of them"),
        ({"depths": (1, 2, 2, 20)}, "from 1 to 8"),
        ({"depths": "1221"}, "whole numbers"),
        ({"widths": (16, 32, 64, 128, 256, 0)}, "whole numbers"),
        ({"widths": (16, 32, 64, 128, 256, 10**9)}, "whole numbers"),
        ({"base_width": 2.5}, "base_width=2.5"),
        ({"cardinality": True}, "cardinality=True"),
        ({"block": "bottleneck", "base_width": 1}, "channels inside"),
        ({"block": "bottleneck", "scale": 10_000}, "channels inside"),
        ({"block": "elastic"}, "one of basic, bottleneck"),
        ({"residual_root": "yes"}, "one of True, False"),
        ({"stem": "deep"}, "one of imagenet, small, None"),
        ({"operator": "plane"}, "plain"),
        ({"operator": 3}, "operator=3"),
    ],
)
def test_wrong_settings_are_answered(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        DLASpec(**arguments)


def test_settings_from_a_file_are_as_good() -> None:
    given: dict[str, Any] = {"depths": [1, 2, 3, 1], "widths": [16, 32, 128, 256, 512, 1024], "operator": "res2net"}
    assert DLASpec(**given, block="bottleneck", scale=4, base_width=28) == DLA_ROWS["dla60_res2net"]
    assert DLA_ROWS["dla60_res2net"].operator == res2net(4)

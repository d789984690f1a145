"""HRNet against timm number by number, against published counts, and at sizes that timm's does not take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from msresnet.errors import UsageError
from msresnet.models.base import Config
from msresnet.models.hrnet import HRNET_ROWS, HRNet, HRNetSpec
from msresnet.nn.blocks import BasicBlock, Bottleneck
from msresnet.nn.shortcuts import DropPath
from oracles import timm
from randomise import randomised, relative_error

TINY = HRNetSpec(width=6, modules=(1, 2, 1), depth=1, first_depth=1, first_width=4)
SMALLEST = replace(TINY, modules=(1, 1, 1))


def build(name: str, **config: Any) -> HRNet:
    return HRNet(HRNET_ROWS[name], Config(**config))


def tiny(**config: Any) -> HRNet:
    return HRNet(TINY, Config(**{"num_classes": 3, **config}))


def images(height: int, width: int, batch: int = 2, chans: int = 3) -> torch.Tensor:
    return torch.randn(batch, chans, height, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("size", [(33, 97), (100, 100), (225, 190), (32, 47)])
def test_odd_sizes_are_timms_once_it_is_told_the_size(size: tuple[int, int]) -> None:
    """timm upsamples by a factor, which fits multiples of 32 only; with the target's size it takes any image."""
    name = "hrnet_w18_small"
    theirs, ours = randomised(timm().create_model(name)), build(name).eval()
    ours.load_state_dict(theirs.state_dict())
    x = images(*size, batch=1)
    shapes = [tuple(-(-side // 2**power) for side in size) for power in (2, 3, 4, 5)]
    with pytest.raises(RuntimeError, match="must match the size"):
        theirs(x)
    for path, module in theirs.named_modules():
        if isinstance(module, nn.Upsample):
            target = int(path.split("fuse_layers.")[1].split(".")[0])
            module.scale_factor, module.size = None, shapes[target]
    with torch.no_grad():
        assert relative_error(ours(x), theirs(x)) < 1e-5
        assert [m.shape[-2:] for m in ours.forward_stages(x)[1:]] == shapes


def test_small_stem_keeps_the_resolution() -> None:
    for spec, size in ((replace(SMALLEST, stem="small"), (224, 224)), (replace(SMALLEST, stem=None), (32, 32))):
        model = HRNet(spec, Config(img_size=size, in_chans=1)).eval()
        assert model.feature_info.reduction() == [1, 1, 2, 4, 8]
        maps = model.forward_stages(images(32, 29, chans=1))
        assert [tuple(m.shape[-2:]) for m in maps] == [(32, 29), (32, 29), (16, 15), (8, 8), (4, 4)]
    large = HRNet(replace(SMALLEST, stem=None), Config(img_size=(96, 200)))
    assert large.feature_info.reduction() == [2, 4, 8, 16, 32]


def test_drop_path_grows_linearly_along_every_stream() -> None:
    """A row of n blocks on any way through the network: the k-th drops its residual at rate * k / (n - 1)."""
    model = tiny(drop_path_rate=0.6)
    blocks = [m for m in model.modules() if isinstance(m, BasicBlock | Bottleneck)]
    rates = [m.drop_path.probability if isinstance(m.drop_path, DropPath) else 0.0 for m in blocks]
    steps = [0.0, *[1 / 5] * 2, *[2 / 5] * 3, *[3 / 5] * 3, *[4 / 5] * 4, *[1.0] * 4]
    assert rates == pytest.approx([0.6 * s for s in steps])


def test_layers_in_timms_order() -> None:
    """timm sorts the names by our patterns: each layer's inputs come from layers before it."""
    model = tiny()
    helpers = timm().models
    for coarse in (False, True):
        layers = helpers.group_parameters(model, model.group_matcher(coarse))
        place = {
            name: i for i, names in enumerate(layers.values() if isinstance(layers, dict) else layers) for name in names
        }
        assert place.keys() == dict(model.named_parameters()).keys()
        order = [place[f"{path}.weight"] for path in WAY]
        assert order == sorted(order)
        assert order[0] == 0
        assert order[-2] < order[-1] == max(place.values())


WAY = (
    "conv1",
    "conv2",
    "layer1.0.conv1",
    "transition1.1.0.0",
    "stage2.0.branches.0.0.conv1",
    "stage2.0.fuse_layers.1.0.0.0",
    "transition2.2.0.0",
    "stage3.0.branches.0.0.conv1",
    "stage3.1.branches.0.0.conv1",
    "transition3.3.0.0",
    "stage4.0.branches.0.0.conv1",
    "incre_modules.0.0.conv1",
    "final_layer.0",
    "classifier",
)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"width": 0}, "width=0"),
        ({"width": 10**6}, "width=1000000"),
        ({"width": True}, "width=True"),
        ({"first_width": "64"}, "first_width='64'"),
        ({"depth": 1.5}, "depth=1.5"),
        ({"depth": 900}, "blocks one after another"),
        ({"first_depth": -1}, "first_depth=-1"),
        ({"modules": (1, 4)}, "3 of them"),
        ({"modules": "143"}, "3 of them"),
        ({"modules": [1, 4, None]}, "1, 4, None"),
        ({"stem": "deep"}, "one of imagenet, small, None"),
    ],
)
def test_wrong_settings_are_answered(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        HRNetSpec(**arguments)


def test_settings_from_a_file_are_as_good() -> None:
    assert HRNetSpec(modules=[1, 4, 3]) == HRNetSpec()  # type: ignore[arg-type]

"""Which channels matter, how many stay, and that taking out what does nothing changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from msresnet.bundle import Bundle, load_bundle
from msresnet.data.preprocess import Preprocess
from msresnet.data.sets import Decoded
from msresnet.deploy.compress.pruning import chosen, matters, prunable, without
from msresnet.errors import UsageError
from msresnet.models.factory import create_network
from msresnet.nn.surgery import blocks_of
from msresnet.tasks.classification import ClassificationTask
from randomise import randomised

SIDE, IMAGES = 12, 6


def bundle_of(name: str, **more: Any) -> Bundle:
    """An untrained model whose every number matters."""
    torch.manual_seed(0)
    arguments = {"num_classes": 3, "in_chans": 1, "img_size": [SIDE, SIDE], **more}
    model = create_network("classifier", name, **arguments)
    randomised(model)
    task = ClassificationTask(["a", "b", "c"])
    return Bundle(model, name, arguments, task, Preprocess((SIDE, SIDE), 1, mean=(0.4,), std=(0.3,)), licence="CC0-1.0")


def samples() -> Decoded:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (IMAGES, 1, SIDE, SIDE), dtype=np.uint8))
    return Decoded(images, torch.tensor([0, 1, 2, 0, 1, 2]), [str(i) for i in range(IMAGES)])


def all_of(data: Decoded) -> Tensor:
    return torch.arange(len(data))


def test_how_much_a_channel_matters_is_how_much_the_loss_changes_when_it_fades() -> None:
    bundle, data = bundle_of("msresnet_micro"), samples()
    blocks = prunable(bundle)
    scores = matters(bundle, blocks, data, all_of(data))
    path, faded = "layer2.0", 0.01
    images, encoded = bundle.preprocess.tensor(data.images), bundle.task.encode(data.targets)
    conv = bundle.model.get_submodule(f"{path}.conv2")

    def losses(gate: int, factor: float) -> Tensor:
        def fade(_module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            values = given[0].clone()
            values[:, gate] *= factor
            return (values,)

        handle = conv.register_forward_pre_hook(fade)
        with torch.no_grad():
            found = bundle.task.loss_of_each(bundle.model(images), encoded).double()
        handle.remove()
        return found

    for gate in range(0, blocks[path].width, 7):
        slope = (losses(gate, 1 + faded) - losses(gate, 1 - faded)) / (2 * faded)
        measured = float(slope.square().mean())
        assert float(scores[path][gate]) == pytest.approx(measured, rel=0.05, abs=1e-7)


@pytest.mark.parametrize("name", ["msresnet_micro", "resnet20"])
def test_what_stays_costs_no_more_than_was_asked(name: str) -> None:
    bundle, data = bundle_of(name), samples()
    blocks = prunable(bundle)
    scores = matters(bundle, blocks, data, all_of(data))
    shares = []
    for keep in (0.9, 0.6, 0.45):
        small = without(bundle, blocks, scores, chosen(bundle, blocks, scores, keep))
        shares.append(small.macs / bundle.macs)
        assert shares[-1] <= keep
        assert small.params < bundle.params
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.7  # and not much less either


def test_what_cannot_be_reached_is_refused_and_the_least_named() -> None:
    bundle, data = bundle_of("msresnet_micro"), samples()
    blocks = prunable(bundle)
    scores = matters(bundle, blocks, data, all_of(data))
    with pytest.raises(UsageError, match=r"--keep 0\.01") as caught:
        chosen(bundle, blocks, scores, 0.01)
    least = float(caught.value.hint.split()[1].rstrip(","))
    assert chosen(bundle, blocks, scores, least)


def test_dead_channels_go_first_and_change_nothing(tmp_path: Path) -> None:
    bundle, data = bundle_of("msresnet_micro"), samples()
    for path, block in blocks_of(bundle.model).items():
        norm = block.bn1
        assert isinstance(norm, nn.BatchNorm2d)
        dead = torch.arange(0, block.spec.width, 2) if path != "layer1.0" else torch.arange(0)
        norm.weight.data[dead] = 0
        norm.bias.data[dead] = -1
    blocks = prunable(bundle)
    scores = matters(bundle, blocks, data, all_of(data))
    small = without(bundle, blocks, scores, chosen(bundle, blocks, scores, 0.95))
    images = bundle.preprocess.tensor(data.images)
    with torch.no_grad():
        assert torch.allclose(small.model(images), bundle.model(images), atol=1e-5)
    assert small.macs < bundle.macs
    assert small.licence == "CC0-1.0"
    again = load_bundle(small.save(tmp_path / "small"))  # what is written can be built from its arguments alone
    assert torch.equal(again.model(images), small.model(images))


@pytest.mark.parametrize("name", ["skresnet18", "resnest14d", "article_cnn"])
def test_networks_without_such_channels_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="taken out exactly"):
        prunable(bundle_of(name, **({"img_size": [28, 28]} if name == "article_cnn" else {})))

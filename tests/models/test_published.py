"""Networks against published figures, and against timm number by number."""

from __future__ import annotations

import pytest
import torch

from msresnet.models.factory import create_classifier
from oracles import timm
from randomise import randomised, relative_error

# Torchvision's model tables for ResNet; for Res2Net the paper's repository (25.70 M), and timm for the exact count.
PUBLISHED = {"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "res2net50_26w_4s": 25_699_120}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    assert sum(p.numel() for p in create_classifier(name).parameters()) == PUBLISHED[name]


def test_the_article_network_has_its_parameters() -> None:
    model = create_classifier("article_cnn", num_classes=10, in_chans=1, img_size=28)
    assert sum(p.numel() for p in model.parameters()) == 110_474


def test_micro_is_no_larger_than_the_article_network() -> None:
    model = create_classifier("msresnet_micro", num_classes=10, in_chans=1, img_size=28)
    assert sum(p.numel() for p in model.parameters()) <= 110_474


@pytest.mark.parametrize("name", PUBLISHED)
def test_timm_weights_give_timm_outputs_features_and_gradients(name: str) -> None:
    theirs = randomised(timm().create_model(name))
    ours = create_classifier(name)
    assert [(k, v.shape) for k, v in sorted(ours.state_dict().items())] == [
        (k, v.shape) for k, v in sorted(theirs.state_dict().items())
    ]
    ours.load_state_dict(theirs.state_dict())
    ours.eval()
    for size in ((64, 64), (75, 97)):
        x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        out, expected = ours(a), theirs(b)
        assert relative_error(out, expected) < 1e-5
        assert relative_error(ours.forward_features(x), theirs.forward_features(x)) < 1e-5  # type: ignore[operator]
        out.square().sum().backward()
        expected.square().sum().backward()
        assert a.grad is not None
        assert b.grad is not None
        assert relative_error(a.grad, b.grad) < 1e-4

"""Deletion and insertion against plain loops, and against models of which the right order is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import sobel
from sklearn.metrics import auc
from torch import Tensor

from explained import bundle, picture
from msresnet.bundle import Bundle
from msresnet.explain.attribution import attribute, blurred, full_size
from msresnet.explain.faithfulness import BLUR, CONTROLS, edge_map, faithfulness, random_map


def asked(made: Bundle, count: int = 3) -> tuple[Tensor, Tensor]:
    """Normalised images of a bundle's size and classes to ask about."""
    height, width = made.preprocess.size
    images = [picture(height, width, made.preprocess.channels, seed=i) for i in range(count)]
    return made.preprocess.tensor(torch.from_numpy(np.stack(images))), torch.arange(count) % 3


def probability(made: Bundle, image: Tensor, target: int) -> float:
    with torch.no_grad():
        return float(made.model(image[None]).softmax(1)[0, target])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_curves_are_those_of_plain_loops(channels: int) -> None:
    made, steps = bundle(channels=channels), 7
    x, targets = asked(made)
    maps = torch.rand(3, 20, 20)
    found = faithfulness(made, x, targets, maps, steps)
    for i in range(3):
        order = np.argsort(-maps[i].numpy().ravel(), kind="stable")
        deleted, inserted = x[i].clone(), blurred(x[i : i + 1], BLUR)[0]
        for step in range(steps + 1):
            share = order[: round(step * 400 / steps)]
            deleted.view(channels, -1)[:, share] = 0
            inserted.view(channels, -1)[:, share] = x[i].view(channels, -1)[:, share]
            assert found.deletion[i, step] == pytest.approx(probability(made, deleted, int(targets[i])), abs=1e-5)
            assert found.insertion[i, step] == pytest.approx(probability(made, inserted, int(targets[i])), abs=1e-5)
    places = np.linspace(0, 1, steps + 1)
    deletion, insertion = found.areas()
    assert np.allclose(deletion, [auc(places, row) for row in found.deletion])
    assert np.allclose(insertion, [auc(places, row) for row in found.insertion])


def test_both_begin_and_end_alike_whatever_the_map() -> None:
    made = bundle()
    x, targets = asked(made, 1)
    curves = [faithfulness(made, x, targets, control(x)) for control in CONTROLS.values()]
    for side in (0, -1):
        assert curves[0].deletion[0, side] == pytest.approx(curves[1].deletion[0, side], abs=1e-6)
        assert curves[0].insertion[0, side] == pytest.approx(curves[1].insertion[0, side], abs=1e-6)
    assert curves[0].insertion[0, -1] == pytest.approx(curves[0].deletion[0, 0], abs=1e-6)


def test_the_true_order_is_best_and_its_reverse_worst() -> None:
    """To first order, at least: each pixel times the gradient of the logit less the others'."""
    made = bundle("article_cnn", 28)
    x, targets = asked(made, 1)
    x = x.requires_grad_()
    gradient = torch.autograd.grad(made.model(x)[0, 0] - made.model(x)[0, 1:].mean(), x)[0]
    importance = (gradient * x).sum(1).detach()
    areas = [faithfulness(made, x.detach(), targets, maps).areas() for maps in (importance, random_map(x), -importance)]
    deletion, insertion = zip(*((float(d[0]), float(i[0])) for d, i in areas), strict=True)
    assert deletion[0] < deletion[1] < deletion[2]
    assert insertion[0] > insertion[2]


def test_only_the_order_of_a_map_counts() -> None:
    made = bundle()
    x, targets = asked(made, 1)
    maps = attribute(made, x, targets, "occlusion")
    one = faithfulness(made, x, targets, full_size(maps, (20, 20)))
    other = faithfulness(made, x, targets, 4 * maps)  # exact in binary
    assert np.array_equal(one.deletion, other.deletion)


def test_edges_are_sobels() -> None:
    x = torch.rand(2, 3, 12, 15, dtype=torch.float64)
    grey = x.mean(1).numpy()
    expected = [np.hypot(sobel(g, 0, mode="nearest"), sobel(g, 1, mode="nearest")) for g in grey]
    assert np.allclose(edge_map(x.float()).numpy(), expected, atol=1e-5)


def test_the_random_map_is_the_same_each_time_and_another_for_each_image() -> None:
    x = torch.zeros(2, 1, 9, 9)
    assert torch.equal(random_map(x), random_map(x))
    assert not torch.equal(random_map(x)[0], random_map(x)[1])


def test_i16_a_single_pixel_can_be_measured() -> None:
    made = bundle("resnet18", 1, stem="small")
    x, targets = asked(made, 1)
    for control in CONTROLS.values():
        deletion, insertion = faithfulness(made, x, targets, control(x)).areas()
        assert 0 <= deletion[0] <= 1
        assert 0 <= insertion[0] <= 1

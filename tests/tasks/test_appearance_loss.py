"""The loss of vectors against the paper's formula in plain Python, and who is who on its way from the data to it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from msresnet.data.augment import Augment
from msresnet.data.augment_boxes import augment_boxes
from msresnet.data.draws import Draws
from msresnet.data.options import DataOptions
from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import Relabelled, Subset
from msresnet.data.splits import read_any
from msresnet.data.targets import NOTHING, padded, rows_of
from msresnet.tasks.appearance_loss import MOST, TEMPERATURE, appearance_loss
from msresnet.tasks.assignment import assigned
from msresnet.tasks.detection import DetectionTask

STRIDES = (4, 8)


def vectors(count: int, seed: int = 0) -> Tensor:
    """Random vectors of length 1, places of one image."""
    return F.normalize(torch.randn(1, count, 8, generator=torch.Generator().manual_seed(seed)), dim=2)


def test_it_is_the_supervised_contrastive_loss() -> None:
    who = torch.tensor([[1.0, 1, 2, 0, 2, 2, 3, -1]])
    given = vectors(who.shape[1])
    known = [(given[0, i].tolist(), int(who[0, i])) for i in range(who.shape[1]) if who[0, i] > 0]
    terms = []
    for i, (mine, me) in enumerate(known):
        others = [
            (sum(a * b for a, b in zip(mine, z, strict=True)) / TEMPERATURE, w)
            for j, (z, w) in enumerate(known)
            if j != i
        ]
        bottom = math.log(sum(math.exp(s) for s, _ in others))
        same = [s - bottom for s, w in others if w == me]
        if same:
            terms.append(-sum(same) / len(same))
    assert float(appearance_loss(given, who)) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_vectors_of_one_object_are_drawn_together() -> None:
    who = torch.tensor([[1.0, 1, 2, 2]])
    given = vectors(4).requires_grad_()
    before = float(appearance_loss(given, who).detach())
    for _ in range(50):
        loss = appearance_loss(F.normalize(given, dim=2), who)
        (gradient,) = torch.autograd.grad(loss, given)
        given = (given - gradient).detach().requires_grad_()
    found = F.normalize(given, dim=2)[0] @ F.normalize(given, dim=2)[0].T
    assert float(loss.detach()) < before
    assert min(found[0, 1], found[2, 3]) > found[:2, 2:].max() + 0.5


@pytest.mark.parametrize("numbers", [[0.0, 0, -1], [1.0, 2, 3], []])
def test_nobody_to_be_like_costs_nothing(numbers: list[float]) -> None:
    given = vectors(len(numbers)).requires_grad_()
    loss = appearance_loss(given, torch.tensor(numbers).view(1, -1))
    loss.backward()
    assert float(loss.detach()) == 0
    assert given.grad is not None
    assert not given.grad.any()


def test_very_many_places_are_thinned_out() -> None:
    who = torch.arange(5 * MOST).remainder(7).add(1).float().view(1, -1)
    assert torch.isfinite(appearance_loss(vectors(5 * MOST), who))


def test_who_is_who_comes_with_the_boxes_through_subsets_and_other_names() -> None:
    source = read_any("digit-videos", DataOptions(workers=0))[0]["val"]
    preprocess = Preprocess((128, 160), 1)
    everyone = [source.identities(index) for index in range(len(source))]
    assert len({int(n) for who in everyone if who is not None for n in who}) > 20  # no number in two videos
    for index in (0, 70, 239):
        rows = rows_of(source, index, preprocess)
        who = everyone[index]
        assert who is not None
        assert rows[:, 6].tolist() == who.tolist()
        part = Subset(source, np.array([index]))
        names = Relabelled(part, [*source.classes, "another"])
        assert torch.equal(rows_of(names, 0, preprocess), rows)
    scenes = read_any("digit-scenes", DataOptions(workers=0))[0]["val"]
    assert scenes.identities(0) is None
    assert rows_of(scenes, 0, preprocess).shape[1] == 6
    assert DetectionTask.suggested(source) == {"embedding": 128}
    assert DetectionTask.suggested(scenes) == {}


def test_changes_and_assignment_keep_who_with_the_box() -> None:
    rows = [
        torch.tensor([[k, 8.0 * k, 4, 8 * k + 12, 20, 0, 10 + k] for k in range(count)]).view(-1, 7)
        for count in (3, 0, 2, 4)
    ]
    boxes, images = padded(rows), torch.rand(4, 1, 40, 48)
    assert boxes.shape == (4, 4, 7)
    settings = Augment(mosaic=0.8, flip=0.5, shift=0.1, scale=0.4)
    _, changed = augment_boxes(images, boxes, settings, Draws(1, 4, 0))
    there = changed[changed[..., 0] != NOTHING]
    assert len(there) > 4
    assert torch.equal(there[:, 6], there[:, 0] + 10)  # the class says who it is
    learnt = assigned(changed, (40, 48), STRIDES)
    assert learnt.shape[2] == 6
    objects = learnt[learnt[..., 0] >= 0]
    assert torch.equal(objects[:, 5], objects[:, 0] + 10)
    assert torch.equal(learnt[..., :5], assigned(changed[..., :6], (40, 48), STRIDES))


def test_a_task_learns_vectors_where_it_can_and_boxes_as_ever() -> None:
    task = DetectionTask(["a", "b", "c", "d"], size=(40, 48), strides=STRIDES)
    both = torch.tensor([[0.0, 2, 2, 34, 34, 0, 1], [1, 12, 6, 46, 38, 0, 2]])
    boxes = padded([both, both])
    encoded = task.encode(boxes)
    outputs = torch.randn(2, encoded.shape[1], 8, generator=torch.Generator().manual_seed(0))
    outputs[..., 2:4] += 50
    plain = task.loss(outputs, encoded[..., :5])
    assert torch.equal(task.loss(outputs, encoded), plain)  # a network without vectors
    looks = F.normalize(torch.ones(2, encoded.shape[1], 8), dim=2)
    assert float(task.loss(torch.cat([outputs, looks], 2), encoded[..., :5])) == pytest.approx(float(plain))
    assert float(task.loss(torch.cat([outputs, looks], 2), encoded)) > float(plain)
    assert torch.equal(task.per_class(torch.cat([outputs, looks], 2)), task.per_class(outputs))


def test_answers_carry_the_vectors_of_their_places() -> None:
    task = DetectionTask(["a", "b"])
    outputs = torch.full((1, 3, 4 + 2 + 3), -9.0)
    outputs[0, :, :4] = torch.tensor([[0.0, 0, 4, 4], [10, 10, 20, 20], [11, 10, 20, 20]])
    outputs[0, :, 4] = torch.tensor([1.0, 2, 3])
    outputs[0, :, 6:] = torch.eye(3)
    found: Any = task.decode(outputs, ["a.png"])
    assert found.appearances is not None
    assert found.appearances[0].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert found.above(0.9).appearances[0].tolist() == [[0, 0, 1]]
    assert len(type(found).joined([found, found]).appearances) == 2
    assert task.decode(outputs[..., :6], ["a.png"]).appearances is None  # type: ignore[attr-defined]

"""What is minimised: a teacher's answers, the weights of classes, and what a student gains."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.data.preprocess import Preprocess
from msresnet.errors import ModelError, UsageError
from msresnet.models.factory import create_classifier
from msresnet.tasks.base import class_weights
from msresnet.tasks.classification import ClassificationTask
from msresnet.tasks.segmentation import SegmentationTask
from msresnet.train.fit import fit
from msresnet.train.objective import Objective, Teacher
from tiny import config

CPU = torch.device("cpu")
PREPROCESS = Preprocess((24, 24), 1, mean=(0.4,), std=(0.2,))


def bundle(names: Sequence[str] = ("a", "b", "c"), preprocess: Preprocess = PREPROCESS) -> Bundle:
    torch.manual_seed(0)
    arguments = {"num_classes": len(names), "in_chans": preprocess.channels, "img_size": list(preprocess.size)}
    model = create_classifier("msresnet_micro", **arguments).eval()
    return Bundle(model, "msresnet_micro", arguments, ClassificationTask(names), preprocess)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_teacher_answers_in_the_students_order_of_classes() -> None:
    teacher = Teacher(bundle(), ("c", "a", "b"), PREPROCESS, CPU)
    images = random(4, 1, 24, 24)
    with torch.no_grad():
        expected = bundle().model(PREPROCESS.normalise(images))
    assert torch.allclose(teacher(images), expected[:, [2, 0, 1]], atol=1e-6)


def test_a_teacher_sees_images_at_its_own_size() -> None:
    small = Teacher(bundle(preprocess=replace(PREPROCESS, size=(12, 12))), ("a", "b", "c"), PREPROCESS, CPU)
    assert small(random(2, 1, 24, 24)).shape == (2, 3)


@pytest.mark.parametrize(("names", "channels"), [(("a", "b"), 1), (("a", "b", "d"), 1), (("a", "b", "c"), 3)])
def test_teachers_of_other_things_are_refused(names: tuple[str, ...], channels: int) -> None:
    with pytest.raises(UsageError, match="teacher"):
        Teacher(bundle(), names, replace(PREPROCESS, channels=channels), CPU)


@pytest.mark.parametrize(
    "changes", [{"threshold": "otsu"}, {"threshold": "otsu", "binary": True}, {"threshold": "90"}, {"resize": "pad"}]
)
def test_a_teacher_of_images_that_something_else_is_done_to_is_refused(changes: dict[str, Any]) -> None:
    other = replace(PREPROCESS, **changes)
    for its, mine in ((other, PREPROCESS), (PREPROCESS, other)):
        with pytest.raises(UsageError, match="takes other images") as caught:
            Teacher(bundle(preprocess=its), ("a", "b", "c"), mine, CPU)
        assert its.steps() in str(caught.value)
        assert mine.steps() in str(caught.value)
    resized = replace(other, size=(12, 12), mean=(0.1,), std=(0.3,))
    assert Teacher(bundle(preprocess=resized), ("a", "b", "c"), other, CPU).preprocess == resized


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_imitation_is_the_divergence_of_softened_answers(temperature: float) -> None:
    mine, theirs = random(6, 3) * 8, random(6, 3, seed=1) * 8
    p = (theirs / temperature).softmax(1).double()
    q = (mine / temperature).softmax(1).double()
    by_hand = (p * (p / q).log()).sum(1).mean() * temperature**2
    task = ClassificationTask(("a", "b", "c"))
    assert torch.allclose(task.imitate(mine, theirs, temperature).double(), by_hand, atol=1e-5)
    assert float(task.imitate(theirs, theirs, temperature)) == pytest.approx(0, abs=1e-6)


def test_the_share_of_the_teacher_is_what_was_asked() -> None:
    task, images, outputs = ClassificationTask(("a", "b", "c"), 0.1), random(5, 1, 24, 24), random(5, 3)
    encoded = task.encode(torch.tensor([0, 1, 2, 0, 1]))
    teacher = Teacher(bundle(), ("a", "b", "c"), PREPROCESS, CPU)
    alone = Objective(task, PREPROCESS)([outputs], images, encoded)
    taught = Objective(task, PREPROCESS, teacher, 0.25, 3.0)([outputs], images, encoded)
    imitated = task.imitate(outputs, teacher(images), 3.0)
    assert torch.allclose(taught, 0.75 * alone + 0.25 * imitated)
    assert torch.equal(alone, task.loss(outputs, encoded))


def test_class_weights_are_scikit_learns() -> None:
    targets = np.repeat([0, 1, 2], [40, 8, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=targets)
    assert class_weights(np.bincount(targets, minlength=3).tolist()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_weighted_loss_is_torchs_over_the_batch() -> None:
    weights, outputs = [0.5, 2.0, 4.0], random(6, 3)
    targets = torch.tensor([0, 1, 2, 2, 1, 0])
    task = ClassificationTask(("a", "b", "c"), 0.0, weights)
    each = F.cross_entropy(outputs, targets, reduction="none") * torch.tensor(weights)[targets]
    assert torch.allclose(task.loss(outputs, task.encode(targets)), each.mean())


@pytest.mark.parametrize("counts", [(950, 50), (990, 10), (5000, *[20] * 9)])
def test_a_weighted_loss_is_least_at_the_truth_itself(counts: tuple[int, ...]) -> None:
    """However rare another class is, and however small an object in a mask. A mixture is answered by its shares."""
    names, smoothing = [str(i) for i in range(len(counts))], 0.05
    shares = torch.eye(len(counts))
    mixed = torch.cat((shares, 0.7 * shares + 0.3 * shares.roll(1, 0)))
    best = ((1 - smoothing) * mixed + smoothing / len(counts)).log().requires_grad_()
    task, pixels = (kind(names, smoothing, class_weights(counts)) for kind in (ClassificationTask, SegmentationTask))
    (slope,) = torch.autograd.grad(task.loss(best, mixed), best)  # convex in the logits
    assert slope.abs().max() < 1e-6
    maps = best[: len(counts), :, None, None]
    (slope,) = torch.autograd.grad(pixels.loss(maps, torch.arange(len(counts)).view(-1, 1, 1)), maps)
    assert slope.abs().max() < 1e-6


def test_a_student_trains_beside_its_teacher_through_a_bundle(bars: Path, tmp_path: Path) -> None:
    teacher = fit(config(bars, epochs=3)).bundle.save(tmp_path / "teacher")
    settings = config(bars, epochs=2, teacher=str(teacher), teacher_share=0.5)
    taught, alone = fit(settings), fit(replace(settings, teacher=None))
    assert taught.history[-1]["train_loss"] != alone.history[-1]["train_loss"]
    assert f"teacher {teacher}: msresnet_micro, 24x24 pixels, 0.5 of the loss" in taught.notes
    assert not any("teacher" in note for note in alone.notes)
    with pytest.raises(ModelError):
        fit(replace(settings, teacher=str(tmp_path / "nobody")))


def test_logits_that_are_no_numbers_have_no_loss() -> None:
    logits = torch.tensor([[1.0, torch.inf], [0.0, 1.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ClassificationTask(["a", "b"]).validation_figures(logits, torch.tensor([0, 1]))
    assert (found["top1"], found["balanced_accuracy"], math.isnan(found["loss"])) == (0.0, 0.0, True)

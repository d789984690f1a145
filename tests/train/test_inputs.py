"""What a step learns from: which images, and how they are changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tiny import plan_for, trainer


@pytest.mark.parametrize(("until", "mixed"), [(0.0, (False, False)), (0.5, (True, False)), (1.0, (True, True))])
def test_images_are_mixed_until_a_share_of_the_training(bars: Path, until: float, mixed: tuple[bool, bool]) -> None:
    plan = plan_for(bars, epochs=2, batch_size=16, mixup=1.0, mix_until=until)
    training = trainer(plan)
    for epoch, expected in enumerate(mixed):
        training.state.epoch = epoch
        targets = torch.cat([given.targets for given in training.inputs.epoch(training.state)])
        assert bool(((targets > 0) & (targets < 1)).any()) == expected
        assert torch.allclose(targets.sum(1), torch.ones(len(targets)))


def test_a_step_is_a_function_of_its_seed(bars: Path) -> None:
    training = trainer(plan_for(bars, batch_size=16, flip=0.5, shift=0.2, rotate=20.0, policy=0.5))
    first, second = (next(training.inputs.epoch(training.state)) for _ in range(2))
    assert torch.equal(first.images, second.images)
    other = training.inputs.given(first.batch, replace(first.step, seed=first.step.seed + 1), 0.0)
    assert not torch.equal(first.images, other.images)

"""Which images an epoch learns from: what is left out is well known, and a stopped run leaves out the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from msresnet.errors import Interrupted, UsageError
from msresnet.runtime import StopRequest
from msresnet.train.checkpoint import newest_checkpoint
from msresnet.train.observer import Silent
from msresnet.train.selection import Selection
from tiny import config, pictures, plan_for, same, trainer

COUNT = 10_000


def selection(share: float, losses: Tensor | None = None) -> Selection:
    """Of images whose losses are known."""
    found = Selection(torch.zeros(COUNT, dtype=torch.int64), config(Path(), skip_easy=share))
    if losses is not None:
        found.learnt(torch.arange(COUNT), losses)
    return found


def test_every_hard_image_and_a_share_of_the_easy_ones_are_learnt_from() -> None:
    losses = torch.rand(COUNT, generator=torch.Generator().manual_seed(0)) ** 4  # mean 0.2, most below it
    known = losses < losses.mean()
    one, other = (selection(0.75, losses).order(epoch, 0.5, begun=False) for epoch in (3, 4))
    for order in (one, other):
        assert len(order.unique()) == len(order)
        assert set((~known).nonzero()[:, 0].tolist()) <= set(order.tolist())
        # Four standard deviations of a binomial draw.
        assert abs(int(known[order].sum()) - 0.25 * int(known.sum())) < 4 * (0.1875 * int(known.sum())) ** 0.5
    assert set(one.tolist()) != set(other.tolist())


def test_the_first_epoch_and_the_end_learn_from_all() -> None:
    everything = set(range(COUNT))
    assert set(selection(0.9).order(0, 0.0, begun=False).tolist()) == everything
    assert set(selection(0.9, torch.arange(COUNT)).order(9, 0.95, begun=False).tolist()) == everything


def test_images_that_are_equally_hard_are_all_kept() -> None:
    assert len(selection(0.9, torch.ones(COUNT)).order(1, 0.5, begun=False)) == COUNT


class _Watcher(Silent):
    """Notes each step's epoch and loss, and asks to stop at one of them."""

    def __init__(self, stop: StopRequest | None = None, at: tuple[int, int] = (-1, -1)) -> None:
        self.stop, self.at, self.steps = stop, at, list[tuple[int, float]]()

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self.steps.append((epoch, loss))
        if self.stop is not None and (epoch, step) == self.at:
            self.stop.code = 143


def test_F5_a_run_that_stops_in_an_epoch_goes_on_with_what_the_epoch_began_with(bars: Path, tmp_path: Path) -> None:
    plan = plan_for(bars, epochs=6, batch_size=4, skip_easy=0.5, val_fraction=0.0)
    straight, stop = _Watcher(), StopRequest()
    whole = trainer(plan, observer=straight)
    whole.run()
    steps = Counter(epoch for epoch, _ in straight.steps)
    assert steps[0] == len(plan.train) // 4 > min(steps.values())
    first, second = _Watcher(stop, (2, 2)), _Watcher()
    with pytest.raises(Interrupted):
        trainer(plan, tmp_path, first, stop).run()
    again = trainer(plan, tmp_path, second)
    tensors, state, _ = newest_checkpoint(tmp_path)
    again.restore(tensors, state, "")
    again.run()
    assert first.steps + second.steps == straight.steps
    assert same(whole.network.state_dict(), again.network.state_dict())


def test_it_does_not_go_with_balanced_drawing() -> None:
    with pytest.raises(UsageError, match="--skip-easy"):
        config(Path(), skip_easy=0.5, balance="sample")


def test_the_image_with_the_wrong_label_is_the_one_that_is_never_known(tmp_path: Path) -> None:
    data = pictures(tmp_path / "bars", per_class=24)
    (data / "lying" / "23.png").rename(data / "standing" / "wrong.png")
    plan = plan_for(data, epochs=8, batch_size=8, skip_easy=0.5, val_fraction=0.0, test_fraction=0.0, augment="none")
    done = trainer(plan)
    done.run()
    assert plan.train.ids[int(done.selection.losses.argmax())].endswith("wrong.png")

"""Several training sizes, the finishing part, and what the network then is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msresnet.bundle import Bundle
from msresnet.errors import Interrupted, UsageError
from msresnet.models.cost import count_macs
from msresnet.models.factory import create_network
from msresnet.runtime import StopRequest
from msresnet.train.checkpoint import newest_checkpoint
from msresnet.train.layers import last_layers
from msresnet.train.observer import Silent
from msresnet.train.sizes import plan_sizes
from tiny import config, plan_for, same, trainer


def sizes(size: tuple[int, int] = (96, 64), batch: int = 32, **settings: Any) -> Any:
    return plan_sizes(config(Path(), **settings), size, batch)


def test_one_size_is_the_size_of_use_from_beginning_to_end() -> None:
    plan = sizes()
    assert {plan.at(p / 10, 0.5).size for p in range(11)} == {(96, 64)}
    assert not plan.at(1.0, 0.5).finishing
    assert plan.describe() == ""


def test_progressive_sizes_rise_and_have_equal_shares() -> None:
    plan = sizes(train_sizes=(96, 48, 72))
    seen = [plan.at(p / 300, 0.9).size for p in range(300)]
    assert seen == sorted(seen)
    assert set(Counter(seen).values()) == {100}
    assert {s[0] / s[1] for s in seen} == {1.5}  # the form stays


@given(st.floats(0, 1), st.floats(0, 0.999))
def test_random_sizes_follow_the_draw_alone(progress: float, draw: float) -> None:
    plan = sizes(train_sizes=(24, 48, 72, 96), size_schedule="random")
    assert plan.at(progress, draw).size[0] == (24, 48, 72, 96)[int(draw * 4)]


@pytest.mark.parametrize("finish", [0.05, 0.15, 0.3, 0.35])
def test_any_share_may_finish_at_any_number_of_epochs(bars: Path, finish: float) -> None:
    training = trainer(plan_for(bars, epochs=20, batch_size=16, finish=finish))
    training.state.finishing = True
    for training.state.epoch in range(20):
        assert 0 <= training._pace().factor <= 0.1


def test_an_odd_batch_is_as_asked_and_progress_ends_at_one(bars: Path) -> None:
    plan = plan_for(bars, epochs=2, batch_size=5)
    assert plan.sizes.moments[0].batch == 5
    training = trainer(plan)
    training.run()
    assert training.state.seen == 2 * (len(plan.train) // 5) * 5
    training.state.epoch, training.state.position = 1, len(plan.train) // 5 * 5
    assert training.progress == 1.0


def test_operations_end_a_training_and_smaller_images_cost_less_of_them(bars: Path) -> None:
    limit = 3 * 100 * count_macs(trainer(plan_for(bars)).viewer, (24, 24))  # the price of 100 images of 24 pixels
    settings = {"image_size": (24,), "batch_size": 4, "operations": float(limit)}
    one = trainer(plan_for(bars, epochs=None, **settings))
    one.run()
    assert one.state.seen == 100
    assert one.progress == 1.0
    two = trainer(plan_for(bars, epochs=None, train_sizes=(12, 24), size_batches=(4, 4), **settings))
    two.run()
    assert limit <= two.state.operations < limit + 3 * 4 * count_macs(two.viewer, (24, 24))
    assert two.state.seen > 150
    assert [plan_for(bars, epochs=epochs, **settings).epochs for epochs in (None, 3)] == [float("inf"), 3]


def test_a_teachers_operations_count(bars: Path, tmp_path: Path) -> None:
    plan = plan_for(bars, image_size=(24,), model="resnet18")
    network = create_network(plan.task.head, plan.model, **plan.arguments).eval()
    Bundle(network, plan.model, plan.arguments, plan.task, plan.preprocess).save(tmp_path / "teacher")
    student = 3 * count_macs(trainer(plan_for(bars, image_size=(12,))).viewer)
    limit = float(100 * (student + count_macs(network)))
    taught = trainer(
        plan_for(bars, epochs=None, image_size=(12,), batch_size=4, operations=limit, teacher=str(tmp_path / "teacher"))
    )
    taught.run()
    assert (taught.state.seen, taught.state.operations) == (100, limit)


def test_operations_go_on_exactly_where_they_were(bars: Path, tmp_path: Path) -> None:
    settings = {"image_size": (24,), "train_sizes": (12, 24), "size_batches": (4, 4), "batch_size": 4}
    limit = 3 * 120 * count_macs(trainer(plan_for(bars)).viewer, (24, 24))
    plan = plan_for(bars, epochs=None, operations=float(limit), **settings)
    whole = trainer(plan)
    whole.run()
    stop = StopRequest()

    class Stopping(Silent):
        def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            if (epoch, step) == (2, 3):
                stop.code = 143

    with pytest.raises(Interrupted):
        trainer(plan, tmp_path, Stopping(), stop).run()
    again = trainer(plan, tmp_path)
    again.restore(*newest_checkpoint(tmp_path)[:2], "")
    again.run()
    assert again.state.operations == whole.state.operations
    assert same(again.network.state_dict(), whole.network.state_dict())


def test_sizes_that_the_network_cannot_take_are_refused_before_training(bars: Path) -> None:
    with pytest.raises(UsageError):
        plan_for(bars, model="article_cnn", image_size=(28,), train_sizes=(12, 28))


def test_smaller_images_come_in_larger_batches_of_about_the_same_pixels() -> None:
    plan = sizes(train_sizes=(48, 96))
    assert [m.batch for m in plan.moments] == [128, 32]
    asked = sizes(train_sizes=(48, 96), size_batches=(40, 20))
    assert [m.batch for m in asked.moments] == [40, 20]


def test_the_last_share_is_at_the_size_of_use() -> None:
    plan = sizes(train_sizes=(48,), finish=0.25)
    assert not plan.at(0.749, 0).finishing
    assert plan.at(0.749, 0).size == (48, 32)
    assert plan.at(0.75, 0).finishing
    assert plan.at(1.0, 0).size == (96, 64)
    assert "only classifier and normalisation" in plan.describe()


def test_training_enlarges_no_image() -> None:
    with pytest.raises(UsageError, match="--train-sizes 128"):
        sizes(train_sizes=(128,))


@pytest.mark.parametrize(
    "settings",
    [
        {"size_batches": (3,)},
        {"train_sizes": (24, 48), "size_batches": (3,)},
        {"train_sizes": (1,)},
        {"train_sizes": (24,), "size_batches": (1,)},
    ],
)
def test_contradictions_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        config(Path(), **settings)


def test_the_network_sees_the_sizes_and_the_finish_moves_only_the_last_layers(bars: Path) -> None:
    plan = plan_for(bars, epochs=8, batch_size=4, train_sizes=(12, 16), image_size=(24,), finish=0.5, ema=0.0)
    training = trainer(plan)
    seen: list[int] = []

    def see(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        seen.append(given[0].shape[-1])

    training.network.register_forward_pre_hook(see)
    before: dict[str, torch.Tensor] = {}
    begin = training._begin_finishing

    def remember() -> None:
        before.update({n: t.clone() for n, t in training.network.state_dict().items()})
        begin()

    training._begin_finishing = remember  # type: ignore[method-assign]
    training.run()
    trained = [s for s in seen if s != 24]
    assert trained == sorted(trained)
    assert set(seen) == {12, 16, 24}
    after, learning = training.network.state_dict(), last_layers(training.network)
    changed = {n for n in after if not torch.equal(after[n], before[n])}
    assert {n for n in changed if "running" not in n and "tracked" not in n} <= learning
    assert "fc.weight" in changed


@pytest.mark.parametrize("chosen", [{"optimizer": "muon"}, {"schedule": "one-cycle"}], ids=str)
def test_F5_a_finishing_run_continues_as_if_never_stopped(bars: Path, tmp_path: Path, chosen: dict[str, Any]) -> None:
    settings = {"epochs": 6, "batch_size": 4, "train_sizes": (12, 24), "finish": 0.5} | chosen
    whole = trainer(plan_for(bars, **settings))
    whole.run()

    for place in ((1, 1), (4, 2)):
        stop, folder = StopRequest(), tmp_path / str(place[0])

        class Stopping(Silent):
            def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
                if (epoch, step) == place:  # noqa: B023 - used at once
                    stop.code = 143  # noqa: B023

        with pytest.raises(Interrupted):
            trainer(plan_for(bars, **settings), folder, Stopping(), stop).run()
        again = trainer(plan_for(bars, **settings), folder)
        again.restore(*newest_checkpoint(folder)[:2], "")
        assert again.state.finishing == (place[0] >= 3)
        again.run()
        assert same(again.best, whole.best)
        assert same(again.network.state_dict(), whole.network.state_dict())

"""Schedules, optimisers and averaged weights against their formulas and against torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from msresnet.models import create_model
from msresnet.tasks.classification import ClassificationTask
from msresnet.train.optimiser import (
    AT_ONCE,
    EVERY,
    AveragedWeights,
    Pace,
    build_optimizer,
    default_lr,
    load_optimizer_tensors,
    optimizer_tensors,
    pace,
    set_pace,
    total_norm,
)
from tiny import config

SHARES = st.floats(0, 1)


@given(SHARES, SHARES, st.floats(0.01, 0.9))
def test_cosine_rises_in_the_warm_up_and_falls_after_it(one: float, other: float, warmup: float) -> None:
    early, late = sorted((one, other))
    before, after = pace("cosine", early, warmup).factor, pace("cosine", late, warmup).factor
    assert 0 < before <= 1
    if late < warmup:
        assert before <= after
    if early >= warmup:
        assert before >= after


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "linear"])
def test_schedules_reach_the_top_and_end_near_zero(schedule: str) -> None:
    factors = [pace(schedule, i / 1000, 0.1).factor for i in range(1001)]
    assert max(factors) == pytest.approx(1, abs=1e-6)
    assert factors[-1] <= 1e-3
    assert factors[0] < 0.05


def test_one_cycle_moves_the_momentum_against_the_learning_rate() -> None:
    paces = [pace("one-cycle", i / 100, 0.1) for i in range(101)]
    momenta = [p.momentum for p in paces if p.momentum is not None]
    top = max(range(101), key=lambda i: paces[i].factor)
    assert top == momenta.index(min(momenta)) == 30
    assert (momenta[0], momenta[top], momenta[-1]) == pytest.approx((0.95, 0.85, 0.95))


def test_a_pace_reaches_every_group() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    for name, key in (("adamw", "betas"), ("sgd", "momentum")):
        optimizer = build_optimizer(model, config(Path(), optimizer=name), 0.5, 0.1)
        set_pace(optimizer, 0.5, Pace(0.5, 0.9))
        found = [(g["lr"], g[key][0] if key == "betas" else g[key]) for g in optimizer.param_groups]
        assert found == [(0.25, 0.9), (0.25, 0.9)]


def test_one_dimension_is_never_decayed() -> None:
    model = create_model("msresnet_micro", num_classes=3, in_chans=1, img_size=28)
    optimizer = build_optimizer(model, config(Path()), 0.01, 0.3)
    decayed = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert {id(p) for p in model.parameters()} == set(decayed)
    assert all(decayed[id(p)] == (0.3 if p.ndim > 1 else 0) for p in model.parameters())


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_steps_equal_those_of_torch(name: str) -> None:
    mine, theirs = nn.Linear(5, 4), nn.Linear(5, 4)
    theirs.load_state_dict(mine.state_dict())
    groups = [{"params": [theirs.weight], "weight_decay": 0.1}, {"params": [theirs.bias], "weight_decay": 0.0}]
    reference: torch.optim.Optimizer
    if name == "adamw":
        reference = torch.optim.AdamW(groups, 0.05, betas=(0.9, 0.99), foreach=False, fused=False)
    else:
        reference = torch.optim.SGD(groups, 0.05, momentum=0.9, nesterov=True, foreach=False, fused=False)
    optimizer = build_optimizer(mine, config(Path(), optimizer=name), 0.05, 0.1)
    for seed in range(5):
        x = torch.randn(7, 5, generator=torch.Generator().manual_seed(seed))
        for model, stepped in ((mine, optimizer), (theirs, reference)):
            stepped.zero_grad()
            model(x).square().sum().backward()
            stepped.step()
    torch.testing.assert_close(mine.weight, theirs.weight, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mine.bias, theirs.bias, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_F5_a_restored_optimiser_goes_on_as_if_never_stopped(name: str) -> None:
    """Fused kernels walk memory, so a state that lies in another order than its weights mixes them up."""

    def steps(optimizer: torch.optim.Optimizer, weight: Tensor, seeds: range) -> None:
        for seed in seeds:
            torch.manual_seed(seed)
            weight.grad = torch.randn(8, 4, 3, 3).contiguous(memory_format=torch.channels_last)
            optimizer.step()

    def fresh(start: Tensor) -> tuple[nn.Conv2d, torch.optim.Optimizer]:
        layer = nn.Conv2d(4, 8, 3, bias=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            layer.weight.copy_(start)
        return layer, build_optimizer(layer, config(Path(), optimizer=name), 0.1, 0.0)

    whole, optimizer = fresh(torch.ones(8, 4, 3, 3))
    steps(optimizer, whole.weight, range(3))
    saved = {key: t.clone().contiguous() for key, t in optimizer_tensors(optimizer).items()}
    again, restored = fresh(whole.weight.detach())
    load_optimizer_tensors(restored, saved)
    steps(optimizer, whole.weight, range(3, 6))
    steps(restored, again.weight, range(3, 6))
    assert torch.equal(whole.weight, again.weight)


def test_averaged_weights_equal_a_plain_loop() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = AveragedWeights(model, 0.9)
    expected = {name: t.clone() for name, t in model.state_dict().items()}
    for step in range(1, 150):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        model(torch.randn(4, 3))
        average.update()
        every = 1 if step <= AT_ONCE else EVERY
        if step % every:
            continue
        decay = min(0.9, (1 + step) / (10 + step)) ** every
        for name, t in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * t if t.is_floating_point() else t.clone()
    for name, t in average.state.items():
        torch.testing.assert_close(t, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [3, 60, 1000])
def test_averaging_now_and_then_is_as_good_as_after_each_step(steps: int) -> None:
    """Weights that move by one in each step: the average is behind them by as many steps, but for the last few."""
    layer, expected = nn.Linear(1, 1, bias=False), 0.0
    nn.init.zeros_(layer.weight)
    average = AveragedWeights(layer, 0.99)
    for step in range(1, steps + 1):
        with torch.no_grad():
            layer.weight.add_(1)
        average.update()
        decay = min(0.99, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert average.state["weight"].item() == pytest.approx(expected, abs=EVERY if steps > AT_ONCE else 1e-3)


@given(st.floats(0, 0.9), st.integers(2, 6))
def test_label_smoothing_is_that_of_torch(smoothing: float, classes: int) -> None:
    outputs, targets = torch.randn(5, classes), torch.randint(classes, (5,))
    task = ClassificationTask([str(i) for i in range(classes)], smoothing)
    expected = nn.CrossEntropyLoss(label_smoothing=smoothing)(outputs, targets)
    torch.testing.assert_close(task.loss(outputs, task.encode(targets)), expected)


def test_default_rates_follow_the_batch_size() -> None:
    assert default_lr("sgd", 256, 10) == 2 * default_lr("sgd", 128, 10)
    assert default_lr("adamw", 512, 10) == 2 * default_lr("adamw", 128, 10)


def test_the_norm_of_gradients_is_torchs() -> None:
    torch.manual_seed(0)
    gradients = [torch.randn(shape) for shape in ((3, 4, 5), (7,), (1, 2))]
    for scale in (1.0, 1e-20, 1e15):
        scaled = [scale * each for each in gradients]
        torch.testing.assert_close(total_norm(scaled), torch.nn.utils.get_total_norm(scaled))
    gradients[1][3] = float("nan")
    assert total_norm(gradients).isnan()
    gradients[1][3] = float("inf")
    assert total_norm(gradients).isinf()

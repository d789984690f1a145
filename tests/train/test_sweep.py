"""What 'auto' finds before training, and that a continued run keeps it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from msresnet.cli.main import main
from msresnet.data.order import balanced_order
from msresnet.data.sample import Subset
from msresnet.data.splits import Splits, open_data
from msresnet.train import sweep
from msresnet.train.checkpoint import newest_checkpoint
from msresnet.train.config import TrainConfig
from msresnet.train.fit import fit
from msresnet.train.plan import make_plan
from msresnet.train.sweep import _batches, _half_way, find_batch, find_lr
from tiny import config, plan_for, same, train_words, trainer


def test_a_sweep_rises_evenly_and_leaves_no_trace(bars: Path) -> None:
    plan = plan_for(bars, batch_size=8)
    found = find_lr(plan)
    rates = torch.tensor([lr for lr, _ in found.rows], dtype=torch.float64)
    assert rates[0] == pytest.approx(1e-5)
    assert torch.allclose(rates.log().diff(), rates.log().diff()[0])
    assert len(found.rows) > 20
    assert 1e-5 < found.chosen < 10


def test_class_after_class_a_sweep_finds_what_it_does_of_the_same_images_mixed() -> None:
    """But for what a sweep's noise makes of it: over batches of a single class each, it finds next to nothing."""
    settings = TrainConfig(data="digits", device="cpu", precision="fp32", batch_size=32)
    digits = open_data("digits", settings).train
    folders = Subset(digits, digits.targets.argsort(kind="stable"))
    mixed, by_class = (find_lr(make_plan(settings, Splits(source))).chosen for source in (digits, folders))
    assert mixed / 10 < by_class < mixed * 10


def test_batches_of_a_sweep_are_those_of_the_first_epoch(bars: Path) -> None:
    made = trainer(plan_for(bars, batch_size=4, balance="sample"))
    moment = made.plan.sizes.moments[-1]
    batches = [batch.indices for batch, _ in _batches(made, moment, 3)]
    assert torch.equal(torch.cat(batches), balanced_order(made.plan.train.targets, made.plan.config.seed, 0)[:12])


def test_half_way_down_is_found_whatever_comes_after() -> None:
    rates = [10.0**e for e in range(-5, 2)]
    losses = [2.3, 2.29, 2.2, 1.2, 0.9, 0.8, 7.0]
    first = [(1e-6, loss) for loss in (4.0, 0.5, *[2.3] * 7)]  # of single batches
    assert _half_way([*first, *zip(rates, losses, strict=True)]) == 1e-2
    assert _half_way([*first, (1e-5, 1.0), (1e-4, 1.0)]) == 1e-5


def test_the_smallest_batch_that_is_nearly_fastest_is_taken(bars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    costs = {16: 4.0, 32: 4.1}
    monkeypatch.setattr(sweep, "FEWEST_STEPS", 0.1)  # the set is small
    times, now = [], 0.0
    for size in (16, 32, 64, 128):
        for _ in range(sweep.TIMED):
            times += [now, now + costs.get(size, size / 8)]
            now = times[-1]
    readings = iter(times)
    monkeypatch.setattr("msresnet.train.sweep.time.perf_counter", lambda: next(readings, float(next(clock))))
    monkeypatch.setattr(sweep, "LARGEST_BATCH", 128)
    found = find_batch(plan_for(bars))
    assert [size for size, _ in found.rows] == [16, 32, 64, 128]
    assert found.chosen == 32  # 4, 7.8, 8 and 8 images a second: 32 gives 98 % of the most
    assert "images a second" in found.reason


def test_a_run_keeps_what_it_found_when_it_continues(bars: Path, here: Path) -> None:
    words = train_words(bars, here / "run", "-q", "--lr", "auto")
    assert main([*words, "--batch-size", "auto"]) == 0
    _, state, _ = newest_checkpoint(here / "run" / "checkpoint")
    with (here / "run" / "sweep-lr.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"lr", "loss"}
    assert state["batch"] >= 2
    assert (here / "run" / "sweep-batch_size.csv").is_file()
    with Image.open(here / "run" / "sweep-lr.png") as picture:
        assert picture.width > 300
    before = json.loads((here / "run" / "metrics.json").read_text())
    assert main(["train", "--resume", "--output", str(here / "run"), "-q"]) == 0
    _, again, _ = newest_checkpoint(here / "run" / "checkpoint")
    assert (again["lr"], again["batch"]) == (state["lr"], state["batch"])
    assert json.loads((here / "run" / "metrics.json").read_text())["top1"] == before["top1"]


def test_a_given_rate_is_never_changed_by_a_batch_that_is_found(bars: Path) -> None:
    fitted = fit(config(bars, epochs=1, batch_size="auto", lr=0.0123))
    assert any("learning rate up to 0.0123" in note for note in fitted.notes)


def test_auto_trains_as_the_found_values_do(bars: Path) -> None:
    found = find_lr(plan_for(bars, batch_size=8)).chosen
    auto, given = fit(config(bars, batch_size=8, lr="auto")), fit(config(bars, batch_size=8, lr=found))
    assert same(auto.bundle.model.state_dict(), given.bundle.model.state_dict())

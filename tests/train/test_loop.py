"""The loop and its plan: what diverges, what repeats, what ends early, and what a user's word is worth."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from msresnet.cli.main import main
from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import ArraySource
from msresnet.data.sets import Decoded
from msresnet.data.splits import Splits
from msresnet.errors import DataError, DivergedError, Interrupted, ModelError, UsageError
from msresnet.models.factory import create_classifier
from msresnet.runtime import StopRequest
from msresnet.tasks.classification import ClassificationTask
from msresnet.tensors import save_tensors
from msresnet.train.checkpoint import newest_checkpoint, prefixed, save_checkpoint, section
from msresnet.train.observer import Silent
from msresnet.train.plan import _strides_over_one_pixel, closing_notes, make_plan
from tiny import config, contents, plan_for, same, train_words, trainer


class Watcher(Silent):
    """Remembers the losses, and asks to stop at one step."""

    def __init__(self, stop: StopRequest | None = None, at: tuple[int, int] = (-1, -1)) -> None:
        self.stop, self.at, self.losses, self.rows = stop, at, list[float](), list[dict[str, Any]]()

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self.losses.append(loss)
        if self.stop is not None and (epoch, step) == self.at:
            self.stop.code = 143

    def epoch(self, row: dict[str, Any]) -> None:
        self.rows.append(row)


@pytest.mark.parametrize(
    ("balance", "name", "kept"),
    [("none", "top1", 0), ("loss", "balanced_accuracy", 1), ("sample", "balanced_accuracy", 1)],
)
def test_where_classes_count_alike_the_epoch_is_chosen_so(
    bars: Path, monkeypatch: pytest.MonkeyPatch, balance: str, name: str, kept: int
) -> None:
    seen = iter(({"top1": 0.95, "balanced_accuracy": 0.5}, {"top1": 0.93, "balanced_accuracy": 0.8}))
    monkeypatch.setattr(ClassificationTask, "validation_figures", lambda *_: {**next(seen), "loss": 1.0})
    plan = plan_for(bars, balance=balance, ema=0.0)
    made = trainer(plan)
    made.run()
    assert made.state.best_epoch == kept
    assert {key for row in made.state.history for key in row if key.startswith("val")} == {f"val_{name}", "val_loss"}
    said = f"the epoch is chosen by balanced accuracy: --balance {balance} lets classes count alike"
    assert (said in plan.notes) == (balance != "none")


def test_balanced_accuracy_is_that_of_the_evaluation() -> None:
    logits, targets = torch.tensor([[2.0, 0.0]] * 20), torch.tensor([0] * 19 + [1])  # the constant answer
    found = ClassificationTask(("common", "rare")).validation_figures(logits, targets)
    assert [found["top1"], found["balanced_accuracy"]] == pytest.approx([0.95, 0.5])


def spoil(monkeypatch: pytest.MonkeyPatch, at: int, what: str = "loss") -> None:
    """Let the loss (or its gradient) of one step be NaN."""
    original, calls = ClassificationTask.loss, [0]

    def loss(task: ClassificationTask, outputs: Tensor, encoded: Tensor) -> Tensor:
        calls[0] += 1
        value = original(task, outputs, encoded)
        if calls[0] != at:
            return value
        # The square root's slope at zero is infinite, and infinity times zero is not a number.
        return value * math.nan if what == "loss" else value + (outputs.sum() * 0).sqrt()

    monkeypatch.setattr(ClassificationTask, "loss", loss)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_F7_a_bad_batch_changes_no_weight(
    bars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    spoil(monkeypatch, 5, what)
    training = trainer(plan_for(bars, epochs=3, batch_size=4), tmp_path)
    before: dict[str, Tensor] = {}
    training.observer = Watcher()
    training.observer.step = lambda *_: before.update(  # type: ignore[method-assign]
        {name: p.detach().clone() for name, p in training.network.named_parameters()}
    )
    with pytest.raises(DivergedError, match=f"the {what} is nan") as caught:
        training.run()
    assert caught.value.exit_code == 6
    assert "epoch 2, step 2" in caught.value.where
    assert ".png" in caught.value.where
    assert same(before, dict(training.network.named_parameters()))
    assert newest_checkpoint(tmp_path)[1]["epoch"] == 1


def test_F7_a_learning_rate_without_measure(bars: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = here / "run"
    assert main(train_words(bars, run, "--lr", "1e30", "-q")) == 6
    message = capsys.readouterr().err
    assert "try: --lr 2.5e+29" in message
    assert "Traceback" not in message
    assert not (run / "model.safetensors").exists()


def test_one_seed_gives_one_run_and_another_gives_another(bars: Path) -> None:
    def losses(seed: int) -> list[float]:
        watcher = Watcher()
        trainer(plan_for(bars, seed=seed, mixup=0.2, drop_rate=0.2), observer=watcher).run()
        return watcher.losses

    assert losses(1) == losses(1) != losses(2)


@pytest.mark.parametrize("epoch", [2, 3])
def test_an_observer_that_fails_costs_no_epoch(bars: Path, tmp_path: Path, epoch: int) -> None:
    class Fails(Silent):
        def epoch(self, row: dict[str, Any]) -> None:
            if row["epoch"] == epoch:
                raise ConnectionError

    with pytest.raises(ConnectionError):
        trainer(plan_for(bars, epochs=3, batch_size=4), tmp_path, Fails()).run()
    _, state, _ = newest_checkpoint(tmp_path)
    assert (state["epoch"], len(state["history"]), state["finished"]) == (epoch, epoch, epoch == 3)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_F5_stopped_at_a_step_and_continued(bars: Path, tmp_path: Path, optimizer: str) -> None:
    plan = plan_for(bars, epochs=3, batch_size=4, optimizer=optimizer, drop_path_rate=0.3, cutmix=0.5)
    straight = Watcher()
    whole = trainer(plan, observer=straight)
    whole.run()

    stop = StopRequest()
    first = Watcher(stop, (1, 2))
    with pytest.raises(Interrupted) as caught:
        trainer(plan, tmp_path, first, stop).run()
    assert caught.value.exit_code == 143
    second = Watcher()
    again = trainer(plan, tmp_path, second)
    tensors, state, _ = newest_checkpoint(tmp_path)
    assert (state["epoch"], state["step"]) == (1, 2)
    again.restore(tensors, state, "")
    again.run()
    assert first.losses + second.losses == straight.losses
    assert same(again.best, whole.best)
    assert same(again.network.state_dict(), whole.network.state_dict())


def test_the_history_tells_the_rate_of_an_epochs_last_step_after_a_stop_there(bars: Path, tmp_path: Path) -> None:
    plan = plan_for(bars, epochs=3)
    straight = Watcher()
    trainer(plan, observer=straight).run()

    stop = StopRequest()
    first = Watcher(stop, (1, len(straight.losses) // 3))
    with pytest.raises(Interrupted):
        trainer(plan, tmp_path, first, stop).run()
    second = Watcher()
    again = trainer(plan, tmp_path, second)
    again.restore(*newest_checkpoint(tmp_path)[:2], "")
    again.run()
    assert [row["epoch"] for row in second.rows] == [2, 3]
    assert [row["lr"] for row in first.rows + second.rows] == [row["lr"] for row in straight.rows]


def test_the_history_tells_the_highest_rate_of_all_layers(bars: Path) -> None:
    whole, layered = Watcher(), Watcher()
    trainer(plan_for(bars, epochs=1), observer=whole).run()
    trainer(plan_for(bars, epochs=1, layer_decay=0.5), observer=layered).run()
    assert layered.rows[0]["lr"] == whole.rows[0]["lr"]


def test_F6_a_signal_while_measuring_loses_nothing(bars: Path, tmp_path: Path) -> None:
    plan, stop = plan_for(bars, epochs=2), StopRequest()
    whole = trainer(plan)
    whole.run()
    stopped = trainer(plan, tmp_path, stop=stop)
    score = stopped.score

    def asked(*arguments: Any) -> tuple[float, float]:
        stop.code = 130
        return score(*arguments)

    stopped.score = asked  # type: ignore[assignment,method-assign]
    with pytest.raises(Interrupted):
        stopped.run()
    again = trainer(plan, tmp_path)
    again.restore(*newest_checkpoint(tmp_path)[:2], "")
    again.run()
    assert same(again.best, whole.best)


def test_C14_a_checkpoint_without_the_optimisers_state(bars: Path, tmp_path: Path) -> None:
    plan = plan_for(bars)
    trainer(plan, tmp_path).run()
    tensors, state, _ = newest_checkpoint(tmp_path)
    kept = {name: t for name, t in tensors.items() if not name.startswith("optimizer/")}
    save_checkpoint(tmp_path, kept, state)
    with pytest.raises(ModelError, match="optimiser"):
        trainer(plan).restore(*newest_checkpoint(tmp_path)[:2], str(tmp_path))


def test_patience_ends_a_training_that_gains_nothing(bars: Path) -> None:
    training = trainer(plan_for(bars, epochs=50, patience=2, ema=0.0, lr=1e-30))
    scores = iter([(0.9, 1.0), (0.5, 1.0), (0.5, 1.0), (0.5, 1.0)])
    training.score = lambda *_: next(scores)  # type: ignore[method-assign]
    training.run()
    assert len(training.state.history) == 3
    assert training.state.best_epoch == 0


def test_patience_without_validation_is_refused(bars: Path) -> None:
    with pytest.raises(UsageError, match="no validation set"):
        plan_for(bars, patience=2, val_fraction=0.0)


def test_one_image_is_no_training_set(bars: Path) -> None:
    chosen = config(bars)
    single = ArraySource(np.zeros((1, 1, 12, 12), dtype=np.uint8), np.zeros(1, dtype=np.int64), ("a", "b"))
    with pytest.raises(DataError, match="one image"):
        make_plan(chosen, Splits(single))


def test_a_checkpoint_knows_its_validation_set(bars: Path, tmp_path: Path) -> None:
    plan = plan_for(bars, epochs=1)
    trainer(plan, tmp_path).run()
    changed = replace(plan, sets=plan.sets | {"val": plan.sets["test"]})
    with pytest.raises(ModelError, match="not what the run began with"):
        trainer(changed).restore(*newest_checkpoint(tmp_path)[:2], "")


def test_no_digest_is_computed_without_checkpoints(bars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_for(bars, epochs=1)
    monkeypatch.setattr(Decoded, "fingerprint", None)  # asking for one would fail
    training = trainer(plan)
    training.run()
    assert training.state.finished


def test_the_best_of_raw_and_averaged_is_kept(bars: Path) -> None:
    training = trainer(plan_for(bars, epochs=1))
    assert training.average is not None
    averaged = training.viewer
    training.score = lambda model, _: (0.9 if model is averaged else 0.1, 1.0)  # type: ignore[assignment,method-assign]
    training.run()
    assert training.state.history[0]["weights"] == "averaged"
    assert same(training.best, averaged.state_dict())


def test_a_time_limit_ends_the_training_and_scales_its_schedule(bars: Path) -> None:
    training = trainer(plan_for(bars, epochs=None, time_limit="1s", lr=0.01))
    training.run()
    last = training.state.history[-1]
    # The last validation is meant to end with the limit, so training stops one validation before it, and no earlier.
    # How long that one takes is known only afterwards, so what is compared is the limit itself.
    before = training.state.history[-2]["seconds"] if len(training.state.history) > 1 else 0
    assert before < training.plan.limit
    assert training.plan.limit - 0.3 < last["seconds"] < 10
    assert last["lr"] < 0.005
    assert max(row["lr"] for row in training.state.history) <= 0.01


def test_even_the_shortest_limit_takes_a_step(bars: Path) -> None:
    training = trainer(plan_for(bars, epochs=None, time_limit="0.000001s"))
    training.run()
    assert training.state.seen > 0
    assert training.state.history[0]["train_loss"] > 0


def test_epochs_win_over_a_longer_limit(bars: Path) -> None:
    training = trainer(plan_for(bars, epochs=2, time_limit="1h"))
    training.run()
    assert len(training.state.history) == 2


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lr=st.floats(1e-6, 1.0),
    weight_decay=st.floats(0, 1),
    epochs=st.integers(1, 1000),
    batch_size=st.integers(2, 4096),
    shift=st.floats(0, 0.5),
    drop_rate=st.floats(0, 0.9),
    optimizer=st.sampled_from(["adamw", "sgd"]),
)
def test_what_the_user_set_is_never_changed(bars: Path, **given_values: Any) -> None:
    plan = plan_for(bars, **given_values)
    for name in ("lr", "weight_decay", "epochs"):
        assert getattr(plan, name) == given_values[name]
    assert plan.augment.shift == given_values["shift"]
    assert plan.arguments.get("drop_rate", 0) == given_values["drop_rate"]
    assert all(getattr(plan.config, name) == value for name, value in given_values.items())


def test_every_choice_is_announced_with_its_reason(bars: Path) -> None:
    plan = plan_for(bars, model="auto", device="auto", precision="auto")
    notes = "\n".join([*plan.notes, *closing_notes(plan)])
    for reason in (
        "model msresnet_micro: grey images",
        "device cpu: ",
        "precision ",
        "images held out by a stable hash",
    ):
        assert reason in notes
    assert "tiny images are enlarged" in notes
    assert "learning rate up to" in notes


@pytest.mark.parametrize(("side", "precision"), [(8, "fp32"), (16, "fp32"), (17, "bf16"), (64, "bf16")])
def test_maps_of_one_pixel_are_not_trained_in_bf16(
    bars: Path, side: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weight's gradient of a 3x3 convolution with stride 2 on a map of one pixel comes out as NaN now and then."""
    monkeypatch.setattr("msresnet.runtime._bf16", lambda device: (True, "as if it were fast"))
    asked = {"model": "resnet50", "image_size": (side,)}
    plan = plan_for(bars, precision="auto", **asked)
    assert plan.precision == precision
    assert any(note.startswith(f"precision {precision}: ") for note in plan.notes)
    if precision == "fp32":
        with pytest.raises(UsageError, match="--precision fp32"):
            plan_for(bars, precision="bf16", **asked)


def test_a_contradiction_is_refused(bars: Path) -> None:
    with pytest.raises(UsageError, match="augment none"):
        plan_for(bars, augment="none", flip=0.5)


def test_rates_reach_the_network(bars: Path) -> None:
    training = trainer(plan_for(bars, drop_path_rate=0.5, epochs=1))
    training.network.train()
    for module in training.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # the last one of a block begins at zero, so that dropping it shows nothing
    x = torch.randn(64, 1, 24, 24)
    torch.manual_seed(1)
    first = training.network(x)
    torch.manual_seed(2)
    assert not torch.equal(first, training.network(x))
    plain = trainer(plan_for(bars, epochs=1)).network.train()
    assert torch.equal(plain(x), plain(x))


def test_sections_take_tensors_apart_and_together() -> None:
    tensors = {"a.b": torch.ones(1)}
    assert same(section(prefixed(tensors, "model") | prefixed(tensors, "modelled"), "model"), tensors)


def test_nothing_is_written_without_a_folder(bars: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    trainer(plan_for(bars, epochs=1)).run()
    assert contents(tmp_path) == before


def test_more_epochs_than_none_lower_the_loss(bars: Path) -> None:
    watcher = Watcher()
    trainer(plan_for(bars, epochs=12, augment="none"), observer=watcher).run()
    assert watcher.rows[-1]["train_loss"] < 0.7 * watcher.rows[0]["train_loss"]


def test_training_starts_from_given_weights_with_a_new_classifier(bars: Path, tmp_path: Path) -> None:
    source = create_classifier("msresnet_micro", num_classes=5, in_chans=3, img_size=24)
    save_tensors(tmp_path / "weights.safetensors", source.state_dict(), {})
    plan = plan_for(bars, weights=str(tmp_path / "weights.safetensors"))
    begun, given = trainer(plan).network.state_dict(), source.state_dict()
    assert any("the classifier is new" in note for note in plan.notes)
    assert begun["fc.weight"].shape == (2, 64)
    kept = [name for name in given if not name.startswith("fc.")]
    expected = {name: given[name].sum(1, keepdim=True) if name == "conv1.weight" else given[name] for name in kept}
    assert same({name: begun[name] for name in kept}, expected)


def test_published_weights_that_are_not_there_stop_training_before_it_reads_data(bars: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="msresnet_micro has no published weights"):
        plan_for(bars, weights="published")
    with pytest.raises(ModelError, match="there are no weights"):
        trainer(plan_for(bars, weights=str(tmp_path / "absent.safetensors")))


def test_a_run_that_ended_before_its_first_checkpoint_starts_from_its_weights_again(bars: Path, tmp_path: Path) -> None:
    source = create_classifier("msresnet_micro", num_classes=2, in_chans=3, img_size=24)
    save_tensors(tmp_path / "weights.safetensors", source.state_dict(), {})
    plan = plan_for(bars, weights=str(tmp_path / "weights.safetensors"), resume=True)
    begun = trainer(plan, tmp_path / "checkpoint").network.state_dict()
    assert torch.equal(begun["fc.weight"], source.state_dict()["fc.weight"])
    with pytest.raises(UsageError, match="--weights ''"):
        config(bars, weights="")


@pytest.mark.parametrize(("name", "size", "expected"), [("msdnet20", 24, True), ("msdnet24_cifar", 48, False)])
def test_strides_over_one_pixel_are_found_in_any_network(name: str, size: int, expected: bool) -> None:
    with torch.device("meta"):
        network = create_classifier(name, num_classes=2, in_chans=1, img_size=size)
    assert _strides_over_one_pixel(network, Preprocess((size, size), 1)) == expected


def test_bf16_is_what_convolutions_compute_in_and_nothing_else(bars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(replace(plan_for(bars, epochs=1), precision="bf16"))  # whatever is fast on this processor
    inside, answers = set[torch.dtype](), set[torch.dtype]()
    original, loss = torch.nn.functional.conv2d, ClassificationTask.loss_of_exits

    def conv2d(*args: Any, **kwargs: Any) -> Tensor:
        found: Tensor = original(*args, **kwargs)
        inside.add(found.dtype)
        return found

    def watched(task: ClassificationTask, outputs: Any, encoded: Tensor) -> Tensor:
        answers.update(each.dtype for each in outputs)
        return loss(task, outputs, encoded)

    monkeypatch.setattr(torch.nn.functional, "conv2d", conv2d)
    monkeypatch.setattr(ClassificationTask, "loss_of_exits", watched)
    made.run()  # steps, and the validation after them
    assert inside == {torch.bfloat16}
    assert answers == {torch.float32}
    learnt = [*made.network.parameters(), *(p.grad for p in made.network.parameters() if p.grad is not None)]
    assert {each.dtype for each in learnt} == {torch.float32}
    assert made.state.history[-1]["val_top1"] > 0

"""Trackers: what tensorboard then holds, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from msresnet.cli.main import main
from msresnet.errors import ResourceError, UsageError
from msresnet.train.tracker import TRACKERS, tracker_names
from tiny import losses, train_words


@pytest.mark.filterwarnings("ignore")  # tensorboard warns of itself
def test_tensorboard_holds_the_history(bars: Path, here: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main(train_words(bars, here / "run", "-q", "--tracker", "tensorboard")) == 0
    events = EventAccumulator(str(here / "run" / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("train_loss")]
    assert [step for step, _ in shown] == [1, 2, 3, 4]
    assert [value for _, value in shown] == pytest.approx([float(x) for x in losses(here / "run")], rel=1e-5)


class Failing:
    """A tracker that fails in two epochs and in the end."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def start(self) -> None: ...

    def store_init_configuration(self, values: dict[str, Any]) -> None: ...

    def log(self, values: dict[str, float], step: int) -> None:
        if step in (2, 3):
            raise LookupError(f"503 in epoch {step}\nand more")
        self.steps.append(step)

    def finish(self) -> None:
        raise LookupError("gone")


def test_a_tracker_that_fails_costs_only_its_figures(
    bars: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Failing()
    monkeypatch.setitem(TRACKERS, "json", lambda name, folder: one)
    assert main(train_words(bars, here / "run", "--tracker", "json")) == 0
    assert one.steps == [1, 4]
    assert len(losses(here / "run")) == 4
    told = [line for line in capsys.readouterr().err.splitlines() if "json may lack" in line]
    assert told == ["· json may lack figures: 503 in epoch 2"]


def test_a_tracker_that_cannot_be_started_is_told_before_the_first_step(
    bars: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(name: str, folder: Path) -> None:
        raise LookupError("no key")

    monkeypatch.setitem(TRACKERS, "json", refuse)
    assert main(train_words(bars, here / "run", "-q", "--tracker", "json")) == 5
    assert "json cannot be started\n  where: --tracker json\n  why: no key" in capsys.readouterr().err


def test_unknown_and_absent_trackers_are_told_before_anything_is_read(
    bars: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="unknown tracker 'tensorbord'") as caught:
        tracker_names("tensorbord")
    assert caught.value.hint == "tensorboard"
    absent = [name for name in TRACKERS if name in ("wandb", "mlflow", "trackio")]
    for name in absent:
        try:
            __import__(name)
        except ImportError:
            with pytest.raises(ResourceError, match=f"{name} is not installed"):
                tracker_names(f"tensorboard,{name}")
    assert main(train_words(bars, here / "run", "--tracker", "nothing")) == 2
    assert not (here / "run" / "train.yaml").exists()
    assert "tensorboard" in capsys.readouterr().err

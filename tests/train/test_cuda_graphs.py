"""Steps that are recorded and replayed compute what steps without that compute. Most needs an NVIDIA GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from msresnet.data.splits import open_data
from msresnet.errors import UsageError
from msresnet.train.config import TrainConfig
from msresnet.train.cuda_graphs import Recorded
from msresnet.train.fit import fit
from msresnet.train.observer import Silent
from msresnet.train.plan import make_plan

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need an NVIDIA GPU")
FIRST = 6
"""Steps that are compared: rounding grows from one to the next."""


class Losses(Silent):
    """Keeps the loss of each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """The training has just taken a step."""
        self.losses.append(loss)


def trained(**settings: Any) -> tuple[list[float], dict[str, torch.Tensor], list[str]]:
    """Losses, the network's state, and what came up, of an epoch of the digits."""
    watch = Losses()
    fitted = fit(TrainConfig(**{"epochs": 1, "precision": "fp32", **settings}), observer=watch)
    return watch.losses, fitted.bundle.model.state_dict(), fitted.late


def test_a_cpu_records_nothing() -> None:
    config = TrainConfig(data="digits", device="cpu", epochs=1)
    assert not make_plan(config, open_data("digits", config)).cuda_graphs


def test_asked_for_where_they_cannot_be() -> None:
    config = TrainConfig(data="digits", device="cpu", cuda_graphs="on")
    with pytest.raises(UsageError, match="--cuda-graphs on") as caught:
        make_plan(config, open_data("digits", config))
    assert "cpu" in str(caught.value)


@gpu
@pytest.mark.parametrize(
    "settings",
    [
        {"data": "digits", "batch_size": 64},
        {"data": "digits", "batch_size": 64, "optimizer": "muon", "train_sizes": (6, 8), "size_schedule": "random"},
        {"data": "digits", "batch_size": 64, "model": "msresnet10", "image_size": (32,), "drop_path_rate": 0.3},
        {"data": "digits", "batch_size": 64, "freeze": 1, "finish": 0.3, "skip_easy": 0.5, "clip_grad": 1.0},
        {"data": "digit-scenes", "batch_size": 64, "model": "msresnet_micro"},
    ],
    ids=["micro", "sizes", "paths", "parts", "boxes"],
)
def test_recorded_steps_are_the_steps(settings: dict[str, Any], tmp_path: Path) -> None:
    """The first ones in figures; of later ones, where rounding has grown, that there are as many and none failed."""
    if "freeze" in settings:
        kept = fit(TrainConfig(data="digits", epochs=1)).bundle.save(tmp_path / "kept")
        settings = {**settings, "weights": str(kept)}
    losses, state, _ = trained(**settings, cuda_graphs="off")
    same, replayed, late = trained(**settings, cuda_graphs="on")
    assert not late
    assert len(same) == len(losses)
    assert same[:FIRST] == pytest.approx(losses[:FIRST], rel=2e-3)
    assert np.isfinite(same).all()
    counted = [name for name in state if name.endswith("num_batches_tracked")]
    assert all(torch.equal(state[name], replayed[name]) for name in counted)


@gpu
def test_bf16_is_recorded_as_such() -> None:
    settings = {"data": "digits", "batch_size": 64, "precision": "bf16"}
    losses, _, _ = trained(**settings, cuda_graphs="off")
    same, _, late = trained(**settings, cuda_graphs="on")
    assert not late
    assert same[:FIRST] == pytest.approx(losses[:FIRST], rel=2e-2)


class Waiting(torch.nn.Module):
    """Looks at a number on the GPU, which no recording can."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor, *, exits: bool) -> list[torch.Tensor]:
        """Images (B, 3, H, W) -> one answer (B,)."""
        return [self.norm(images).mean((1, 2, 3)) * (2.0 if images.sum().item() > 0 else 1.0)]


@gpu
def test_what_cannot_be_recorded_runs_as_it_is() -> None:
    model = Waiting().cuda()
    recorded, images = Recorded(model), torch.rand(4, 3, 8, 8, device="cuda")
    (answer,) = recorded(images, exits=True)
    answer.sum().backward()
    assert recorded.failure
    assert model.norm.weight.grad is not None
    assert model.norm.num_batches_tracked == 1  # the trials left nothing behind

"""Small data, small settings and processes that run the real command, for tests of training and of the command line."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from msresnet.cli.main import main
from msresnet.data.splits import open_data
from msresnet.runtime import StopRequest
from msresnet.tensors import load_tensors
from msresnet.train.config import TrainConfig
from msresnet.train.loop import Trainer
from msresnet.train.observer import Observer, Silent
from msresnet.train.plan import Plan, make_plan

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "msresnet.cli.pipeline"])  # children start in milliseconds
os.environ["OMP_NUM_THREADS"] = "1"  # for processes that tests start, so that they compute as these do
PATIENCE = 60
"""Seconds after which something that should have happened is taken not to happen."""


def pictures(root: Path, per_class: int = 12, side: int = 12) -> Path:
    """Class folders of PNGs: bars that lie, bars that stand, with noise."""
    rng = np.random.default_rng(0)
    for name in ("lying", "standing"):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            grey = rng.integers(0, 100, (side, side), dtype=np.uint8)
            grey[side // 3 : side // 2] += 150
            picture = grey if name == "lying" else grey.T
            Image.fromarray(np.ascontiguousarray(picture)).save(root / name / f"{number:02d}.png")
    return root


def config(data: Path, **settings: Any) -> TrainConfig:
    """A training of seconds."""
    quick = {
        "model": "msresnet_micro",
        "epochs": 2,
        "batch_size": 8,
        "precision": "fp32",
        "device": "cpu",
        "workers": 0,
    }
    return TrainConfig(data=str(data), **{**quick, **settings})


def plan_for(data: Path, **settings: Any) -> Plan:
    """The plan of such a training."""
    chosen = config(data, **settings)
    return make_plan(chosen, open_data(chosen.data, chosen))


def trainer(
    plan: Plan, folder: Path | None = None, observer: Observer | None = None, stop: StopRequest | None = None
) -> Trainer:
    """A trainer with quiet helpers."""
    return Trainer(plan, folder, observer or Silent(), stop or StopRequest())


def train_words(data: Path, output: Path | None, *more: str, epochs: int = 4, batch: int = 2) -> list[str]:
    """The command line of such a training."""
    words = ["train", "--data", str(data), "--model", "msresnet_micro", "--epochs", str(epochs)]
    words += ["--batch-size", str(batch), "--precision", "fp32", "--device", "cpu", "--workers", "0"]
    return [*words, *(["--output", str(output)] if output else []), *more]


def start(words: Sequence[str], errors: Path) -> ForkServerProcess:
    """Run a command line in a process of its own; its messages go to a file."""
    process = CONTEXT.Process(target=_run, args=(list(words), str(errors), str(Path.cwd())))
    process.start()
    return process


def _run(words: list[str], errors: str, folder: str) -> None:
    os.chdir(folder)
    torch.set_num_threads(1)
    sys.stderr = open(errors, "w", encoding="utf-8", buffering=1)  # noqa: PTH123, SIM115 - open to the end
    sys.exit(main(words))


def wait_for(condition: Callable[[], bool]) -> None:
    """Poll until something holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def lines(path: Path) -> int:
    """Lines of a file; none where there is no file."""
    return len(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else 0


def kill(process: ForkServerProcess, number: signal.Signals) -> int | None:
    """Send a signal and wait for the end; the exit code, negative for a death by signal."""
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(PATIENCE)
    return process.exitcode


def weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a run's model."""
    return load_tensors(folder / "model.safetensors")[0]


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Whether tensors are equal bit for bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def losses(folder: Path) -> list[str]:
    """The training losses of a run's history, as written."""
    with (folder / "history.csv").open(encoding="utf-8") as file:
        return [row["train_loss"] for row in csv.DictReader(file)]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

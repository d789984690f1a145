"""The folder of a training: what the files in it are called, and what it says of a model that is not there yet."""

from __future__ import annotations

import shlex
from pathlib import Path

LATEST = "runs/latest"
SETTINGS, HISTORY, ENVIRONMENT, CHECKPOINTS = "train.yaml", "history.csv", "environment.json", "checkpoint"
LEARNT = "learnt.json"
"""Digests of some of the images that were learnt from: they are known again wherever they lie."""
METRICS, PREDICTIONS, REPORT, LOG = "metrics.json", "predictions.csv", "report.html", "log.txt"
UNFINISHED = "its training has not finished"
UNMEASURED = "stopped by a signal; the model is saved, not measured"


def run_of(model: str) -> Path:
    """The folder of a model that is named by itself or by a file in it."""
    named = Path(model)
    return named if named.is_dir() else named.parent


def is_unfinished(folder: Path) -> bool:
    """Whether a folder without a model is that of a training, which then has not finished."""
    return (folder / SETTINGS).is_file()


def is_partial(folder: Path) -> bool:
    """Whether a folder with a model is that of a training, of which it is the best so far."""
    return is_unfinished(folder) and (folder / CHECKPOINTS).is_dir() and not (folder / METRICS).is_file()


def resume_hint(folder: Path) -> str:
    """What to type so that a training that has not finished goes on."""
    return f"msresnet train --resume --output {shlex.quote(str(folder))}"

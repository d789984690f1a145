"""What a user can say about prediction and evaluation. No torch here: `--help` reads this file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, get_args

from tyro.conf import Positional

from msresnet.data.options import DataOptions, cores
from msresnet.errors import UsageError

LATEST = "runs/latest"
TTA = Literal["none", "flip", "shifts", "flip+shifts"]
Form = Literal["csv", "jsonl", "parquet"]
"""How a shard's answers are written."""
FORMS: tuple[Form, ...] = get_args(Form)


def _at_least(lows: dict[str, tuple[int, int]]) -> None:
    """Raise UsageError for a value below its bound; `lows` holds (value, bound) by name."""
    for name, (value, low) in lows.items():
        if value < low:
            raise UsageError(f"--{name} {value}", why=f"it must be at least {low}")


@dataclass(frozen=True)
class Budget:
    """When a network with several exits stops: at an answer this sure (0 to 1), or after these seconds an image."""

    confidence: float | None = None
    seconds: float | None = None


def budget(text: str) -> Budget:
    """A budget from '0.9' (how sure) or '5ms', '0.2s' (how long). Raises UsageError for anything else."""
    if timed := re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)", text):
        seconds = float(timed[1]) / (1000 if timed[2] == "ms" else 1)
        if seconds > 0:
            return Budget(seconds=seconds)
    if re.fullmatch(r"\d?\.\d+|1", text) and 0 < float(text) <= 1:
        return Budget(confidence=float(text))
    raise UsageError(f"--budget {text}", why="a probability up to 1, or a time", hint="--budget 0.9, or --budget 5ms")


def check_views(tta: TTA, limit: Budget | None) -> None:
    """Raise UsageError for unknown views, and where views are to be averaged and a budget kept."""
    if tta not in get_args(TTA):
        raise UsageError(f"unknown views {tta!r}", hint=", ".join(get_args(TTA)))
    if tta != "none" and limit is not None:
        why = "every view of an image goes through the whole network"
        raise UsageError(f"--tta {tta} and a budget contradict each other", why=why, hint="one of the two")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(DataOptions):
    """Measure a trained model on labelled images."""

    model: str = LATEST
    """A run's folder, any other bundle, or hf:user/repo."""
    data: str | None = None
    """Labelled data in any form that `train` takes. Default: the run's own."""
    split: Literal["auto", "train", "val", "test"] = "auto"
    """Which set. auto: test, else val, else all there is."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    batch_size: int = 64
    """Images at a time."""
    tta: TTA = "none"
    """Average over views of each image: its mirror image (flip), small moves (shifts), or both. Each view costs a
    pass through the network."""
    output: str | None = None
    """A folder for metrics.json, predictions.csv and report.html. Default: nothing is written."""
    format: Literal["table", "json"] = "table"
    """How the figures are printed."""
    fail_under: str | None = None
    """Exit with 8 when a figure is lower, such as top1=0.9."""

    def __post_init__(self) -> None:
        _at_least({"batch-size": (self.batch_size, 1), "workers": (self.workers, 0)})


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Say what is on images: of a few, printed; of shards without end, with --output."""

    inputs: Positional[tuple[str, ...]] = ()
    """Files, folders, patterns such as 'photos/*.jpg', or - for a list of files or one image on standard input. With
    --output, shards: .tar files of images, folders, .txt or .csv lists of paths, patterns, 'shard-{000..099}.tar'."""
    model: str = LATEST
    """A run's folder, any other bundle, or hf:user/repo."""
    output: str | None = None
    """A folder: each shard's answers become a file there, which appears when it is whole. Shards that are done are
    skipped, so the same command continues; any number of processes that see the folder may run it at once."""
    top: int = 5
    """How many classes to list for each image."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    batch_size: int = 64
    """Images at a time."""
    workers: int = field(default_factory=cores)
    """Threads that decode images; 0 decodes in the main one. Default: one for each core."""
    budget: str | None = None
    """For networks with several exits: leave at an answer this sure, such as 0.9, or go as deep as a time for each
    image allows, such as 5ms."""
    tta: TTA = "none"
    """Average over views of each image: its mirror image (flip), small moves (shifts), or both. Each view costs a
    pass through the network."""
    format: Literal["table", "json", "jsonl", "csv", "parquet"] | None = None
    """How the answers are printed: table (the default), json, jsonl or csv; or written, with --output: csv (the
    default), jsonl or parquet."""
    engine: Literal["plain", "ray"] = "plain"
    """With --output: plain works in this process, ray on all machines of a Ray cluster (or on this one)."""

    def __post_init__(self) -> None:
        lows = {"batch-size": (self.batch_size, 1), "workers": (self.workers, 0), "top": (self.top, 1)}
        _at_least(lows)
        limit = None if self.budget is None else budget(self.budget)
        check_views(self.tta, limit)
        if self.output is None:
            if self.engine == "ray" or self.format == "parquet":
                what = "--engine ray" if self.engine == "ray" else "--format parquet"
                raise UsageError(f"{what} needs a place for the answers", hint="--output FOLDER")
        elif self.format not in (None, *FORMS):
            raise UsageError(f"--format {self.format} is for the screen", hint=f"--format {', '.join(FORMS)}")
        elif limit is not None and limit.seconds is not None:
            why = "a time reaches another exit on every machine, so that shards would be answered differently"
            raise UsageError(f"--budget {self.budget} with --output", why=why, hint="--budget 0.9")


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """Show where on an image, and at which scale, a model finds its answer."""

    inputs: Positional[tuple[str, ...]] = ()
    """Files, folders or patterns."""
    model: str = LATEST
    """A run's folder, any other bundle, or hf:user/repo."""
    target: str | None = None
    """The class to explain. Default: the model's answer."""
    output: str = "explanation.png"
    """The picture; the figures stand beside it as .json."""
    format: Literal["table", "json"] = "table"
    """How the figures are printed."""

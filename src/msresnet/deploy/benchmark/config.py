"""What a user can say about a benchmark. No torch here: `--help` reads this file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from msresnet.data.options import DataOptions
from msresnet.errors import UsageError, at_least

WAYS = ("torch", "compiled", "onnxruntime", "openvino", "openvino-bf16", "openvino-int8", "onnxruntime-int8")
"""Backends, each with the precision that is not float32."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(DataOptions):
    """Measure how fast, and how well, models answer on this machine, by every backend and precision, in one run."""

    models: Positional[tuple[str, ...]] = ("runs/latest",)
    """Run folders, other bundles, exported files or folders; and for speed alone, networks that were not trained: a
    name from `msresnet models`, timm:NAME, torchvision:NAME or keras:NAME, where those are installed."""
    backends: str = "auto"
    """Which of torch, compiled, onnxruntime, openvino, openvino-bf16, openvino-int8, onnxruntime-int8, separated by
    commas. auto: all that is installed and that the processor computes in, without compiled, which takes a minute."""
    batches: str = "1,16"
    """Images at a time, separated by commas."""
    size: int = 224
    """Side, in pixels, of the images of networks that were not trained."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps: where torch, compiled and other libraries' torch networks run; the rest are for
    the processor."""
    threads: int | None = None
    """Of each network. Default: one for each core."""
    rounds: int = 5
    """How often all are measured, in turn; figures are medians."""
    seconds: float = 1.0
    """How long each is measured in a round, for each batch."""
    data: str | None = None
    """Labelled images to measure accuracy on, in any form that `train` takes. Default: the run's own; none where it has
    none."""
    images: int = 1000
    """On how many of them, at most."""
    output: str | None = None
    """A folder for benchmark.csv, benchmark.json and benchmark.html with its plots."""
    format: Literal["table", "csv", "json"] = "table"
    """How the figures are printed."""

    def __post_init__(self) -> None:
        counts = {"size": self.size, "rounds": self.rounds, "images": self.images, "threads": self.threads}
        at_least({name: (value, 1) for name, value in counts.items()})
        if not 0 < self.seconds < 3600:
            raise UsageError(f"--seconds {self.seconds:g}", why="above 0, and below an hour", hint="--seconds 2")
        if not self.models:
            raise UsageError("no model was named", hint="msresnet benchmark runs/latest")
        _ = self.ways, self.sizes

    @property
    def ways(self) -> tuple[str, ...] | None:
        """Those of --backends; None is all that can be. Raises UsageError for unknown ones."""
        if self.backends == "auto":
            return None
        found = tuple(dict.fromkeys(self.backends.split(",")))
        if unknown := [name for name in found if name not in WAYS]:
            why, hint = f"known are {', '.join(WAYS)}", "--backends torch,openvino"
            raise UsageError(f"--backends {unknown[0]}", why=why, hint=hint)
        return found

    @property
    def sizes(self) -> tuple[int, ...]:
        """Those of --batches, rising. Raises UsageError for what is not a list of them."""
        parts = self.batches.split(",")
        if not all(part.isdecimal() and 0 < int(part) <= 4096 for part in parts):
            raise UsageError(f"--batches {self.batches}", why="1 to 4096, separated by commas", hint="--batches 1,16")
        return tuple(sorted({int(part) for part in parts}))

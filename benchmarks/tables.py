"""What a benchmark writes: one row for each contestant, with the spread over its seeds, the machine and the command."""

from __future__ import annotations

import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from msresnet.metrics.significance import Flags, compare_answers
from msresnet.runtime import environment

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Run:
    """One training of one contestant.

    Args:
        accuracy: of the test set, measured once, at the end.
        params: parameters as trained.
        images: seen in training, repetitions counted.
        seconds: from the first step to the last; reading, and measuring the test set, lie outside.
        whole: seconds with reading and preparing, where they were measured.
        right: which test images were answered rightly (N,), where they were kept.
    """

    accuracy: float
    params: int
    images: int
    seconds: float
    whole: float = 0.0
    right: Flags | None = None


def interval(values: Sequence[float]) -> tuple[float, float]:
    """(mean, half of the 95 % interval of the mean by Student's t); infinity for one value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, float("inf")
    error = statistics.stdev(values) / len(values) ** 0.5
    return mean, error * float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))


def percent(values: Sequence[float]) -> str:
    """Shares of one as 'mean ± half interval %'."""
    mean, half = interval(values)
    return f"{100 * mean:.2f} %" if half == float("inf") else f"{100 * mean:.2f} ± {100 * half:.2f} %"


def accuracy_table(results: dict[str, list[Run]]) -> list[str]:
    """The rows of a comparison of accuracies, as Markdown."""
    lines = ["| | parameters | images seen | seconds | test top-1 | each seed |", "|---|--:|--:|--:|--:|---|"]
    for name, runs in results.items():
        images, spent = (statistics.fmean(v) for v in ([r.images for r in runs], [r.seconds for r in runs]))
        each = ", ".join(f"{100 * run.accuracy:.2f}" for run in runs)
        accuracy = percent([run.accuracy for run in runs])
        lines.append(f"| {name} | {runs[0].params:,} | {images:,.0f} | {spent:.1f} | {accuracy} | {each} |")
    return lines


def difference(results: dict[str, list[Run]], first: str, second: str) -> str:
    """How much more the first gets right than the second, in points, with the 95 % interval over seeds and images."""
    tables = [np.stack([run.right for run in results[name] if run.right is not None]) for name in (first, second)]
    found = compare_answers(*tables)
    return f"{100 * found.mean:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f}), p = {found.p:.3g}"


def publish(title: str, body: Sequence[str], output: Path | None) -> None:
    """Print a result with the machine and the command, and write it."""
    here = environment()
    where = ", ".join(here["gpus"]) or f"{here['processor']} ({here['cpu_capability']}), {here['threads']} threads"
    # The module's name stands in the command that `python -m` was given, its path in argv.
    words = ["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]
    text = "\n".join([f"# {title}", "", *body, "", f"{where}, torch {here['torch']}", f"`{shlex.join(words)}`", ""])
    print(text)
    if output is not None:
        output.write_text(text, encoding="utf-8")


def use_threads(threads: int | None) -> None:
    """Give torch so many threads; None leaves them."""
    if threads is not None:
        torch.set_num_threads(threads)

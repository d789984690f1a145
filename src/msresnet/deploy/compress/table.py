"""What compression cost and gained: both models side by side, in every runtime that is installed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.errors import QualityGateError
from msresnet.infer.gates import judge
from msresnet.infer.predictor import Predictor
from msresnet.tasks.base import Better, Table

BATCH = 16
SECONDS, RUNS = 0.5, 5
"""A speed is measured for so long, and at least so often, after two runs that do not count."""
APART = 0.05
"""How far the figures of one result may be apart in two runtimes: rounding is no reason for more in many images."""
FEW = 3
"""Answers that may fall to either side, however few images there are."""


@dataclass(frozen=True)
class Row:
    """A model in a runtime.

    Args:
        model: 'before' or 'after'.
        backend, precision: what runs it, and in what.
        size: bytes of its weights' file.
        params, macs: of the network.
        milliseconds: an image takes alone, the median.
        images_per_second: 16 at a time, by the median.
        figures: the evaluation of this model, in this runtime or another one that gives the same answers.
    """

    model: str
    backend: str
    precision: str
    size: int
    params: int
    macs: int
    milliseconds: float
    images_per_second: float
    figures: dict[str, Any] = field(repr=False, default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Rows before and after.

    Args:
        to: what was made.
        split: the set that both were measured on.
        metric: the task's figure.
        better: which side of a bound is good, for each figure.
        rows: those of the given model first.
        difference: of the right answers, by runtime of the result, with McNemar's exact test; none for answers that
            are not right or wrong.
    """

    to: str
    split: str
    metric: str
    better: Mapping[str, Better]
    rows: list[Row]
    difference: dict[str, dict[str, Any]]

    @property
    def after(self) -> list[Row]:
        """The result's rows."""
        return [row for row in self.rows if row.model == "after"]

    @property
    def before(self) -> list[Row]:
        """The given model's rows."""
        return [row for row in self.rows if row.model == "before"]

    def drop(self) -> float:
        """How much less the task's figure is, in the runtime where it is least; below zero where it is more."""
        return float(self.before[0].figures[self.metric]) - min(float(r.figures[self.metric]) for r in self.after)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        kept = [name for key in self.better for name in (key, f"{key}_ci95")]
        rows = []
        for row in self.rows:
            figures = {name: row.figures[name] for name in kept if name in row.figures}
            rows.append({k: v for k, v in asdict(row).items() if k != "figures"} | figures)
        return {"to": self.to, "split": self.split, "rows": rows, "drop": self.drop(), "difference": self.difference}


def check_good(found: Comparison, gates: Mapping[str, float], max_drop: float | None) -> None:
    """Raise QualityGateError, naming each figure, for a result that is worse than its bounds in any runtime.

    And for one that two runtimes answer so differently that one of them must be wrong.
    """
    reached = {f"{row.backend} {row.precision}": float(row.figures[found.metric]) for row in found.after}
    if max(reached.values()) - min(reached.values()) > max(APART, FEW / found.after[0].figures["n"]):
        each = ", ".join(f"{figure:.4f} in {name}" for name, figure in reached.items())
        why = "one of them does not seem to compute this network rightly"
        raise QualityGateError(f"{found.metric} of the same file: {each}", why=why, hint="nothing was written")
    for row in found.after:
        judge(gates, found.better, row.figures)
    drop = found.drop()
    if max_drop is not None and drop > max_drop:
        what = f"{found.metric} is {drop:.4f} less than before, more than {max_drop:g}"
        raise QualityGateError(what, why="--max-drop", hint="nothing was written")


def speed(predictor: Predictor, images: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """(milliseconds for one image, images a second 16 at a time) for preprocessed images (N, C, H, W)."""
    many = np.resize(images, (BATCH, *images.shape[1:]))
    alone = _median(lambda: predictor.backend(many[:1]))
    together = _median(lambda: predictor.backend(many))
    return 1000 * alone, BATCH / together


def _median(run: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    run()
    run()
    times, began = list[float](), time.perf_counter()
    while len(times) < RUNS or time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def table(found: Comparison) -> Table:
    """The one table, for the screen."""
    columns = ("model", "runs in", "size", "parameters", "multiply-adds", "one image", "images/s", found.metric, "95 %")
    rows = []
    for row in found.rows:
        value, pair = row.figures[found.metric], row.figures.get(f"{found.metric}_ci95")
        rows.append((
            row.model,
            f"{row.backend} {row.precision}",
            f"{row.size / 1e6:.2f} MB",
            f"{row.params:,}",
            f"{row.macs / 1e6:,.1f} M",
            f"{row.milliseconds:.2f} ms",
            f"{row.images_per_second:,.1f}",
            f"{100 * value:.2f} %",
            f"{100 * pair[0]:.2f} to {100 * pair[1]:.2f} %" if pair else "",
        ))  # fmt: skip
    images = found.rows[0].figures.get("n")
    count = "" if images is None else f", {images:,} images"
    return Table(f"{found.to}, measured on the {found.split} set{count}", columns, rows)


def words(found: Comparison) -> list[str]:
    """Whether the difference of the answers is more than chance, a line for each runtime."""
    lines = []
    for name, d in found.difference.items():
        if "p" in d:
            points = [f"{100 * d[key]:+z.2f}" for key in ("mean", "low", "high")]
            lines.append(
                f"{name}: {points[0]} points of right answers (95 % {points[1]} to {points[2]}); right where the other "
                f"is not: {d['only_this']:,} after, {d['only_baseline']:,} before; McNemar's exact p = {d['p']:.3g}"
            )
    return lines

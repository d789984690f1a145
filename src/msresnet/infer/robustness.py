"""How a model keeps up when objects become smaller or larger: accuracy over scales, and the area under that curve.

S scales, N images. The area is that of the trapezoids over the logarithm of the scale, divided by the width of the
axis: the mean accuracy over scales, 0 to 1, where twice as large counts as much as half as large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.bundle import Bundle, bundle_of
from msresnet.data.options import DataOptions
from msresnet.data.sample import Source
from msresnet.data.sets import Samples
from msresnet.data.sources.scaled_digits import scale_of
from msresnet.data.zoom import Zoomed
from msresnet.errors import DataError, UsageError
from msresnet.infer.backends.opened import USUAL, run_bundle
from msresnet.infer.config import EvaluateConfig, Running
from msresnet.infer.evaluate import prepare
from msresnet.infer.predictor import Predictor
from msresnet.metrics.bootstrap import mean_interval
from msresnet.metrics.classification import wilson_interval
from msresnet.models.cost import count_macs
from msresnet.tasks.base import Table
from msresnet.tasks.words import interval, percent

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
SCALES = "object_scale"
SIZES = "image_size"
TITLES = {SCALES: ("scale", "the object's size in its frame"), SIZES: ("size", "the network's input in pixels")}
"""What a row's place on the axis is called, and what it says."""
BANDS = (0.25, 0.25 * 2**0.5, 0.5, 0.5 * 2**0.5, 1.0)
"""Bounds of the bands in which images that know their scale are counted: halves of an octave."""


@dataclass(frozen=True)
class Curve:
    """Right answers along an axis.

    Args:
        points: scales, or sides in pixels, rising (S,).
        right: which answers are right, the same images in each row (S, N).
        macs: multiply-accumulates for one image at each point, where they differ.
    """

    points: tuple[float, ...]
    right: Flags
    macs: tuple[int, ...] = ()

    @property
    def areas(self) -> Floats:
        """What each image adds to the area under the curve (N,); their mean is the area."""
        return log_weights(self.points) @ self.right

    def to_dict(self, place: str) -> dict[str, Any]:
        """Rows with their intervals, and the area with its own; `place` names a point in a row."""
        rows = []
        for index, (point, right) in enumerate(zip(self.points, self.right, strict=True)):
            n, total = int(right.sum()), len(right)
            share = {"top1": n / total if total else 0.0, "top1_ci95": list(wilson_interval(n, total))}
            cost = {"macs": self.macs[index]} if self.macs else {}
            rows.append({place: point, **share, **cost})
        area = _mean(self.areas)
        return {"metric": "top1", "rows": rows, "area": area["area"], "area_ci95": area["ci95"]}


def log_weights(points: Sequence[float]) -> Floats:
    """How much each point counts in the area (S,): the rule of trapezoids over the logarithm, the sum being 1."""
    if len(points) == 1:
        return np.ones(1)
    steps = np.diff(np.log(points))
    weights = np.concatenate([[0], steps]) + np.concatenate([steps, [0]])
    return weights / weights.sum()  # type: ignore[no-any-return]


def robustness(
    predictor: Predictor, baseline: Predictor | None, source: Source, config: EvaluateConfig
) -> dict[str, Any]:
    """The curves that `--object-scale` and `--image-sizes` ask for, a baseline's beside them, for metrics.json."""
    found = {}
    if config.scales:
        mine, theirs = _both(predictor, baseline, lambda p: object_scales(p, source, config, config.scales))
        found[SCALES] = against(mine, theirs, SCALES)
    if config.sizes:
        mine, theirs = _both(predictor, baseline, lambda p: image_sizes(p, source, config, config.sizes, config))
        found[SIZES] = against(mine, theirs, SIZES)
    return found


def _both(
    predictor: Predictor, baseline: Predictor | None, measure: Callable[[Predictor], Curve]
) -> tuple[Curve, Curve | None]:
    return measure(predictor), None if baseline is None else measure(baseline)


def object_scales(predictor: Predictor, source: Source, options: DataOptions, scales: Sequence[float]) -> Curve:
    """Right answers when the object is made smaller and larger within its frame, as `zoom` does it.

    It is the network's input that is changed. What is black and white stays so.
    """
    data, binary = prepare(predictor.trained, source, options), predictor.trained.preprocess.binary
    return Curve(tuple(scales), np.stack([_right(predictor, Zoomed(data, scale, binary)) for scale in scales]))


def image_sizes(
    predictor: Predictor, source: Source, options: DataOptions, sides: Sequence[int], how: Running = USUAL
) -> Curve:
    """Right answers when images are brought to other sizes; a side is that of the longer edge in pixels.

    `how` the network runs at each of them is how the predictor was opened.

    Raises UsageError for a size that the network does not take.
    """
    bundle = bundle_of(predictor.trained, "--image-sizes")
    right, macs = [], check_sizes(bundle, sides)
    for side in sides:
        resized = replace(bundle, preprocess=replace(bundle.preprocess, size=_size(bundle, side)))
        right.append(_right(run_bundle(resized, how), prepare(resized, source, options)))
    return Curve(tuple(sides), np.stack(right), macs)


def check_sizes(bundle: Bundle, sides: Sequence[int]) -> tuple[int, ...]:
    """Multiply-accumulates for one image at each side. Raises UsageError for a size that the network does not take."""
    for size in (_size(bundle, side) for side in sides):
        if min(size) < bundle.model.min_size:
            why = f"{bundle.architecture} takes at least {bundle.model.min_size} pixels"
            hint = f"--image-sizes {max(bundle.preprocess.size)}"
            raise UsageError(f"--image-sizes with {size[0]}x{size[1]} pixels", why=why, hint=hint)
    return tuple(count_macs(bundle.model, _size(bundle, side)) for side in sides)


def _size(bundle: Bundle, side: int) -> tuple[int, int]:
    """The (H, W) of a model's images whose longer edge has so many pixels."""
    longest = max(bundle.preprocess.size)
    height, width = (max(1, round(edge * side / longest)) for edge in bundle.preprocess.size)
    return height, width


def against(curve: Curve, baseline: Curve | None, axis: str) -> dict[str, Any]:
    """A curve for metrics.json; with a baseline's beside it, and the difference of the areas, paired by image.

    Raises DataError where the two are not about the same images.
    """
    place, _ = TITLES[axis]
    found = curve.to_dict(place)
    if baseline is None:
        return found
    if curve.right.shape != baseline.right.shape:
        raise DataError("the two models could read different images", hint="--on-bad fail names them")
    other = baseline.to_dict(place)
    other.pop("metric")
    return found | {"baseline": other, "difference": _mean(curve.areas - baseline.areas)}


def bands(ids: Sequence[str], right: Flags) -> list[dict[str, Any]]:
    """Right answers by the scale that the ids tell, small to large; nothing where they tell none."""
    scales = np.array([scale_of(name) or 0.0 for name in ids])
    if not len(scales) or not scales.all():
        return []
    which = np.clip(np.searchsorted(BANDS, scales, side="right") - 1, 0, len(BANDS) - 2)
    rows = []
    for index, (low, high) in enumerate(pairwise(BANDS)):
        inside = right[which == index]
        n, total = int(inside.sum()), len(inside)
        share = {"n": total, "top1": n / total if total else 0.0, "top1_ci95": list(wilson_interval(n, total))}
        rows.append({"low": round(low, 4), "high": round(high, 4), **share})
    return rows


def tables(metrics: dict[str, Any]) -> list[Table]:
    """The curves of an evaluation, and its bands, for the screen."""
    found = [_table(axis, curve) for axis, curve in metrics.get("robustness", {}).items()]
    if rows := metrics.get("scale_bands"):
        cells = [
            (f"{r['low']:.2f} to {r['high']:.2f}", *_share(r["top1"], r["top1_ci95"]), f"{r['n']:,}") for r in rows
        ]
        title = "by the object's side, as a share of the frame's"
        found.append(Table(title, ("side", "top-1", "95 % interval", "images"), cells))
    return found


def _table(axis: str, curve: dict[str, Any]) -> Table:
    place, title = TITLES[axis]
    columns = (place, "top-1", "95 % interval")
    cells: list[tuple[str, ...]] = [(f"{row[place]:g}" if row else "area", *texts) for row, texts in _texts(curve)]
    if "baseline" not in curve:
        return Table(title, columns, cells)
    beside = [texts for _, texts in _texts(curve["baseline"])]
    cells = [(*mine, *texts) for mine, texts in zip(cells, beside, strict=True)]
    difference = curve["difference"]
    cells.append(("more area", *_share(difference["area"], difference["ci95"]), "", ""))
    return Table(title, (*columns, "baseline", "95 % interval"), cells)


def _texts(curve: dict[str, Any]) -> list[tuple[dict[str, Any], tuple[str, str]]]:
    """The rows of a curve with their figures in words, and at the end, without a row, the area."""
    rows = [(row, _share(row["top1"], row["top1_ci95"])) for row in curve["rows"]]
    return [*rows, ({}, _share(curve["area"], curve["area_ci95"]))]


def _share(value: float, pair: Sequence[float] | None) -> tuple[str, str]:
    return percent(value), interval(pair)


def _mean(areas: Floats) -> dict[str, Any]:
    """An area from what each image adds to it, and its interval."""
    pair = mean_interval(areas)
    return {"area": float(areas.mean()) if len(areas) else 0.0, "ci95": None if pair is None else list(pair)}


def _right(predictor: Predictor, data: Samples) -> Flags:
    """Which readable images of a set are answered rightly."""
    results, indices = predictor.predict_set(data)
    task = predictor.trained.task
    return task.right(task.evaluate(results, task.truths(data, indices)))

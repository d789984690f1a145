"""Two trained models on the same images: whose answers are right, and whether the difference is more than chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from msresnet.errors import DataError
from msresnet.metrics.significance import compare_answers
from msresnet.results import Evaluation
from msresnet.tasks.base import Better, Table
from msresnet.trained import Trained

SHARED = {
    "params": "parameters",
    "macs": "multiply-adds an image",
    "inference_images_per_second": "images a second",
}
"""Figures of a network, whatever its task, and what they are called."""
CALLED = SHARED | {"top1": "top-1", "top5": "top-5", "macro_f1": "mean F1", "ece": "calibration error"}
CALLED |= {"aurc": "area under risk-coverage", "miou": "mean IoU", "ap": "AP"}


def called(figure: str) -> str:
    """A figure's name for people, from that in metrics.json."""
    return CALLED.get(figure, figure.replace("_", " "))


def beside(model: Trained, measured: Evaluation, other: Trained, baseline: Evaluation, name: str) -> dict[str, Any]:
    """What metrics.json says of a baseline: its figures, and McNemar's exact test (1947) of the right answers.

    Args:
        model, measured: the model and its answers.
        other, baseline: those of the baseline on the same images.
        name: how the baseline was named.

    Raises DataError where the answers are about different images, UsageError where they are not right or wrong.
    """
    if measured.predictions.ids != baseline.predictions.ids:
        raise DataError("the two models could read different images", hint="--on-bad fail names them")
    left, right = model.task.right(measured), other.task.right(baseline)
    found = asdict(compare_answers(left[None], right[None])) if len(left) else {}
    difference: dict[str, Any] = {name: found[name] for name in ("mean", "low", "high", "p") if name in found}
    difference |= {"only_this": int((left & ~right).sum()), "only_baseline": int((right & ~left).sum())}
    names = [name for name in other.task.gates if name in baseline.metrics]
    kept = {key: baseline.metrics[key] for name in names for key in (name, f"{name}_ci95") if key in baseline.metrics}
    shared = {name: baseline.metrics[name] for name in SHARED}
    return {"model": name, "architecture": other.architecture, **shared, **kept, "difference": difference}


def table(metrics: dict[str, Any], better: Mapping[str, Better]) -> Table:
    """Both models' figures side by side, and the test, for the screen; `better` says of what more is better."""
    other = metrics["baseline"]
    names = [*SHARED, *(name for name in better if name in other)]
    rows = [(called(name), *(_text(found[name], better.get(name)) for found in (metrics, other))) for name in names]
    d = other["difference"]
    rows.append(("right where the other is not", f"{d['only_this']:,}", f"{d['only_baseline']:,}"))
    if "p" in d:
        mean, low, high = (f"{100 * d[name]:+z.2f}" for name in ("mean", "low", "high"))
        rows.append((f"more right answers, points ({low} to {high})", mean, ""))
        rows.append(("McNemar's exact test, p", f"{d['p']:.3g}", ""))
    return Table(f"beside the baseline {other['architecture']}, {other['model']}", ("figure", "this", "baseline"), rows)


def _text(value: float, better: Better | None) -> str:
    if better is None:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{100 * value:.2f} %" if better == "higher" else f"{value:.4f}"

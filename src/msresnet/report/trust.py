"""How far answers can be trusted: whether probabilities mean what they say, what abstaining gains, what size does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import logsumexp

from msresnet.infer.baseline import called
from msresnet.metrics.calibration import reliability
from msresnet.report.answered import Answered
from msresnet.report.charts import cost_chart, coverage_chart, reliability_chart, robustness_chart
from msresnet.report.page import Part, Row, Section, Table, Words, percent, span
from msresnet.report.story import Story

STEPS = (0.5, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Shares of answered images that the table tells of."""
LEAST = 1e-300
"""Probabilities are kept above this before their logarithm."""
SIZES = {"object_scale": ("scale", "Objects of other sizes"), "image_size": ("size", "Images of other sizes")}
MADE = {
    "object_scale": "Each image, larger or smaller about its middle; above 1, what leaves the frame is lost.",
    "image_size": "The same images, brought to other sizes before the network sees them.",
}
"""What was done to the images."""


def trust(answered: Answered) -> Section | None:
    """Calibration and coverage, where they were measured."""
    metrics, charts = answered.story.evaluation.metrics, list[Part]()
    if metrics.get("reliability"):
        charts.append(reliability_chart(metrics["reliability"], _uncalibrated(answered)))
    if metrics.get("coverage"):
        charts.append(coverage_chart(metrics["coverage"]))
    if not charts:
        return None
    parts: list[Part] = [Words(_calibration(metrics)), Row(charts)]
    if metrics.get("coverage"):
        parts.append(_coverage(metrics["coverage"]))
    if "abstain" in metrics:
        parts.append(Words(_abstaining(metrics["abstain"]), soft=False))
    return Section("trust", "How far to trust it", parts)


def _calibration(metrics: dict[str, Any]) -> str:
    text = (
        f"Stated probabilities and the share of right answers are {100 * metrics['ece']:.2f} points apart on average "
        f"(expected calibration error){_side(metrics)}."
    )
    fitted = metrics.get("calibration")
    if fitted is None:
        known = metrics.get("temperature", 1.0)
        advice = " msresnet evaluate --calibrate lessens that, on images of which the model gets some wrong."
        return text + (f" The temperature is {known:.3f}." if known != 1 else advice)
    before, after = fitted["ece"]
    where = f"fitted on {fitted['n']:,} images of the {fitted['split']} set, it took the error there from"
    return f"{text} The temperature is {fitted['temperature'][1]:.3f}; {where} {100 * before:.2f} to {100 * after:.2f}."


def _side(metrics: dict[str, Any]) -> str:
    """Whether a model is mostly too modest or too sure; '' where it is neither."""
    rows = metrics.get("reliability") or []
    more = sum(row["n"] * (row["accuracy"] - row["confidence"]) for row in rows) / max(1, metrics["n"])
    if abs(more) <= metrics["ece"] / 2:
        return ""
    return f"; the model is right {'more' if more > 0 else 'less'} often than it says"


def _uncalibrated(answered: Answered) -> list[dict[str, float]] | None:
    """Reliability before the temperature was fitted, from the probabilities after it; None where none was."""
    fitted = answered.story.evaluation.metrics.get("calibration")
    if fitted is None:
        return None
    before, after = fitted["temperature"]
    logarithms = np.log(np.maximum(answered.results.probabilities, LEAST)) * (after / before)
    confidences = np.exp(logarithms - logsumexp(logarithms, axis=1, keepdims=True)).max(1)
    rows = reliability(confidences, answered.correct)
    return [{"confidence": stated, "accuracy": right, "n": n} for stated, right, n in rows]


def _abstaining(found: dict[str, Any]) -> str:
    answers = f"it answers {percent(found['answered'], 1)} of the images"
    if found["accuracy"] is None:
        return f"If it abstains below a probability of {found['below']:g}, it answers none."
    right = f"{percent(found['accuracy'])} of them rightly (95 % interval {span(found['accuracy_ci95'])})"
    return f"If it abstains below a probability of {found['below']:g}, {answers}, {right}."


def _coverage(rows: Sequence[dict[str, float]]) -> Table:
    """Accuracy where only the surest answers are given."""
    found: dict[float, dict[str, float]] = {}
    for step in STEPS:
        row = min(rows, key=lambda row: abs(row["coverage"] - step))
        found[row["coverage"]] = row
    cells = [
        (percent(row["coverage"], 1), f"{row['confidence']:.4f}", percent(row["accuracy"]))
        for _, row in sorted(found.items())
    ]
    columns = ("share answered", "if at least so sure", "correct of those")
    return Table("If it answers only when it is sure", columns, cells)


def robustness(story: Story) -> Section | None:
    """Accuracy against the size of the object or the image, beside a baseline where there is one."""
    metrics, parts = story.evaluation.metrics, list[Part]()
    for kind, (name, title) in SIZES.items():
        if kind in metrics.get("robustness", {}):
            parts += [Words(MADE[kind]), *_curve(story, metrics["robustness"][kind], name, title)]
    if bands := metrics.get("scale_bands"):
        shares = ((percent(row["top1"]), span(row["top1_ci95"]), f"{row['n']:,}") for row in bands)
        rows = [(f"{row['low']:.2f} to {row['high']:.2f}", *cells) for row, cells in zip(bands, shares, strict=True)]
        columns = ("object's side", "top-1", "95 % interval", "images")
        parts.append(Table("The images as they are, by the object's side as a share of the frame's", columns, rows))
    if not parts:
        return None
    return Section("robustness", "What size does", parts)


def _curve(story: Story, found: dict[str, Any], name: str, title: str) -> list[Part]:
    metric = called(found.get("metric", story.trained.task.metric))
    models = [(story.trained.architecture, found)]
    if "baseline" in found:
        models.append((_baseline(story), found["baseline"]))
    curves = [(model, _points(values, name, found["metric"])) for model, values in models]
    chart = robustness_chart(curves, title, name, f"{metric}, %")
    columns = [name, *(cell for model, _ in models for cell in (model, "95 % interval"))]
    rows = []
    for place, row in enumerate(found["rows"]):
        cells = [(percent(curve[place][1]), span(curve[place][2])) for _, curve in curves]
        rows.append((f"{row[name]:g}", *(cell for pair in cells for cell in pair)))
    areas = [(percent(values["area"]), span(values.get("area_ci95"))) for _, values in models]
    rows.append(("area under the curve", *(cell for pair in areas for cell in pair)))
    parts: list[Part] = [Row([chart, Table(title, columns, rows)])]
    if "difference" in found:
        interval = found["difference"]["ci95"]
        sure = f" (95 % interval {100 * interval[0]:+z.2f} to {100 * interval[1]:+z.2f})" if interval else ""
        parts.append(Words(f"Difference of the areas: {100 * found['difference']['area']:+z.2f} points{sure}."))
    return parts


def _baseline(story: Story) -> str:
    name = story.evaluation.metrics.get("baseline", {}).get("architecture")
    return f"baseline: {name}" if name else "baseline"


def _points(values: dict[str, Any], name: str, metric: str) -> list[tuple[float, float, Sequence[float] | None]]:
    return [(row[name], row[metric], row.get(f"{metric}_ci95")) for row in values["rows"]]


def cost(story: Story) -> Section | None:
    """Accuracy against multiply-adds, of networks with several exits."""
    metrics, metric = story.evaluation.metrics, story.trained.task.metric
    if "exits" not in metrics:
        return None
    text = (
        f"The network answers at {len(metrics['exits'])} exits. An image may leave at the first answer that is sure "
        "enough; how sure, msresnet predict --budget 0.9 says. The cost of an exit includes the exits before it."
    )
    rows = [(f"exit {row['exit']}", row) for row in metrics["exits"]]
    rows += [(f"probability {row['confidence']}", row) for row in metrics["budgets"]]
    cells = [(name, percent(row[metric]), f"{row['macs'] / 1e6:,.1f} M") for name, row in rows]
    chart = cost_chart(metrics["exits"], metrics["budgets"], metric, called(metric))
    table = Table("Accuracy and cost", ("stop at", called(metric), "multiply-adds"), cells)
    return Section("cost", "What an early answer costs", [Words(text), Row([chart, table])])

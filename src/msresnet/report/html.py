"""The report: one HTML file that opens anywhere, offline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from msresnet.bundle import Bundle
from msresnet.data.loaders import Samples
from msresnet.explain.attribution import grad_cam
from msresnet.explain.scales import ScaleResponse, by_field, scale_responses
from msresnet.files import write_text
from msresnet.metrics.calibration import reliability
from msresnet.metrics.classification import confusion
from msresnet.report.plots import as_rgb, cost_plot, curves, overlay, png_data, reliability_plot, scale_bars
from msresnet.results import Evaluation

Flags = npt.NDArray[np.bool_]
MOST_MISTAKES, MOST_EXAMPLES, MOST_CLASSES = 12, 10, 30


@dataclass(frozen=True)
class Story:
    """What a report tells: a model, its answers on a set, and how it came about."""

    bundle: Bundle
    evaluation: Evaluation
    data: Samples
    history: Sequence[dict[str, Any]]
    notes: Sequence[str]
    environment: dict[str, Any]
    command: str


def write_report(path: Path, story: Story) -> None:
    """Write the report. Raises ResourceError when it cannot be written."""
    write_text(path, render(story))


def render(story: Story) -> str:
    """The report as HTML text, without a reference to anything outside."""
    evaluation = story.evaluation
    correct = evaluation.predictions.indices == evaluation.targets
    examples, responses = _examples(story, correct)
    return fill(
        "report.html.jinja",
        title=f"{story.bundle.architecture} · {evaluation.metrics['split']} set",
        metrics=evaluation.metrics,
        bundle=story.bundle,
        params=sum(p.numel() for p in story.bundle.model.parameters()),
        notes=[*story.notes],
        curves=Markup(curves(story.history)) if story.history else None,
        epochs=len(story.history),
        confusion=_confusion(story),
        mistakes=_mistakes(story, correct),
        mistakes_total=int((~correct).sum()),
        examples=examples,
        scales=Markup(scale_bars(by_field(responses))) if responses else None,
        reliability=Markup(reliability_plot(reliability(evaluation.predictions.confidences, correct))),
        cost=_cost(story),
        environment=story.environment,
        command=story.command,
    )


def fill(template: str, **values: Any) -> str:
    """A template of this folder as HTML text; what is put in is escaped."""
    environment = Environment(
        loader=PackageLoader("msresnet.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def _cost(story: Story) -> Markup | None:
    metrics = story.evaluation.metrics
    if "exits" not in metrics:
        return None
    return Markup(cost_plot(metrics["exits"], metrics["budgets"], story.bundle.task.metric))


def _confusion(story: Story) -> dict[str, Any]:
    """The matrix with a shade for each cell; of many classes, those that are most often confused."""
    names, evaluation = story.bundle.task.class_names, story.evaluation
    counts = confusion(evaluation.predictions.indices, evaluation.targets, len(names))
    wrong = counts - np.diag(np.diag(counts))
    chosen = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:MOST_CLASSES])
    counts = counts[np.ix_(chosen, chosen)]
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    rows = [
        [{"n": int(n), "share": round(float(s), 3), "hit": i == j} for j, (n, s) in enumerate(zip(ns, ss, strict=True))]
        for i, (ns, ss) in enumerate(zip(counts, shares, strict=True))
    ]
    return {"names": [names[c] for c in chosen], "rows": rows, "left_out": len(names) - len(chosen)}


def _mistakes(story: Story, correct: Flags) -> list[dict[str, Any]]:
    """The wrong answers that were given with most confidence, with pictures."""
    predictions, names = story.evaluation.predictions, story.bundle.task.class_names
    wrong = np.flatnonzero(~correct)
    worst = wrong[np.argsort(-predictions.confidences[wrong], kind="stable")][:MOST_MISTAKES]
    cards = []
    for index in worst:
        card = _card(story, int(index), int(predictions.indices[index]))
        target = int(story.evaluation.targets[index])
        cards.append(
            card | {"truth": names[target], "truth_probability": float(predictions.probabilities[index, target])}
        )
    return cards


def _examples(
    story: Story, correct: np.ndarray[Any, np.dtype[np.bool_]]
) -> tuple[list[dict[str, Any]], list[ScaleResponse]]:
    """One right answer for each class (or any, if there is none), with pictures; and the response of the scales."""
    targets = story.evaluation.targets
    cards, responses = [], []
    for target in np.unique(targets)[:MOST_EXAMPLES]:
        members = np.flatnonzero(targets == target)
        index = int(next((m for m in members if correct[m]), members[0]))
        answer = int(story.evaluation.predictions.indices[index])
        cards.append(_card(story, index, answer))
        responses += scale_responses(story.bundle, _image(story, index), answer)
    return cards, responses


def _image(story: Story, index: int) -> npt.NDArray[np.uint8]:
    """The picture (C, H, W) that an answer belongs to: a set may have lost images that could not be read."""
    place = story.data.ids.index(story.evaluation.predictions.ids[index])
    pixels: npt.NDArray[np.uint8] = story.data.image(place).numpy()
    return pixels


def _card(story: Story, index: int, target: int) -> dict[str, Any]:
    image = _image(story, index)
    result = story.evaluation.predictions[index]
    return {
        "id": result.ids[0],
        "label": result.labels[0],
        "probability": float(result.confidences[0]),
        "picture": png_data(as_rgb(image)),
        "heat": png_data(overlay(image, grad_cam(story.bundle, image, target))),
    }

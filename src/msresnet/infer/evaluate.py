"""A model's answers on a labelled set, measured."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from msresnet.bundle import Bundle
from msresnet.data.decode import printable
from msresnet.data.loaders import Samples, open_sets
from msresnet.data.options import DataOptions
from msresnet.data.sample import Relabelled, Source
from msresnet.errors import DataError, UsageError
from msresnet.infer.exits import cost_curve
from msresnet.infer.predictor import Predictor
from msresnet.metrics.classification import confusion
from msresnet.models.cost import count_macs
from msresnet.results import DIGITS, Evaluation

T = TypeVar("T")
MOST_CLASSES = 100
"""With more, the confusion matrix is larger than all else in metrics.json."""
MOST_MISTAKES = 10


def prepare(bundle: Bundle, source: Source, options: DataOptions) -> Samples:
    """A set as a model takes it, its classes matched by name.

    Raises DataError for classes that the model does not know, unlabelled samples, and unreadable images.
    """
    sets, _ = open_sets({"": _matched(source, bundle)}, bundle.preprocess, options, once=True)
    return sets[""]


def evaluate(predictor: Predictor, data: Samples, split: str) -> Evaluation:
    """Measure a model on a prepared set; `split` is what the figures say it is."""
    bundle = predictor.bundle
    start = time.perf_counter()
    results, indices = predictor.predict_set(data)
    spent = time.perf_counter() - start
    measured = bundle.task.evaluate(results, data.targets[indices].numpy())
    figures: dict[str, Any] = {"task": bundle.task.name, "split": split, **measured.metrics}
    figures["inference_images_per_second"] = round(len(results) / spent, 1) if spent else 0.0
    figures["params"] = sum(p.numel() for p in bundle.model.parameters())
    figures["macs"] = count_macs(bundle.model)
    names = bundle.task.class_names
    if len(names) <= MOST_CLASSES:
        figures["confusion"] = confusion(results.indices, measured.targets, len(names)).tolist()
    figures["worst"] = worst(measured)
    if predictor.tta != "none":
        figures["tta"] = predictor.tta
    elif predictor.model.num_exits > 1:
        figures |= cost_curve(predictor.model, bundle.task, predictor.exit_outputs(data), measured)
    if data.bad:
        figures["unreadable"] = len(data.bad)
    return Evaluation(results, measured.targets, figures)


def worst(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The most confident wrong answers, most confident first."""
    results, targets = evaluation.predictions, evaluation.targets
    wrong = np.flatnonzero(results.indices != targets)
    first = wrong[np.argsort(-results.confidences[wrong], kind="stable")][:MOST_MISTAKES]
    return [
        {
            "id": printable(results.ids[i]),
            "truth": results.class_names[targets[i]],
            "label": results.class_names[results.indices[i]],
            "probability": round(float(results.confidences[i]), DIGITS),
        }
        for i in first
    ]


def pick(sets: Mapping[str, T], split: str) -> tuple[str, T]:
    """The set that was asked for; 'auto' is the test set, else validation. Raises UsageError for an absent one."""
    if split == "auto":
        split = next(name for name in ("test", "val", "train", "given") if name in sets)
    if split not in sets:
        raise UsageError(f"there is no {split} set", hint=f"--split {' or '.join(sets)}")
    return split, sets[split]


def predictions_csv(evaluation: Evaluation) -> str:
    """id, truth, label, probability, correct, as CSV; cells that a spreadsheet would run are quoted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "truth", "label", "probability", "correct"])
    names = evaluation.predictions.class_names
    rows = zip(evaluation.predictions.to_dict(1), evaluation.targets, strict=True)
    for item, target in rows:
        truth = names[target]
        correct = int(item["label"] == truth)
        probability = f"{item['probability']:.{DIGITS}f}"
        writer.writerow([*map(safe_cell, (printable(item["id"]), truth, item["label"])), probability, correct])
    return text.getvalue()


def safe_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _matched(source: Source, bundle: Bundle) -> Source:
    names = bundle.task.class_names
    if (source.targets < 0).any():
        raise DataError("the data has no labels", hint="msresnet predict, which needs none")
    unknown = sorted(set(source.classes) - set(names))
    if unknown:
        raise DataError(
            f"the model does not know the class {', '.join(unknown)}",
            why=f"it knows {', '.join(names)}",
            hint="classes are matched by name",
        )
    return source if source.classes == names else Relabelled(source, names)

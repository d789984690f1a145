"""One class for each image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from msresnet.data.augment import Augment
from msresnet.data.decode import printable
from msresnet.data.preprocess import Preprocess
from msresnet.data.resize import Frame
from msresnet.data.sets import Samples
from msresnet.errors import DataError, UsageError
from msresnet.metrics.bootstrap import intervals, risk_interval
from msresnet.metrics.calibration import expected_calibration_error, fit_temperature, reliability
from msresnet.metrics.classification import (
    balanced_accuracy,
    confusion,
    counts,
    in_top_k,
    log_loss,
    macro_f1,
    per_class,
    top_k_accuracy,
    wilson_interval,
)
from msresnet.metrics.coverage import abstain, area_under_risk, coverage_curve
from msresnet.results import DIGITS, Classification, Evaluation, Results, classified
from msresnet.tasks.base import Better, Learning, Subject, Table, Task, class_weights, refuse_mosaic
from msresnet.tasks.postprocess.classification import ClassificationPostprocess
from msresnet.tasks.words import interval, percent, title

MOST_CLASSES = 100
"""With more, the confusion matrix is larger than all else in metrics.json."""
MOST_MISTAKES = 10
BALANCED = "balanced_accuracy"
LABEL_SMOOTHING = 0.05
"""Unless a user says otherwise."""


class ClassificationTask(Task):
    """Softmax over K classes, cross-entropy with label smoothing (arXiv 1512.00567).

    Args:
        class_names: in the order of the class indices.
        label_smoothing: probability spread over all classes.
        class_weights: a factor of an image's loss by its class, of a mixture by its shares; None is one for all.
        temperature: what the logits of a trained network are divided by, so that its probabilities mean what they say.
    """

    name: ClassVar[str] = "classification"
    head: ClassVar[str] = "classifier"
    metric: ClassVar[str] = "top1"
    right_or_wrong: ClassVar[bool] = True
    explained: ClassVar[bool] = True
    calibrates: ClassVar[bool] = True
    calibrated_figures: ClassVar[frozenset[str]] = frozenset(("loss", "ece", "aurc"))
    kept: ClassVar[tuple[str, ...]] = ("n", "top1", "top1_ci95", "loss", "ece")
    gates: ClassVar[dict[str, Better]] = {
        "top1": "higher",
        "top5": "higher",
        "balanced_accuracy": "higher",
        "macro_f1": "higher",
        "loss": "lower",
        "ece": "lower",
        "aurc": "lower",
    }

    def __init__(
        self,
        class_names: Sequence[str],
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(class_names)
        self.label_smoothing, self.temperature = label_smoothing, temperature
        self.class_weights = None if class_weights is None else torch.tensor(class_weights)

    @classmethod
    def check(cls, preprocess: Preprocess, augment: Augment, how: Learning) -> None:
        """Raise UsageError for what compares masks, and for what needs boxes."""
        refuse_mosaic(augment)
        if how.dice:
            why = "it compares masks, and the data has classes of images"
            raise UsageError("--dice has no effect here", why=why, hint="leave it out")

    @classmethod
    def learning(cls, class_names: Sequence[str], data: Samples, how: Learning) -> Self:
        """The task for training on a set."""
        counts = torch.bincount(data.targets, minlength=len(class_names)).tolist()
        smoothing = LABEL_SMOOTHING if how.label_smoothing is None else how.label_smoothing
        return cls(class_names, smoothing, class_weights(counts) if how.weigh else None)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The task that `to_dict` wrote."""
        known = ClassificationPostprocess.from_dict(values)
        return cls(known.class_names, temperature=known.temperature)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for config.json."""
        return super().to_dict() | {"temperature": self.temperature}

    @classmethod
    def chosen_by(cls, how: Learning) -> str:
        """Balanced accuracy where classes are to count alike: in top-1, the constant answer may win."""
        return BALANCED if how.weigh or how.draw else cls.metric

    def encode(self, targets: Tensor) -> Tensor:
        """Class indices (B,) -> one row of probabilities each (B, K)."""
        return F.one_hot(targets, self.num_outputs).float()

    def loss(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        """Logits (B, K) and probabilities (B, K) -> cross-entropy in nats."""
        if self.class_weights is None:
            return F.cross_entropy(outputs.float(), encoded, label_smoothing=self.label_smoothing)
        # torch's own weights would count for the smoothed shares too: a rare class would be the best answer to all.
        each = F.cross_entropy(outputs.float(), encoded, reduction="none", label_smoothing=self.label_smoothing)
        return (each * (encoded @ self.class_weights.to(encoded))).mean()

    def loss_of_each(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        """The cross-entropy of each image (B,)."""
        return F.cross_entropy(outputs.float(), encoded, reduction="none")

    def imitate(self, outputs: Tensor, truth: Tensor, temperature: float) -> Tensor:
        """Divergence of softened answers in nats, times the temperature's square (arXiv 1503.02531, section 2)."""
        mine, theirs = ((t.float() / temperature).log_softmax(1) for t in (outputs, truth))
        return F.kl_div(mine, theirs, reduction="batchmean", log_target=True) * temperature**2

    @property
    def row_width(self) -> int:
        """The logits of an image."""
        return self.num_outputs

    def validation_rows(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, K), all of them."""
        return outputs

    def validation_figures(self, rows: Tensor, targets: Tensor) -> dict[str, float]:
        """Top-1, balanced accuracy and log loss from logits (N, K) and class indices (N,).

        There is no loss where logits are not finite.
        """
        if not bool(rows.isfinite().all()):
            return {self.metric: 0.0, BALANCED: 0.0, "loss": math.nan}
        results = self.postprocess(rows.cpu().numpy(), [""] * len(rows))
        metrics = self.evaluate(results, targets.numpy()).metrics
        return {name: metrics[name] for name in (self.metric, BALANCED, "loss")}

    @property
    def postprocess(self) -> ClassificationPostprocess:
        """Softmax of the logits."""
        return ClassificationPostprocess(self.class_names, self.temperature)

    def evaluate(self, results: Classification, targets: npt.NDArray[np.int64]) -> Evaluation:
        """Top-1 with its interval, top-5, balanced accuracy, F1, log loss, calibration error, figures of each class."""
        correct = results.indices == targets
        found = counts(results.indices, targets, len(self.class_names))
        metrics = {
            "task": self.name,
            "n": len(targets),
            "top1": float(correct.mean()) if len(targets) else 0.0,
            "top1_ci95": list(wilson_interval(int(correct.sum()), len(targets))),
            "top5": top_k_accuracy(results.probabilities, targets, 5),
            "balanced_accuracy": float(balanced_accuracy(found)),
            "macro_f1": float(macro_f1(found)),
            "loss": log_loss(results.probabilities, targets),
            "ece": expected_calibration_error(results.confidences, correct),
            "per_class": per_class(results.indices, targets, self.class_names),
        }
        return Evaluation(results, targets, metrics, self.headline(metrics))

    def details(self, evaluation: Evaluation) -> dict[str, Any]:
        """Intervals, the curves of reliability and of coverage, confusion of not too many classes, worst mistakes."""
        results, targets = classified(evaluation.predictions), evaluation.targets
        right, sure = self.right(evaluation), results.confidences
        top5 = wilson_interval(int(in_top_k(results.probabilities, targets, 5).sum()), len(targets))
        bounds = {"top5": top5, "aurc": risk_interval(sure, right), **intervals(results.probabilities, targets)}
        found: dict[str, Any] = {f"{name}_ci95": None if pair is None else list(pair) for name, pair in bounds.items()}
        found["aurc"] = area_under_risk(sure, right)
        found["temperature"] = self.temperature
        found["reliability"] = [{"confidence": c, "accuracy": a, "n": n} for c, a, n in reliability(sure, right)]
        found["coverage"] = coverage_curve(sure, right)
        if len(self.class_names) <= MOST_CLASSES:
            found["confusion"] = confusion(results.indices, targets, len(self.class_names)).tolist()
        return found | {"worst": worst(evaluation)}

    def right(self, evaluation: Evaluation) -> npt.NDArray[np.bool_]:
        """Whether the most probable class is the true one (N,)."""
        return np.asarray(classified(evaluation.predictions).indices == evaluation.targets)

    def confidences(self, outputs: Tensor) -> npt.NDArray[np.float64]:
        """The probability of the most probable class (N,)."""
        return classified(self.decode(outputs, [""] * len(outputs))).confidences

    def calibrated(self, evaluation: Evaluation) -> tuple[Self, dict[str, Any]]:
        """The same task with the temperature that gives an evaluation's answers the least log loss.

        Raises DataError where there is none: every answer is right, or they are no better than chance.
        """
        results, fitted = classified(evaluation.predictions), copy(self)
        with np.errstate(divide="ignore"):
            logarithms = np.log(results.probabilities) * self.temperature  # logits, but for a constant of each image
        temperature = fit_temperature(logarithms, evaluation.targets)
        if temperature is None:
            sure = bool(len(results)) and bool(self.right(evaluation).all())
            why = "every image is answered rightly" if sure else "the answers are no better than chance"
            hint = "--data with labelled images, some of which it gets wrong"
            raise DataError("no temperature fits these answers", why=f"{why}, of {len(results):,}", hint=hint)
        fitted.temperature = temperature
        after = fitted.evaluate(fitted.postprocess(logarithms, results.ids), evaluation.targets).metrics
        figures = {name: [evaluation.metrics[name], after[name]] for name in ("loss", "ece")}
        return fitted, {"n": len(results), "temperature": [self.temperature, temperature], **figures}

    def abstaining(self, evaluation: Evaluation, below: float) -> dict[str, Any]:
        """The share of images answered, and the accuracy among them."""
        return abstain(classified(evaluation.predictions).confidences, self.right(evaluation), below)

    def subjects(self, outputs: Tensor, results: Results, frame: Frame | None) -> list[Subject]:
        """The classes of the image, the most probable first."""
        probabilities = classified(results).probabilities[0]
        return [Subject(int(i), float(probabilities[i])) for i in np.argsort(-probabilities, kind="stable")]

    def headline(self, metrics: dict[str, Any]) -> str:
        """Top-1 with its interval."""
        sure = interval(metrics["top1_ci95"], unit="")
        return f"top-1 {percent(metrics['top1'])} (95 % interval {sure}) on {metrics['n']:,} images"

    def summary(self, figures: dict[str, Any]) -> dict[str, str]:
        """Images, top-1 and its interval."""
        return {
            "images": f"{figures['n']:,}",
            title("top1"): percent(figures["top1"]),
            "95 % interval": interval(figures["top1_ci95"]),
        }

    def tables(self, metrics: dict[str, Any]) -> list[Table]:
        """Figures of all images, of each class, of each exit, and the most confident mistakes."""
        figures: list[tuple[str, ...]] = [
            (title(name), *_figure(metrics, name, better == "higher"))
            for name, better in self.gates.items()
            if name != "top5" or len(self.class_names) > 5  # of fewer classes it is always right
        ]
        if "abstain" in metrics:
            figures += _abstaining(metrics["abstain"])
        columns = ("precision", "recall", "f1")
        classes = [
            (row["class"], *(f"{100 * row[name]:.1f}" for name in columns), f"{row['n']:,}")
            for row in metrics["per_class"]
        ]
        absent = ", ".join(row["class"] for row in metrics["per_class"] if not row["n"])
        heading = f"{metrics['split']} set, {metrics['n']:,} images" + (f", none of {absent}" if absent else "")
        found = [
            Table(heading, ("figure", "value", "95 % interval"), figures),
            Table("", ("class", *map(title, columns), "images"), classes),
        ]
        if "exits" in metrics:
            found.append(_exits(metrics))
        if metrics["worst"]:
            rows = [(w["id"], w["truth"], w["label"], f"{w['probability']:.4f}") for w in metrics["worst"]]
            found.append(Table("most confident mistakes", ("image", "truth", "answer", "probability"), rows))
        return found

    def rows(self, evaluation: Evaluation) -> list[dict[str, Any]]:
        """Id, truth, label, probability, and whether it is right."""
        found = []
        for item, target in zip(evaluation.predictions.to_dict(1), evaluation.targets, strict=True):
            truth = self.class_names[target]
            answer = {"label": item["label"], "probability": item["probability"]}
            found.append({"id": item["id"], "truth": truth, **answer, "correct": int(item["label"] == truth)})
        return found

    def examples(self, evaluation: Evaluation, most: int) -> list[int]:
        """The most confident mistakes, then the most doubtful answers."""
        results = classified(evaluation.predictions)
        wrong = results.indices != evaluation.targets
        order = np.lexsort((np.where(wrong, -results.confidences, results.confidences), ~wrong))
        return [int(index) for index in order[:most]]


def _figure(metrics: dict[str, Any], name: str, share: bool) -> tuple[str, str]:
    """A figure and its interval in words; one that no interval is known of has none."""
    value, pair = metrics[name], metrics.get(f"{name}_ci95")
    if share:
        return percent(value), interval(pair)
    return f"{value:.4f}", f"{pair[0]:.4f} to {pair[1]:.4f}" if pair else ""


def _abstaining(left: dict[str, Any]) -> list[tuple[str, ...]]:
    """What is left when doubtful answers are withheld, in words."""
    names = {"answered": f"answered, being sure to {left['below']:g}", "accuracy": "right among them"}
    return [(words, *_figure(left, name, share=True)) for name, words in names.items() if left[name] is not None]


def _exits(metrics: dict[str, Any]) -> Table:
    """What each exit, and each bound on how sure an answer must be, gives for which cost."""
    rows = [(f"exit {row['exit']}", row, "") for row in metrics["exits"]]
    for row in metrics["budgets"]:
        shares = " ".join(f"{100 * share:.0f}" for share in row["answered"])
        rows.append((f"probability {row['confidence']:g}", row, shares + " %"))
    cells = [(name, percent(row["top1"]), f"{row['macs'] / 1e6:,.1f} M", shares) for name, row, shares in rows]
    return Table("accuracy against cost", ("stop at", title("top1"), "multiply-adds", "answered at each exit"), cells)


def worst(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The most confident wrong answers, most confident first."""
    results, targets = classified(evaluation.predictions), evaluation.targets
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

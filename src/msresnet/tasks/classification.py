"""One class for each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from msresnet.metrics.calibration import expected_calibration_error
from msresnet.metrics.classification import log_loss, per_class, top_k_accuracy, wilson_interval
from msresnet.results import Classification, Evaluation
from msresnet.tasks.base import Task


class ClassificationTask(Task):
    """Softmax over K classes, cross-entropy with label smoothing (arXiv 1512.00567).

    Args:
        class_names: in the order of the class indices.
        label_smoothing: probability spread over all classes.
        class_weights: a factor of the loss for each class; None is one for all.
    """

    name: ClassVar[str] = "classification"
    metric: ClassVar[str] = "top1"

    def __init__(
        self, class_names: Sequence[str], label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None
    ) -> None:
        super().__init__(class_names)
        self.label_smoothing = label_smoothing
        self.class_weights = None if class_weights is None else torch.tensor(class_weights)

    def encode(self, targets: Tensor) -> Tensor:
        """Class indices (B,) -> one row of probabilities each (B, K)."""
        return F.one_hot(targets, self.num_outputs).float()

    def loss(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        """Logits (B, K) and probabilities (B, K) -> cross-entropy in nats."""
        weights = None if self.class_weights is None else self.class_weights.to(outputs.device)
        return F.cross_entropy(outputs.float(), encoded, weights, label_smoothing=self.label_smoothing)

    def imitate(self, outputs: Tensor, truth: Tensor, temperature: float) -> Tensor:
        """Divergence of softened answers in nats, times the temperature's square (arXiv 1503.02531, section 2)."""
        mine, theirs = ((t.float() / temperature).log_softmax(1) for t in (outputs, truth))
        return F.kl_div(mine, theirs, reduction="batchmean", log_target=True) * temperature**2

    def decode(self, outputs: Tensor, ids: Sequence[str]) -> Classification:
        """Logits (B, K) -> probabilities, in float64."""
        return Classification(tuple(ids), self.class_names, outputs.double().softmax(1).cpu().numpy())

    def evaluate(self, results: Classification, targets: npt.NDArray[np.int64]) -> Evaluation:
        """Top-1 with its 95 % interval, top-5, log loss, calibration error, per-class figures."""
        correct = results.indices == targets
        metrics = {
            "task": self.name,
            "n": len(targets),
            "top1": float(correct.mean()) if len(targets) else 0.0,
            "top1_ci95": list(wilson_interval(int(correct.sum()), len(targets))),
            "top5": top_k_accuracy(results.probabilities, targets, 5),
            "loss": log_loss(results.probabilities, targets),
            "ece": expected_calibration_error(results.confidences, correct),
            "per_class": per_class(results.indices, targets, self.class_names),
        }
        return Evaluation(results, targets, metrics)

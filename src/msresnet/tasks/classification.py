"""One class for each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from msresnet.metrics.calibration import expected_calibration_error
from msresnet.metrics.classification import log_loss, per_class, top_k_accuracy, wilson_interval
from msresnet.results import Classification, Evaluation
from msresnet.tasks.base import Task


class ClassificationTask(Task):
    """Softmax over K classes, cross-entropy with label smoothing (arXiv 1512.00567)."""

    name: ClassVar[str] = "classification"
    metric: ClassVar[str] = "top1"

    def __init__(self, class_names: Sequence[str], label_smoothing: float = 0.0) -> None:
        super().__init__(class_names)
        self.label_smoothing = label_smoothing

    def encode(self, targets: Tensor) -> Tensor:
        """Class indices (B,) -> one row of probabilities each (B, K)."""
        return F.one_hot(targets, self.num_outputs).float()

    def loss(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        """Logits (B, K) and probabilities (B, K) -> cross-entropy in nats."""
        return F.cross_entropy(outputs.float(), encoded, label_smoothing=self.label_smoothing)

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

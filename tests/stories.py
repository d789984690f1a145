"""Stories of given answers for reports, and what tests of pages measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.data.preprocess import Preprocess
from msresnet.data.sets import Decoded
from msresnet.models.factory import create_classifier
from msresnet.report.story import Story
from msresnet.results import Evaluation
from msresnet.tasks.classification import ClassificationTask
from randomise import randomised

NASTY = "<script>window.pwned = 1</script>"
HISTORY = [
    {"epoch": e, "train_loss": 1 / e, "val_loss": 1.2 / e, "val_top1": 1 - 0.5 / e, "lr": 0.1} for e in (1, 2, 3)
]


def story_of(
    names: Sequence[str],
    targets: Tensor,
    outputs: Tensor,
    *,
    images: Tensor | None = None,
    ids: Sequence[str] = (),
    history: Sequence[dict[str, Any]] = (),
    figures: dict[str, Any] | None = None,
) -> Story:
    """A story of given answers (N, K) about images (N, C, H, W), random ones unless given, and an untrained network."""
    torch.manual_seed(0)
    if images is None:
        images = torch.randint(0, 256, (len(targets), 1, 16, 16), dtype=torch.uint8)
    channels, *size = images.shape[1:]
    arguments = {"num_classes": len(names), "in_chans": channels, "img_size": size}
    model = create_classifier("msresnet_micro", num_classes=len(names), in_chans=channels, img_size=(size[0], size[1]))
    randomised(model)
    task = ClassificationTask(names)
    made = Bundle(model, "msresnet_micro", arguments, task, Preprocess((size[0], size[1]), channels))
    named = list(ids) or [f"image {i}" for i in range(len(targets))]
    predictions = task.postprocess(outputs.numpy(), named)
    measured = task.evaluate(predictions, targets.numpy())
    metrics = {"split": "test", **measured.metrics, **task.details(measured), "macs": 1_000_000, **(figures or {})}
    told = Evaluation(predictions, measured.targets, metrics, measured.headline)
    data = Decoded(images, targets, named)
    command = f"msresnet evaluate --data {NASTY}"
    return Story(made, told, data, history, [f"a note & {NASTY}"], {"python": "3", "gpus": []}, command)

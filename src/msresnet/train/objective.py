"""What a step minimises: the task's loss over all exits, and the answers of a teacher beside the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from msresnet.bundle import Bundle, load_bundle
from msresnet.data.preprocess import Preprocess
from msresnet.errors import UsageError
from msresnet.tasks.base import Task


class Objective:
    """The loss of a batch. B images, K classes.

    Args:
        task: what outputs mean.
        preprocess: how pixels in 0 to 1 become the network's input.
        teacher: whose answers are imitated as well (arXiv 1503.02531), if anyone's.
        share: of the teacher in the loss.
        temperature: softens the answers of both.
    """

    def __init__(
        self,
        task: Task,
        preprocess: Preprocess,
        teacher: Teacher | None = None,
        share: float = 0.0,
        temperature: float = 1.0,
    ) -> None:
        self.task, self.preprocess, self.teacher = task, preprocess, teacher
        self.share, self.temperature = (share if teacher is not None else 0.0), temperature

    def __call__(self, answers: Sequence[Tensor], images: Tensor, encoded: Tensor) -> Tensor:
        """Answers of all exits, pixels (B, C, H, W) in 0 to 1, encoded targets -> their mean loss."""
        loss = self.task.loss_of_exits(answers, encoded)
        if self.teacher is None:
            return loss
        truth = self.teacher(images)
        imitated = torch.stack([self.task.imitate(outputs, truth, self.temperature) for outputs in answers]).mean()
        return (1 - self.share) * loss + self.share * imitated

    @torch.no_grad()
    def of_each(self, answers: Sequence[Tensor], encoded: Tensor) -> Tensor:
        """The task's loss of each image (B,), by the last exit's answer."""
        return self.task.loss_of_each(answers[-1].detach(), encoded)


class Teacher:
    """A trained network that sees what the student sees, changes and mixtures included (arXiv 2106.05237).

    Args:
        bundle: the trained model.
        names: the student's classes; the teacher's answers are put in this order.
        preprocess: what is done to the student's images; the teacher's may differ in size and normalisation.
        device: where it computes.

    Raises UsageError for a teacher of other classes, or of images that something else is done to.
    """

    def __init__(self, bundle: Bundle, names: Sequence[str], preprocess: Preprocess, device: torch.device) -> None:
        known = bundle.task.class_names
        if set(known) != set(names):
            raise UsageError(
                "the teacher knows other classes",
                why=f"it knows {', '.join(known)}; the data has {', '.join(names)}",
                hint="a teacher that was trained on the same classes",
            )
        if bundle.preprocess.channels != preprocess.channels:
            why = f"it takes {bundle.preprocess.channels} channels, the images have {preprocess.channels}"
            raise UsageError("the teacher takes other images", why=why, hint=f"--channels {bundle.preprocess.channels}")
        if replace(bundle.preprocess, size=preprocess.size).steps() != preprocess.steps():
            why = f"the teacher's: {bundle.preprocess.steps()}; the student's: {preprocess.steps()}"
            hint = "the teacher's --resize, --threshold and --binary, or another teacher"
            raise UsageError("the teacher takes other images", why=why, hint=hint)
        self.architecture, self.preprocess = bundle.architecture, bundle.preprocess
        self.model = bundle.model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]
        self.order = torch.tensor([known.index(name) for name in names], device=device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Pixels (B, C, H, W) in 0 to 1 -> outputs (B, K), or (B, K, H, W), in the student's order."""
        size = images.shape[-2:]
        if images.shape[-2:] != self.preprocess.size:
            images = F.interpolate(images, self.preprocess.size, mode="bilinear", antialias=True)
        given = self.preprocess.normalise(images).contiguous(memory_format=torch.channels_last)
        outputs: Tensor = self.model(given)
        if outputs.ndim > 2 and outputs.shape[-2:] != size:
            outputs = F.interpolate(outputs, size, mode="bilinear", align_corners=False)
        return outputs[:, self.order]


def open_teacher(place: str, task: Task, preprocess: Preprocess, device: torch.device) -> Teacher:
    """The teacher for a task, in a run's folder, a bundle, or hf:user/repo. Raises ModelError, UsageError."""
    bundle = load_bundle(place)
    if bundle.task.name != task.name:
        what, why = f"the teacher's task is {bundle.task.name}", f"the data is for {task.name}"
        raise UsageError(what, why=why, hint="a teacher that was trained for the same task")
    if not task.imitates:
        why = "its answers cannot be imitated"
        raise UsageError(f"--teacher, but the task is {task.name}", why=why, hint="leave it out")
    return Teacher(bundle, task.class_names, preprocess, device)

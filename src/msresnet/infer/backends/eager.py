"""torch: the folded network of a bundle, as it is or compiled. The only backend with exits and views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.data.sets import Samples
from msresnet.errors import ResourceError, UsageError, first_line
from msresnet.infer.backend import Backend, Exits, Outputs, Pixels
from msresnet.infer.config import TTA, Limited, Running
from msresnet.infer.exits import EarlyExit
from msresnet.infer.predictor import Predictor
from msresnet.infer.tta import averaged
from msresnet.nn.folding import fold
from msresnet.runtime import choose_device, choose_precision


class Eager(Backend):
    """The folded network of a bundle on a device.

    Args:
        bundle: the model.
        how: the backend 'compiled' makes code for the network first, which takes a minute and a C++ compiler; the
            precision 'auto' is float32, so that answers are the same everywhere.

    Raises UsageError for a budget that the network cannot keep, and for views that the task cannot average;
    ResourceError where it cannot be compiled.
    """

    name = "torch"

    def __init__(self, bundle: Bundle, how: Running) -> None:
        tta, compiled = how.tta, how.backend == "compiled"
        if tta != "none" and not bundle.task.averages:
            why = "what is answered for moved and mirrored views belongs to other pixels"
            raise UsageError(f"--tta {tta}, but the task is {bundle.task.name}", why=why, hint="--tta none")
        where, why = choose_device(how.device)
        self.bundle, self.tta, self.where, self.device = bundle, tta, where, str(where)
        self.model = fold(bundle.model).to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.precision = "fp32" if how.precision == "auto" else choose_precision(how.precision, where)[0]
        if how.threads is not None:
            torch.set_num_threads(how.threads)
        self.threads = torch.get_num_threads()
        self.network: Callable[[Tensor], Tensor] = self._compiled() if compiled else self.model
        self.reason = f"torch{', compiled' if compiled else ''}, {self.precision}, on {where} ({why})"
        self.exits: EarlyExit | None = None
        if how.limit is not None:
            image = torch.zeros(1, bundle.preprocess.channels, *bundle.preprocess.size, device=where)
            self.exits = EarlyExit(self.model, bundle.task, how.limit, image, self._autocast)
            self.early = self.exits.reason

    def __call__(self, images: Pixels) -> tuple[Outputs, Exits | None]:
        """Images (B, C, H, W) uint8 -> outputs (B, ...), and by which exit each left (B,) where there is a budget."""
        batch = torch.as_tensor(images)
        if self.exits is None:
            return self._outputs(batch).numpy(), None
        answers, exits = self._early(batch, self.exits)
        return answers.numpy(), exits.numpy()

    @torch.inference_mode()
    def exit_outputs(self, data: Samples, batch_size: int) -> list[Tensor]:
        """The outputs (N, K) of every exit for the readable images of a set."""
        parts = []
        for batch in data.in_order(batch_size, self.where):
            with self._autocast():
                answers = self.model(self._input(batch.images), exits=True)
            parts.append([answer.float().cpu() for answer in answers])
        return [torch.cat(answers) for answers in zip(*parts, strict=True)]

    @torch.inference_mode()
    def _outputs(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> (B, ...) float32 on the CPU."""
        count = len(images)
        if count == 1:
            # Convolutions of one image and matrix products of one row take other paths, whose last bit differs; as
            # one of two an image gets the same answer alone as in company.
            images = images.repeat(2, 1, 1, 1)
        with self._autocast():
            answers = averaged(self.network, self._input(images), self.tta)
        return answers[:count].float().cpu()

    @torch.inference_mode()
    def _early(self, images: Tensor, early: EarlyExit) -> tuple[Tensor, Tensor]:
        answers, exits = early(self._input(images))
        return answers.cpu(), exits.cpu()

    def _autocast(self) -> torch.autocast:
        """Within this, the network computes in the precision that was asked for."""
        return torch.autocast(self.where.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _input(self, images: Tensor) -> Tensor:
        batch = self.bundle.preprocess.tensor(images.to(self.where))
        return batch.contiguous(memory_format=torch.channels_last)

    def _compiled(self) -> Callable[[Tensor], Tensor]:
        """The network, compiled and tried once, so that what is lacking is known before the first image."""
        network: Any = torch.compile(self.model)
        image = torch.zeros(2, self.bundle.preprocess.channels, *self.bundle.preprocess.size, device=self.where)
        try:
            with torch.inference_mode():
                network(image.contiguous(memory_format=torch.channels_last))
        except Exception as error:  # torch wraps what its compilers raise in classes of its own
            why = f"{type(error).__name__}: {first_line(error)}"
            hint = "--backend torch, or install a C++ compiler"
            raise ResourceError("torch cannot compile the network here", why=why, hint=hint) from error
        return network  # type: ignore[no-any-return]


def predictor_of(
    bundle: Bundle,
    device: str = "auto",
    batch_size: int = 64,
    budget: str | None = None,
    tta: TTA = "none",
) -> Predictor:
    """A bundle at work in torch; the arguments are those of `Limited`."""
    how = Limited(device=device, batch_size=batch_size, budget=budget, tta=tta)
    return Predictor(bundle, Eager(bundle, how), batch_size)

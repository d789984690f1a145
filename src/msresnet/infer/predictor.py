"""A bundle at work: images in, results out. Every door goes through here, so that all give the same answer.

Images are uint8 (C, H, W), C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.data.decode import printable
from msresnet.data.loaders import Samples
from msresnet.data.resize import Frame
from msresnet.data.sample import Image
from msresnet.errors import ModelError, UsageError
from msresnet.infer.config import TTA, Budget, check_views
from msresnet.infer.exits import EarlyExit
from msresnet.infer.tta import averaged
from msresnet.nn.folding import fold
from msresnet.results import Results, classified
from msresnet.runtime import choose_device

T = TypeVar("T")


class Predictor:
    """The folded network of a bundle on a device, in float32.

    Args:
        bundle: the model.
        device: 'auto' or a device's name.
        batch_size: images at a time.
        budget: for a network with several exits, when to stop; None always goes to the end.
        tta: views of each image whose outputs are averaged; not beside a budget.

    Raises UsageError for a budget that the network cannot keep, and for views that the task cannot average.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "auto",
        batch_size: int = 64,
        budget: Budget | None = None,
        tta: TTA = "none",
    ) -> None:
        check_views(tta, budget)
        if tta != "none" and not bundle.task.averages:
            why = "what is answered for moved and mirrored views belongs to other pixels"
            raise UsageError(f"--tta {tta}, but the task is {bundle.task.name}", why=why, hint="--tta none")
        self.bundle, self.batch_size, self.tta = bundle, max(1, batch_size), tta
        self.device, _ = choose_device(device)
        self.model = fold(bundle.model).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.early: EarlyExit | None = None
        if budget is not None:
            image = torch.zeros(1, bundle.preprocess.channels, *bundle.preprocess.size, device=self.device)
            self.early = EarlyExit(self.model, bundle.task, budget, image)

    def predict(self, images: Sequence[Image], ids: Sequence[str]) -> Results:
        """Results for decoded images of any size, before preprocessing; what belongs to pixels belongs to theirs.

        Files are decoded at no less than `Preprocess.at_least` everywhere, `stream.decode_all` among them.
        """
        ready = torch.from_numpy(np.stack([self.bundle.preprocess.image(i) for i in images]))
        return self.predict_ready(ready, ids, self._frames((i.shape[1], i.shape[2]) for i in images))

    def predict_ready(self, images: Tensor, ids: Sequence[str], frames: Sequence[Frame] | None = None) -> Results:
        """Results for preprocessed images (N, C, H, W) uint8; `frames` as for `Task.decode`."""
        parts = []
        for start in range(0, len(images), self.batch_size):
            rows = slice(start, start + self.batch_size)
            parts.append(self._results(images[rows], ids[rows], None if frames is None else frames[rows]))
        return type(parts[0]).joined(parts)

    def _frames(self, sizes: Iterable[tuple[int, int]]) -> list[Frame] | None:
        """Where images of these (H, W) lie in the network's input, for a task that answers at their size."""
        return [self.bundle.preprocess.frame(size) for size in sizes] if self.bundle.task.whole else None

    def _answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) uint8 -> (B, K), and the exit of each (B,) where there is a budget, on the CPU."""
        return self._early(images, self.early) if self.early is not None else (self._outputs(images), torch.empty(0))

    def _results(self, images: Tensor, ids: Sequence[str], frames: Sequence[Frame] | None) -> Results:
        """Results for one batch of preprocessed images (B, C, H, W) uint8."""
        answers, exits = self._answers(images)
        check_numbers(answers, ids, self.bundle.architecture)
        results = self.bundle.task.decode(answers, ids, frames)
        return results if self.early is None else replace(classified(results), exits=exits.numpy())

    @torch.inference_mode()
    def exit_outputs(self, data: Samples) -> list[Tensor]:
        """The outputs (N, K) of every exit for the readable images of a set."""
        batches = data.in_order(self.batch_size, self.device)
        parts = [[answer.cpu() for answer in self.model(self._input(b.images), exits=True)] for b in batches]
        return [torch.cat(answers) for answers in zip(*parts, strict=True)]

    def predict_set(self, data: Samples) -> tuple[Results, Tensor]:
        """Results for the readable images of a set, and which they are: indices (N,)."""
        parts, indices = [], []
        for batch in data.in_order(self.batch_size, self.device):
            places = batch.indices.tolist()
            ids, frames = [data.ids[i] for i in places], self._frames(data.size(i) for i in places)
            parts.append(self._results(batch.images, ids, frames))
            indices.append(batch.indices)
        return type(parts[0]).joined(parts), torch.cat(indices)

    @torch.inference_mode()
    def _outputs(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> (B, K) on the CPU."""
        count = len(images)
        if count == 1:
            # Matrix products of one row take another path, whose last bit differs; with two rows an image gets the
            # same answer alone as in company.
            images = images.repeat(2, 1, 1, 1)
        return averaged(self.model, self._input(images), self.tta)[:count].cpu()

    @torch.inference_mode()
    def _early(self, images: Tensor, early: EarlyExit) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) uint8 -> (B, K), and the exit of each (B,), on the CPU."""
        answers, exits = early(self._input(images))
        return answers.cpu(), exits.cpu()

    def _input(self, images: Tensor) -> Tensor:
        batch = self.bundle.preprocess.tensor(images.to(self.device))
        return batch.contiguous(memory_format=torch.channels_last)


def check_numbers(outputs: Tensor, ids: Sequence[str], model: str) -> None:
    """Raise ModelError, naming the first image, for outputs (B, ...) that are not finite: they answer nothing."""
    finite = outputs.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        first = printable(ids[int((~finite).nonzero()[0, 0])])
        why, hint = "infinite or not a number (NaN)", "train it anew, or use an earlier checkpoint"
        raise ModelError(f"what {model} answers are no numbers", where=first, why=why, hint=hint)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk

"""A bundle at work: images in, results out. Every door goes through here, so that all give the same answer.

Images are uint8 (C, H, W), C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.data.loaders import Samples
from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import Image
from msresnet.errors import DataError
from msresnet.infer.config import TTA, Budget, check_views
from msresnet.infer.exits import EarlyExit
from msresnet.infer.inputs import Input
from msresnet.infer.tta import averaged
from msresnet.nn.folding import fold
from msresnet.results import Classification
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

    Raises UsageError for a budget that the network cannot keep.
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
        self.bundle, self.batch_size, self.tta = bundle, max(1, batch_size), tta
        self.device, _ = choose_device(device)
        self.model = fold(bundle.model).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.early: EarlyExit | None = None
        if budget is not None:
            image = torch.zeros(1, bundle.preprocess.channels, *bundle.preprocess.size, device=self.device)
            self.early = EarlyExit(self.model, bundle.task, budget, image)

    def predict(self, images: Sequence[Image], ids: Sequence[str]) -> Classification:
        """Results for decoded images of any size, before preprocessing.

        Files are decoded at no less than `Preprocess.at_least` everywhere, `decode_all` among them.
        """
        ready = torch.from_numpy(np.stack([self.bundle.preprocess.image(i) for i in images]))
        return self.predict_ready(ready, ids)

    def predict_ready(self, images: Tensor, ids: Sequence[str]) -> Classification:
        """Results for preprocessed images (N, C, H, W) uint8."""
        answers, exits = zip(*(self._answers(part) for part in images.split(self.batch_size)), strict=True)
        return self._results(answers, exits, ids)

    def _answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) uint8 -> (B, K), and the exit of each (B,) where there is a budget, on the CPU."""
        return self._early(images, self.early) if self.early is not None else (self._outputs(images), torch.empty(0))

    def _results(self, answers: Sequence[Tensor], exits: Sequence[Tensor], ids: Sequence[str]) -> Classification:
        results = self.bundle.task.decode(torch.cat([*answers]), ids)
        return results if self.early is None else replace(results, exits=torch.cat([*exits]).numpy())

    @torch.inference_mode()
    def exit_outputs(self, data: Samples) -> list[Tensor]:
        """The outputs (N, K) of every exit for the readable images of a set."""
        batches = data.in_order(self.batch_size, self.device)
        parts = [[answer.cpu() for answer in self.model(self._input(b.images), exits=True)] for b in batches]
        return [torch.cat(answers) for answers in zip(*parts, strict=True)]

    def predict_set(self, data: Samples) -> tuple[Classification, Tensor]:
        """Results for the readable images of a set, and which they are: indices (N,)."""
        answers, exits, indices = [], [], []
        for batch in data.in_order(self.batch_size, self.device):
            outputs, left = self._answers(batch.images)
            answers.append(outputs)
            exits.append(left)
            indices.append(batch.indices)
        found = torch.cat(indices)
        results = self._results(answers, exits, [data.ids[i] for i in found.tolist()])
        return results, found

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

    def predict_stream(
        self, items: Iterable[tuple[str, Image | DataError]]
    ) -> Iterator[tuple[Classification | None, list[DataError]]]:
        """Results batch by batch, in order, and the errors of the images that could not be read."""
        for chunk in batched(items, self.batch_size):
            good = [(name, image) for name, image in chunk if not isinstance(image, DataError)]
            bad = [image for _, image in chunk if isinstance(image, DataError)]
            results = self.predict([image for _, image in good], [name for name, _ in good]) if good else None
            yield results, bad


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def decode_all(
    inputs: Iterable[Input], preprocess: Preprocess, workers: int
) -> Iterator[tuple[str, Image | DataError]]:
    """Decode images as `preprocess` needs them, in order, some ahead in threads; an unreadable one gives its error."""
    if workers == 0:
        yield from ((item.id, item.decode(preprocess.at_least)) for item in inputs)
        return
    with ThreadPoolExecutor(workers) as pool:
        for chunk in batched(inputs, 16 * workers):
            images = pool.map(lambda item: item.decode(preprocess.at_least), chunk)
            yield from zip([item.id for item in chunk], images, strict=True)

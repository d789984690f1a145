"""A model at work: images in, results out. Every door and every backend goes through here, so that all answer alike.

Images are uint8 (C, H, W), C channels, H and W pixels. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from msresnet.data.decode import printable
from msresnet.data.resize import Frame
from msresnet.data.sample import Image
from msresnet.errors import ModelError
from msresnet.infer.backend import Backend, Outputs, Pixels
from msresnet.results import Results
from msresnet.tasks.postprocess.base import Postprocess
from msresnet.trained import Trained

if TYPE_CHECKING:
    from torch import Tensor

    from msresnet.data.sets import Samples

T = TypeVar("T")


class Predictor:
    """A trained model and what runs it.

    Args:
        trained: what the model says of itself.
        backend: its network at work.
        batch_size: images at a time.
        postprocess: how outputs are read; None is as the model says.
    """

    def __init__(
        self, trained: Trained, backend: Backend, batch_size: int = 64, postprocess: Postprocess | None = None
    ) -> None:
        self.trained, self.backend, self.batch_size = trained, backend, max(1, batch_size)
        self.postprocess = trained.postprocess if postprocess is None else postprocess

    def from_score(self, score: float) -> Predictor:
        """The same model, its answers for people beginning at a score. Raises UsageError for a task without scores."""
        return self._with(self.postprocess.from_score(score))

    def predict(self, images: Sequence[Image], ids: Sequence[str]) -> Results:
        """Results for decoded images of any size, before preprocessing; what belongs to pixels belongs to theirs.

        Files are decoded at no less than `Preprocess.at_least` everywhere.
        """
        return self.postprocess.shown(self._with(self.postprocess.for_people()).everything(images, ids))

    def everything(self, images: Sequence[Image], ids: Sequence[str]) -> Results:
        """The same, with the answers that are too unsure to be shown to people."""
        ready = np.stack([self.trained.preprocess.image(i) for i in images])
        return self.predict_ready(ready, ids, self.frames((i.shape[1], i.shape[2]) for i in images))

    def predict_ready(self, images: Pixels, ids: Sequence[str], frames: Sequence[Frame] | None = None) -> Results:
        """Results for preprocessed images (N, C, H, W) uint8; `frames` as for `Postprocess`."""
        parts = []
        for start in range(0, len(images), self.batch_size):
            rows = slice(start, start + self.batch_size)
            parts.append(self._results(images[rows], ids[rows], None if frames is None else frames[rows]))
        return type(parts[0]).joined(parts)

    def predict_set(self, data: Samples) -> tuple[Results, Tensor]:
        """Results for the readable images of a set, and which they are: indices (N,)."""
        import torch

        parts, indices = [], []
        for batch in data.in_order(self.batch_size, torch.device(self.backend.device)):
            places = batch.indices.tolist()
            ids, frames = [data.ids[i] for i in places], self.frames(data.size(i) for i in places)
            parts.append(self._results(batch.images, ids, frames))
            indices.append(batch.indices)
        return type(parts[0]).joined(parts), torch.cat(indices)

    def frames(self, sizes: Iterable[tuple[int, int]]) -> list[Frame] | None:
        """Where images of these (H, W) lie in the network's input, for a task that answers at their size."""
        return [self.trained.preprocess.frame(size) for size in sizes] if self.postprocess.whole else None

    def _with(self, postprocess: Postprocess) -> Predictor:
        """The same network, its outputs read otherwise."""
        return Predictor(self.trained, self.backend, self.batch_size, postprocess)

    def _results(self, images: Pixels, ids: Sequence[str], frames: Sequence[Frame] | None) -> Results:
        """Results for one batch of preprocessed images (B, C, H, W) uint8."""
        outputs, exits = self.backend(images)
        check_numbers(outputs, ids, self.trained.architecture)
        results = self.postprocess(outputs, ids, frames)
        return results if exits is None else results.with_exits(exits)


def check_numbers(outputs: Outputs, ids: Sequence[str], model: str) -> None:
    """Raise ModelError, naming the first image, for outputs (B, ...) that are not finite: they answer nothing."""
    finite = np.isfinite(outputs).reshape(len(outputs), -1).all(1)
    if not finite.all():
        first = printable(ids[int(np.flatnonzero(~finite)[0])])
        why, hint = "infinite or not a number (NaN)", "train it again, or use an earlier checkpoint"
        raise ModelError(f"what {model} answers are not numbers", where=first, why=why, hint=hint)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk

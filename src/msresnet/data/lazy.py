"""Sets larger than memory: an image is decoded when it is asked for, by threads that run ahead of who asks.

Decoders give up Python's lock, so threads are enough. The order of batches, and what takes the place of an unreadable
image, do not depend on the number of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from msresnet.data.cache import Store
from msresnet.data.preprocess import Preprocess
from msresnet.data.resize import as_tensor
from msresnet.data.sample import Batch, Image, Source
from msresnet.data.sets import Samples
from msresnet.data.targets import padded, rows_of
from msresnet.data.unreadable import Unreadable, class_lost
from msresnet.errors import DataError

AHEAD = 2
"""Batches that are made ready before they are asked for; of small batches, as many as keep all threads busy."""
Failures = list[tuple[int, DataError]]


@dataclass(frozen=True)
class _Coming:
    """A batch that is being filled: which samples, their pixels (B, C, H, W), and the rows that failed."""

    part: Tensor
    images: Tensor
    jobs: list[Future[Failures]]


class Lazy(Samples):
    """A source and what is done to its images, when they are asked for.

    Args:
        source: where images come from.
        preprocess: what every image goes through.
        workers: threads that decode; 0 uses the calling one.
        store: keeps what was decoded; None decodes again in each epoch.
        unreadable: shared by the sets that are judged together; None for a set by itself.
        name: of this set among them.
    """

    def __init__(
        self,
        source: Source,
        preprocess: Preprocess,
        workers: int = 0,
        *,
        store: Store | None = None,
        unreadable: Unreadable | None = None,
        name: str = "",
    ) -> None:
        super().__init__(torch.from_numpy(np.array(source.targets)), source.ids)
        self.source, self.preprocess, self.workers, self.store = source, preprocess, workers, store
        self.unreadable, self.name = unreadable or Unreadable({name: len(source)}), name
        self.members = dict[int, npt.NDArray[np.int64]]()

    @property
    def bad(self) -> list[tuple[str, str]]:
        """(id, reason) of each unreadable image that was met so far."""
        return self.unreadable.of(self.name)

    @property
    def notes(self) -> list[str]:
        """That the cache's disk took no more, if so."""
        trouble = self.store.trouble if self.store is not None else ""
        return [f"the cache takes no more images, the others are decoded again: {trouble}"] if trouble else []

    def image(self, index: int) -> Tensor:
        """One image (C, H, W) uint8, or the one that takes its place."""
        found = self._read(index)
        planes = as_tensor(self._instead(index, found)[1] if isinstance(found, DataError) else found)
        return planes[: self.preprocess.channels]

    def truth(self, index: int) -> Any:
        """What belongs to one sample."""
        return self.source.truth(index)

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of one sample's image as it came."""
        return self.source.size(index)

    def batches(self, parts: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        """A batch for each tensor of indices, in order. Raises DataError where too many images are unreadable."""
        if self.workers == 0:
            for part in parts:
                images = self._empty(len(part), device)
                yield self._batch(part, images, self._fill(images, range(len(part)), part.tolist()), device)
            return
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        try:
            yield from self._ahead(pool, parts, device)
        finally:
            pool.shutdown(cancel_futures=True)

    def _ahead(self, pool: ThreadPoolExecutor, parts: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        coming: deque[_Coming] = deque()
        for part in parts:
            coming.append(self._start(pool, part, device))
            if len(coming) > max(AHEAD, 2 * self.workers // max(1, len(part))):
                yield self._finish(coming.popleft(), device)
        while coming:
            yield self._finish(coming.popleft(), device)

    def _start(self, pool: ThreadPoolExecutor, part: Tensor, device: torch.device) -> _Coming:
        images, indices = self._empty(len(part), device), part.tolist()
        rows = [range(first, len(part), self.workers) for first in range(min(self.workers, len(part)))]
        return _Coming(part, images, [pool.submit(self._fill, images, r, [indices[i] for i in r]) for r in rows])

    def _finish(self, coming: _Coming, device: torch.device) -> Batch:
        failures = sorted((f for job in coming.jobs for f in job.result()), key=lambda failure: failure[0])
        return self._batch(coming.part, coming.images, failures, device)

    def _empty(self, count: int, device: torch.device) -> Tensor:
        shape = (count, *self.preprocess.shape(self.source))
        return torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")

    def _fill(self, images: Tensor, rows: Iterable[int], indices: list[int]) -> Failures:
        """Read samples into rows of a batch; the rows of those that cannot be read, with the reasons."""
        pixels, failures = images.numpy(), []
        for row, index in zip(rows, indices, strict=True):
            found = self._read(index)
            if isinstance(found, DataError):
                failures.append((row, found))
            else:
                pixels[row] = found
        return failures

    def _batch(self, part: Tensor, images: Tensor, failures: Failures, device: torch.device) -> Batch:
        indices = part.clone() if failures else part
        for row, error in failures:
            indices[row], image = self._instead(int(part[row]), error)
            images[row] = as_tensor(image)
        moved, channels = images.to(device, non_blocking=True), self.preprocess.channels
        if self.source.planes:
            return Batch(moved[:, :channels], moved[:, channels], indices)
        if self.source.boxed:
            boxes = padded([rows_of(self.source, index, self.preprocess) for index in indices.tolist()])
            return Batch(moved, boxes.to(device, non_blocking=True), indices)
        return Batch(moved, self.targets[indices].to(device, non_blocking=True), indices)

    def _read(self, index: int) -> Image | DataError:
        kept = None if self.store is None else self.store.read(index)
        try:
            image = self.preprocess.read(self.source, index) if kept is None else kept
            if self.source.boxed:
                self.source.size(index)  # it may stand in the file alone: here, where nobody waits for a batch
        except DataError as error:
            return error
        if self.store is not None and kept is None:
            self.store.write(index, image)
        return image

    def _instead(self, index: int, error: DataError) -> tuple[int, Image]:
        """The next readable sample of the same class, and its image. Raises DataError where that is no way out."""
        self._note(index, error)
        members = self._members(int(self.targets[index]))
        first = int(np.searchsorted(members, index, side="right"))
        for place in range(first, first + len(members)):
            other = int(members[place % len(members)])
            if other in self.unreadable.found[self.name]:
                continue
            found = self._read(other)
            if not isinstance(found, DataError):
                return other, found
            self._note(other, found)
        raise class_lost([self.source.classes[int(self.targets[index])]], self.bad)

    def _members(self, target: int) -> npt.NDArray[np.int64]:
        """The samples of a class, in the order of the set; found once, for many images may be unreadable."""
        if target not in self.members:
            self.members[target] = np.flatnonzero(self.targets.numpy() == target)
        return self.members[target]

    def _note(self, index: int, error: DataError) -> None:
        if index not in self.unreadable.found[self.name]:
            self.unreadable.add(self.name, index, self.ids[index], error)
            self.unreadable.judge(" met so far")

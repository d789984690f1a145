"""Inputs without end, answered batch by batch: few are in memory at any time, whatever their number and size."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import Image
from msresnet.errors import DataError
from msresnet.infer.inputs import Input
from msresnet.infer.predictor import Predictor
from msresnet.results import Results

S = TypeVar("S")
T = TypeVar("T")
AHEAD = 2
"""Images for each thread that are decoded before their turn comes."""
MOST_BYTES = 256 << 20
"""Of the images of a batch, as they are decoded."""


@dataclass(frozen=True)
class Read:
    """An input that was decoded: its image (C, H, W) or why there is none, and a reduced one to show."""

    id: str
    image: Image | DataError
    preview: Image | None = None


@dataclass(frozen=True)
class Answered:
    """A batch: its results, the reduced images beside them, and for each input, in order, why it could not be read."""

    results: Results | None
    previews: list[Image | None]
    errors: list[DataError | None]

    @property
    def bad(self) -> list[DataError]:
        """The errors of what could not be read."""
        return [error for error in self.errors if error is not None]


def answer_all(
    predictor: Predictor, inputs: Iterable[Input], workers: int, previews: bool = False
) -> Iterator[Answered]:
    """The answers to inputs, in their order, as they come."""
    read = ahead(lambda item: _read(item, predictor.trained.preprocess, previews), inputs, workers)
    for batch in _batches(read, predictor.batch_size):
        good = [(r.id, r.image, r.preview) for r in batch if not isinstance(r.image, DataError)]
        errors = [r.image if isinstance(r.image, DataError) else None for r in batch]
        results = predictor.predict([image for _, image, _ in good], [name for name, _, _ in good]) if good else None
        yield Answered(results, [preview for _, _, preview in good], errors)


def ahead(
    work: Callable[[S], T], items: Iterable[S], workers: int, most: int | None = None
) -> Generator[T, None, None]:
    """`work` of each item, in order; threads do it for up to `most` items in advance, a few for each if that is None.

    No threads: one after the other.
    """
    if workers == 0:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[T]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > (AHEAD * workers if most is None else most):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(item: Input, preprocess: Preprocess, preview: bool) -> Read:
    if preview and preprocess.whole:  # what is shown belongs to the image's own pixels
        whole = item.decode(preprocess.at_least)
        return Read(item.id, whole, None if isinstance(whole, DataError) else whole)
    image, small = item.decode_with_preview(preprocess.at_least, preview)
    return Read(item.id, image, small)


def _batches(read: Iterable[Read], size: int) -> Iterator[Sequence[Read]]:
    """Lists of up to `size`, shorter where images are large."""
    batch: list[Read] = []
    held = 0
    for item in read:
        batch.append(item)
        held += 0 if isinstance(item.image, DataError) else item.image.nbytes
        if len(batch) == size or held >= MOST_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch

"""Prediction over shards, each into a file of its own, by any number of processes that may be killed at any time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from msresnet.bundle import Bundle
from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import Image
from msresnet.errors import DataError, Interrupted
from msresnet.infer.answers import Row, columns, need_pyarrow, open_answers, unreadable
from msresnet.infer.backends.opened import open_predictor, run_bundle
from msresnet.infer.config import PredictConfig
from msresnet.infer.inputs import Input
from msresnet.infer.ledger import Ledger, Mark, digest
from msresnet.infer.predictor import batched
from msresnet.infer.shards import Shard
from msresnet.infer.stream import ahead
from msresnet.runtime import StopRequest, version
from msresnet.trained import Trained


@dataclass(frozen=True)
class Outcome:
    """What became of a shard.

    `state`: answered now; whole before; another process is at it; or it cannot be read (`error` says why).
    """

    shard: str
    state: Literal["answered", "whole", "busy", "failed"]
    images: int = 0
    unreadable: int = 0
    error: str = ""


@dataclass
class Tally:
    """The outcomes of some shards, the last of each."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    finished: int = 0
    """Shards whose answers are whole."""

    def add(self, outcome: Outcome) -> None:
        """Note one."""
        self.outcomes[outcome.shard] = outcome
        self.finished += outcome.state in ("answered", "whole")

    def of(self, state: str) -> list[Outcome]:
        """Those of a kind."""
        return [outcome for outcome in self.outcomes.values() if outcome.state == state]

    @property
    def images(self) -> int:
        """Rows in all whole answers."""
        return sum(outcome.images for outcome in self.outcomes.values())

    @property
    def unreadable(self) -> int:
        """Rows without an answer in them."""
        return sum(outcome.unreadable for outcome in self.outcomes.values())


class Worker:
    """A model and a folder of answers, for one shard after the other.

    Args:
        given: the model, or the exported file that it lies in.
        config: how it is to answer, into which folder, and what people call it.
        stop: asks to leave a shard unfinished.

    Raises UsageError for a folder that cannot be used, ResourceError for what is lacking.
    """

    def __init__(self, given: Bundle | Path, config: PredictConfig, stop: StopRequest) -> None:
        assert config.output is not None
        if config.form == "parquet":
            need_pyarrow()
        predictor = open_predictor(given, config) if isinstance(given, Path) else run_bundle(given, config)
        self.predictor = predictor if config.score is None else predictor.from_score(config.score)
        self.config, self.stop = config, stop
        self.ledger = Ledger(Path(config.output), _settings(config, self.predictor.trained), config.form)

    def do(self, shard: Shard) -> Outcome:
        """Answer a shard, unless it is answered or others are at it. Raises Interrupted, ResourceError."""
        self._go_on()
        try:
            stamp = shard.stamp()
            mark = self.ledger.done(shard, stamp)
            if mark is not None and not self.ledger.begun(shard.name):
                return _whole(shard, mark)
            with self.ledger.hold(shard.name) as ours:
                if not ours:
                    return Outcome(shard.name, "busy") if mark is None else _whole(shard, mark)
                mark = self.ledger.done(shard, stamp)
                if mark is not None:
                    return _whole(shard, mark)
                mark = self.ledger.keep(shard, stamp, lambda part: self._answer(shard, stamp, part))
        except DataError as error:
            return Outcome(shard.name, "failed", error=str(error))
        return Outcome(shard.name, "answered", mark.images, mark.unreadable)

    def _answer(self, shard: Shard, stamp: str, part: Path) -> tuple[int, int]:
        """Write a shard's answers; how many images there are, and how many cannot be read."""
        names = columns(self.predictor.trained.postprocess, self.predictor.backend.early is not None)
        images = bad = 0
        with open_answers(part, self.config.form, names) as answers:
            for rows in self._rows(shard):
                answers.add(rows)
                images, bad = images + len(rows), bad + sum("error" in row for row in rows)
                self._go_on()
        if shard.stamp() != stamp:
            raise DataError("the shard was changed while it was read", where=str(shard.path), hint="the same command")
        return images, bad

    def _go_on(self) -> None:
        if self.stop.code:
            hint = "the same command continues"
            raise Interrupted("stopped; whole answers stay", exit_code=self.stop.code, hint=hint)

    def _rows(self, shard: Shard) -> Iterator[list[Row]]:
        with closing(self._images(shard)) as images:
            for chunk in batched(images, self.predictor.batch_size):
                good = [(name, image) for name, image in chunk if not isinstance(image, DataError)]
                rows = iter(self._good(good))
                yield [unreadable(n, image) if isinstance(image, DataError) else next(rows) for n, image in chunk]

    def _images(self, shard: Shard) -> Generator[tuple[str, Image | DataError], None, None]:
        """The images as a network takes them, or as they are where an answer has their size."""
        trained, workers = self.predictor.trained, self.config.workers
        if trained.postprocess.whole:
            return ahead(lambda item: (item.id, item.decode(trained.preprocess.at_least)), shard.items(), workers)
        return read_ahead(shard.items(), trained.preprocess, workers, 2 * self.predictor.batch_size)

    def _good(self, pairs: Sequence[tuple[str, Image]]) -> list[Row]:
        if not pairs:
            return []
        names, images = zip(*pairs, strict=True)
        if self.predictor.trained.postprocess.whole:
            return self.predictor.predict(images, names).to_dict(self.config.top)
        return self.predictor.predict_ready(np.stack(images), names).to_dict(self.config.top)


def _settings(config: PredictConfig, trained: Trained) -> dict[str, Any]:
    """What answers depend on."""
    top = None if config.form == "csv" else config.top
    chosen = {"format": config.form, "top": top, "budget": config.budget, "tta": config.tta}
    asked = {"backend": config.backend, "precision": config.precision}
    runs: dict[str, Any] = {name: value for name, value in asked.items() if value != "auto"}
    runs |= {} if config.score is None else {"score": config.score}
    return {"model": config.model, "digest": digest(trained), **chosen, **runs, "msresnet": version()}


def work(worker: Worker, shards: Sequence[Shard], note: Callable[[Outcome, Tally], None]) -> Tally:
    """Answer all shards that nobody else is at; those that others are at are looked at again in the end.

    `note` is told of each shard that was answered or failed. Raises Interrupted, ResourceError.
    """
    tally, waiting = Tally(), list(shards)
    while waiting:
        outcomes = [_noted(worker.do(shard), tally, note) for shard in waiting]
        busy = {outcome.shard for outcome in outcomes if outcome.state == "busy"}
        if len(busy) == len(waiting):
            break
        waiting = [shard for shard in waiting if shard.name in busy]
    return tally


def _noted(outcome: Outcome, tally: Tally, note: Callable[[Outcome, Tally], None]) -> Outcome:
    tally.add(outcome)
    if outcome.state in ("answered", "failed"):
        note(outcome, tally)
    return outcome


def beginning(shards: Sequence[Shard], environment: Mapping[str, str]) -> list[Shard]:
    """The shards in the order in which this process is to look at them, by what its launcher says.

    Launchers number their processes (RANK of WORLD_SIZE; SLURM_PROCID of SLURM_NTASKS) and arrays their tasks
    (SLURM_ARRAY_TASK_ID): each begins at its own share and goes on into the others'. It is a hint and no more.
    """
    place, parts = 0, 1
    for numbers in (_array(environment), _numbers(environment, "SLURM_PROCID", "SLURM_NTASKS")):
        place, parts = place * numbers[1] + numbers[0], parts * numbers[1]
    number, count = _numbers(environment, "RANK", "WORLD_SIZE")
    if count > 1:
        place, parts = number, count
    start = place * len(shards) // parts
    return [*shards[start:], *shards[:start]]


def _array(environment: Mapping[str, str]) -> tuple[int, int]:
    """Which task of how many of a SLURM array this is; 0 of 1 where there is none."""
    names = ("ID", "MIN", "MAX", "STEP")
    at, low, high, step = (environment.get(f"SLURM_ARRAY_TASK_{name}", "1") for name in names)
    if not all(text.isdecimal() for text in (at, low, high, step)) or not int(low) <= int(at) <= int(high):
        return 0, 1
    size = max(1, int(step))
    return (int(at) - int(low)) // size, (int(high) - int(low)) // size + 1


def _numbers(environment: Mapping[str, str], place: str, count: str) -> tuple[int, int]:
    number, total = environment.get(place, "0"), environment.get(count, "1")
    known = number.isdecimal() and total.isdecimal() and int(number) < int(total)
    return (int(number), int(total)) if known else (0, 1)


def read_ahead(
    items: Iterable[Input], preprocess: Preprocess, workers: int, most: int
) -> Generator[tuple[str, Image | DataError], None, None]:
    """Images as a network takes them, in order, or why there is none; threads make up to `most` of them in advance."""
    return ahead(lambda item: (item.id, _ready(item, preprocess)), items, workers, most)


def _ready(item: Input, preprocess: Preprocess) -> Image | DataError:
    """One image as a network takes it (C, H, W) uint8, or why there is none."""
    image = item.decode(preprocess.at_least)
    return image if isinstance(image, DataError) else preprocess.image(image)


def _whole(shard: Shard, mark: Mark) -> Outcome:
    return Outcome(shard.name, "whole", mark.images, mark.unreadable)

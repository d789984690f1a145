"""A detector and an association at work on one frame after the other, in bounded memory; and how well they do.

A frame's answer comes when the next few are known, as `Association` says. C channels, H and W pixels, M boxes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import numpy as np

from msresnet.data.decode import printable
from msresnet.data.sample import Image, Source
from msresnet.data.sources.mot import TRUTH, read_uncut
from msresnet.errors import DataError, UsageError
from msresnet.infer.backends.opened import bundle_at, open_predictor
from msresnet.infer.config import Running
from msresnet.infer.moving import Frame
from msresnet.infer.predictor import Predictor
from msresnet.infer.track_config import Looks, TrackConfig
from msresnet.results import Detections, Tracks
from msresnet.tasks.postprocess.base import Postprocess
from msresnet.track.association import Association, Rules
from msresnet.track.figures import Figures, Truth, figures


@dataclass(frozen=True)
class Answer:
    """A frame and the tracks in it, which are none where it could not be read."""

    frame: Frame
    tracks: Tracks


def opened(model: str, how: Running, looks: Looks) -> tuple[Predictor, bool]:
    """A detector at work, and whether it says what objects look like.

    Raises UsageError for a model of another task, and where looks are asked for that it does not have.
    """
    if looks == "features":
        return _with_features(model, how), True
    predictor = open_predictor(model, how)
    _check_boxes(predictor.postprocess, model)
    learnt = bool(predictor.trained.arguments.get("embedding"))
    if looks == "learnt" and not learnt:
        hint = "--appearance features, or train on videos that say who is who, such as digit-videos"
        raise UsageError("the model has learnt no vectors that tell objects apart", where=model, hint=hint)
    return predictor, learnt and looks != "none"


def _with_features(model: str, how: Running) -> Predictor:
    """A bundle whose answers carry its features, untrained for that, as vectors."""
    from msresnet.infer.backends.eager import Eager
    from msresnet.nn.embedding import PooledFeatures

    bundle = bundle_at(model, "--appearance features")
    _check_boxes(bundle.task.postprocess, model)
    network: Any = bundle.model
    network.embedder = PooledFeatures(network.strides)
    return Predictor(bundle, Eager(bundle, how), how.batch_size)


def _check_boxes(postprocess: Postprocess, model: str) -> None:
    if postprocess.rules is None:
        why = f"the model's task is {postprocess.task}, and boxes are what is followed"
        raise UsageError("the model cannot follow objects", where=model, why=why, hint="train on data with boxes")


def rules_of(config: TrackConfig, predictor: Predictor, looks: bool) -> Rules:
    """How boxes are associated, by what the user says and the model at work knows."""
    known = predictor.postprocess.rules
    assert known is not None
    compared = looks and config.tracker != "cbiou"  # which compares boxes in a way of its own
    return Rules(
        tracker=config.tracker, sure=known.sure, keep=config.keep, appearance=config.weight if compared else 0.0
    )


def follow(frames: Iterable[Frame], predictor: Predictor, rules: Rules) -> Iterator[Answer]:
    """The tracks in each frame, in order. Where frames change their size, all tracks end and new ones begin.

    Raises what `frames` raises, when what came before is answered; ResourceError without the library.
    """
    association, trouble = Association(rules), None
    waiting: deque[Frame] = deque()
    size: tuple[int, ...] | None = None
    try:
        for frame, found in _detected(frames, predictor):
            if frame.image is not None:
                if size is not None and frame.image.shape[1:] != size:
                    yield from _answers(waiting, association.finish())
                size = frame.image.shape[1:]
            waiting.append(frame)
            yield from _answers(waiting, association.add(found, frame.image))
    except DataError as error:
        trouble = error
    yield from _answers(waiting, association.finish())
    if trouble is not None:
        raise trouble


def _answers(waiting: deque[Frame], settled: list[Tracks]) -> Iterator[Answer]:
    return (Answer(waiting.popleft(), tracks) for tracks in settled)


def _detected(frames: Iterable[Frame], predictor: Predictor) -> Iterator[tuple[Frame, Detections]]:
    """Frames with the boxes in each, a batch at a time; what cannot be read holds none."""
    iterator = iter(frames)
    trouble: DataError | StopIteration | None = None
    while trouble is None:
        batch: list[Frame] = []
        try:
            while len(batch) < predictor.batch_size:
                batch.append(next(iterator))
        except (DataError, StopIteration) as error:
            trouble = error
        read = [frame for frame in batch if frame.image is not None]
        found = iter(_boxes(read, predictor) if read else ())
        for frame in batch:
            yield frame, _nothing(frame.name, predictor) if frame.image is None else next(found)
    if isinstance(trouble, DataError):
        raise trouble


def _boxes(read: list[Frame], predictor: Predictor) -> Detections:
    images = [frame.image for frame in read if frame.image is not None]
    return cast(Detections, predictor.everything(images, [frame.name for frame in read]))


def _nothing(name: str, predictor: Predictor) -> Detections:
    boxes, scores, classes = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    return Detections((name,), predictor.trained.postprocess.class_names, (boxes,), (scores,), (classes,))


def measure(source: Source, predictor: Predictor, rules: Rules) -> tuple[dict[str, Tracks], Figures]:
    """Follow the objects of labelled videos: the tracks in each, by name, and how good they are.

    Raises UsageError for data that does not say who is who, DataError for a frame that cannot be read.
    """
    answers, truths = dict[str, Tracks](), dict[str, Truth]()
    for name, indices in videos_of(source).items():
        frames = (_sample(source, index) for index in indices)
        answers[name] = Tracks.joined([answer.tracks for answer in follow(frames, predictor, rules)])
        truths[name] = _truth(source, indices)
    return answers, figures(answers, truths)


def measure_files(source: Source, folder: Path) -> tuple[dict[str, Tracks], Figures]:
    """Measure tracks that somebody else found in labelled videos, NAME.txt in MOTChallenge's layout for each.

    Raises UsageError for data that does not say who is who, DataError for a file that is absent or cannot be.
    """
    answers, truths = dict[str, Tracks](), dict[str, Truth]()
    for name, indices in videos_of(source).items():
        answers[name] = _read(folder / f"{name}.txt", len(indices))
        truths[name] = _truth(source, indices)
    return answers, figures(answers, truths)


def _truth(source: Source, indices: Sequence[int]) -> Truth:
    """The truth as MOTChallenge counts it: where a file has it, boxes of people who leave the image go on outside."""
    path = next((path for path in source.files(indices[0]) if path.match(TRUTH)), None)
    if path is not None:
        boxes, objects = zip(*read_uncut(path, len(indices)), strict=True)
        return Truth(boxes, objects)
    who = [source.identities(index) for index in indices]
    known = [np.zeros(0, np.int64) if numbers is None else numbers for numbers in who]
    return Truth([source.truth(index) for index in indices], known)


def _read(path: Path, frames: int) -> Tracks:
    """The tracks in a file, of a video of so many frames."""
    rows = [(boxes.chosen(who > 0), who[who > 0]) for boxes, who in read_uncut(path, frames, answers=True)]
    found = Detections(
        tuple(f"{printable(path)}[{number}]" for number in range(1, frames + 1)),
        ("object",),
        tuple(boxes.xyxy for boxes, _ in rows),
        tuple(np.ones(len(boxes), np.float32) for boxes, _ in rows),
        tuple(boxes.classes for boxes, _ in rows),
    )
    return Tracks(found, tuple(who for _, who in rows))


def videos_of(source: Source) -> dict[str, list[int]]:
    """The frames of each video of a labelled set, by name. Raises UsageError for data that does not say who is who."""
    if not len(source) or source.identities(0) is None:
        why = "it does not say which objects of different images are the same"
        raise UsageError(
            "the data cannot measure tracks", why=why, hint="--data digit-videos, or MOTChallenge's layout"
        )
    keys = [source.split_key(index).decode("utf-8", "replace") for index in range(len(source))]
    runs = [(name, list(indices)) for name, indices in groupby(range(len(keys)), keys.__getitem__)]
    return dict(runs)


def _sample(source: Source, index: int) -> Frame:
    image: Image = source.image(index)
    return Frame(source.ids[index], image)

"""A detector and an association at work on one frame after the other, in bounded memory; and how well they do.

A frame's answer comes when the next few are known, as `Association` says. C channels, H and W pixels, M boxes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from msresnet.data.sample import Image, Source
from msresnet.errors import DataError, UsageError
from msresnet.infer.backends.opened import open_predictor
from msresnet.infer.config import Running
from msresnet.infer.moving import Frame
from msresnet.infer.predictor import Predictor
from msresnet.infer.track_config import Looks, TrackConfig
from msresnet.results import Detections, Tracks
from msresnet.tasks.postprocess.detection import DetectionPostprocess
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
    post = predictor.postprocess
    if not isinstance(post, DetectionPostprocess):
        why = f"the model's task is {post.task}, and boxes are what is followed"
        raise UsageError("the model cannot follow objects", where=model, why=why, hint="train on data with boxes")
    return predictor, looks != "none"


def _with_features(model: str, how: Running) -> Predictor:
    """A bundle whose answers carry its features, untrained for that, as vectors."""
    from msresnet.bundle import load_bundle
    from msresnet.infer.backends.eager import Eager
    from msresnet.models.detector import Detector
    from msresnet.nn.embedding import PooledFeatures

    bundle = load_bundle(model)
    network: Any = bundle.model
    if not isinstance(network, Detector):
        raise UsageError("the model cannot follow objects", where=model, why=f"its task is {bundle.task.name}")
    network.embedder = PooledFeatures(network.strides)
    return Predictor(bundle, Eager(bundle, how), how.batch_size)


def rules_of(config: TrackConfig, predictor: Predictor, looks: bool) -> Rules:
    """How boxes are associated, by what the user says and the model knows."""
    post = predictor.postprocess
    assert isinstance(post, DetectionPostprocess)
    sure = post.rules.sure if config.score is None else config.score
    return Rules(tracker=config.tracker, sure=sure, keep=config.keep, appearance=config.weight if looks else 0.0)


def follow(frames: Iterable[Frame], predictor: Predictor, rules: Rules) -> Iterator[Answer]:
    """The tracks in each frame, in order. Where frames change their size, all tracks end and new ones begin.

    Raises what `frames` raises, when what came before is answered; ResourceError without the library.
    """
    association = Association(rules)
    waiting: deque[Frame] = deque()
    size: tuple[int, ...] | None = None
    for frame, found in _detected(frames, predictor):
        if frame.image is not None:
            if size is not None and frame.image.shape[1:] != size:
                yield from _answers(waiting, association.finish())
            size = frame.image.shape[1:]
        waiting.append(frame)
        yield from _answers(waiting, association.add(found, frame.image))
    yield from _answers(waiting, association.finish())


def _answers(waiting: deque[Frame], settled: list[Tracks]) -> Iterator[Answer]:
    return (Answer(waiting.popleft(), tracks) for tracks in settled)


def _detected(frames: Iterable[Frame], predictor: Predictor) -> Iterator[tuple[Frame, Detections]]:
    """Frames with the boxes in each, a batch at a time; what cannot be read holds none."""
    iterator, trouble = iter(frames), None
    while trouble is None:
        batch: list[Frame] = []
        try:
            while len(batch) < predictor.batch_size:
                batch.append(next(iterator))
        except StopIteration:
            trouble = StopIteration()
        except DataError as error:
            trouble = error
        read = [frame for frame in batch if frame.image is not None]
        found = iter(_boxes(read, predictor) if read else ())
        for frame in batch:
            yield frame, _nothing(frame.name, predictor) if frame.image is None else next(found)
    if isinstance(trouble, DataError):
        raise trouble


def _boxes(read: list[Frame], predictor: Predictor) -> Detections:
    images = [frame.image for frame in read if frame.image is not None]
    results = predictor.everything(images, [frame.name for frame in read])
    assert isinstance(results, Detections)
    return results


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
        who = [source.identities(index) for index in indices]
        known = [np.zeros(0, np.int64) if numbers is None else numbers for numbers in who]
        truths[name] = Truth([source.truth(index) for index in indices], known)
    return answers, figures(answers, truths)


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

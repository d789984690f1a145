"""A model's answers on a labelled set, measured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from msresnet.data.loaders import open_sets
from msresnet.data.options import DataOptions
from msresnet.data.sample import Relabelled, Source
from msresnet.data.sets import Samples
from msresnet.errors import DataError, UsageError
from msresnet.infer.backends.eager import Eager
from msresnet.infer.exits import cost_curve
from msresnet.infer.predictor import Predictor
from msresnet.results import Evaluation
from msresnet.tasks.base import Task
from msresnet.trained import Trained

T = TypeVar("T")


def prepare(trained: Trained, source: Source, options: DataOptions) -> Samples:
    """A set as a model takes it, its classes matched by name.

    Raises DataError for classes that the model does not know, unlabelled samples, and unreadable images.
    """
    sets, _ = open_sets({"given": _matched(source, trained.task)}, trained.preprocess, options, once=True)
    return sets["given"]


def evaluate(predictor: Predictor, data: Samples, split: str) -> Evaluation:
    """Measure a model on a prepared set; `split` is what the figures say it is."""
    trained, task = predictor.trained, predictor.trained.task
    _warm_up(predictor, len(data))
    start = time.perf_counter()
    results, indices = predictor.predict_set(data)
    spent = time.perf_counter() - start
    measured = task.evaluate(results, task.truths(data, indices))
    figures: dict[str, Any] = {"task": task.name, "split": split, **measured.metrics}
    figures["inference_images_per_second"] = round(len(results) / spent, 1) if spent else 0.0
    figures["params"] = trained.params
    figures["macs"] = trained.macs
    figures |= task.details(measured)
    figures |= _in_torch(predictor, data, measured)
    if data.bad:
        figures["unreadable"] = len(data.bad)
    return Evaluation(results, measured.targets, figures, task.headline(figures))


def _warm_up(predictor: Predictor, images: int) -> None:
    """Answer one batch that nobody times: the first one also pays for what is made once."""
    preprocess = predictor.trained.preprocess
    batch = min(predictor.batch_size, images)
    predictor.backend(np.zeros((batch, preprocess.channels, *preprocess.size), np.uint8))


def _in_torch(predictor: Predictor, data: Samples, measured: Evaluation) -> dict[str, Any]:
    """What only torch can say: which views were averaged, and what each exit would have answered."""
    eager = predictor.backend
    if not isinstance(eager, Eager):
        return {"backend": eager.name, "precision": eager.precision}
    if eager.tta != "none":
        return {"tta": eager.tta}
    if eager.model.num_exits == 1:
        return {}
    return cost_curve(eager.model, eager.bundle.task, eager.exit_outputs(data, predictor.batch_size), measured)


def pick(sets: Mapping[str, T], split: str) -> tuple[str, T]:
    """The set that was asked for; 'auto' is the test set, else validation. Raises UsageError for an absent one."""
    if split == "auto":
        split = next(name for name in ("test", "val", "train", "given") if name in sets)
    if split not in sets:
        raise UsageError(f"there is no {split} set", hint=f"--split {' or '.join(sets)}")
    return split, sets[split]


def _matched(source: Source, task: Task) -> Source:
    names = task.class_names
    if source.task != task.name:
        raise DataError(f"the data is for {source.task}, the model for {task.name}", hint="--data OTHER")
    if (source.targets < 0).any():
        raise DataError("the data has no labels", hint="msresnet predict, which needs none")
    unknown = sorted(set(source.classes) - set(names))
    if unknown:
        raise DataError(
            f"the model does not know the class {', '.join(unknown)}",
            why=f"it knows {', '.join(names)}",
            hint=f"--data with classes of these names, such as folders {', '.join(names[:3])}",
        )
    return source if source.classes == names else Relabelled(source, names)

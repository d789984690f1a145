"""What the estimators of the Python door share: their arguments, what these mean to training, saving and asking."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence, Sized
from contextlib import suppress
from copy import copy
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from msresnet.bundle import Bundle, check_own
from msresnet.data.arrays import Range, as_arrays, as_list, is_one, pixels_of_one
from msresnet.data.sample import Image, Source
from msresnet.data.splits import Splits, arrange, open_data, read_any
from msresnet.errors import DataError, UsageError, nearest
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.calibrate import settled
from msresnet.infer.config import TTA
from msresnet.infer.evaluate import evaluate as measure
from msresnet.infer.evaluate import pick, prepare
from msresnet.infer.inputs import expand
from msresnet.infer.predictor import Predictor
from msresnet.infer.stream import answer_all
from msresnet.machine import cores
from msresnet.results import Evaluation, Results
from msresnet.train.config import TrainConfig
from msresnet.train.fit import fit as train
from msresnet.train.observer import Observer, Printing, Silent
from msresnet.train.recipes import find_recipe
from msresnet.train.taken import own_arguments

Images = Sequence[Image] | Image
"""Images (C, H, W) one by one, or (N, C, H, W) of one size."""

ARGUMENTS = {
    **{name: name for name in ("model", "epochs", "batch_size", "lr", "time_limit")},
    "val_fraction": "validation_fraction",
    "seed": "random_state",
}
"""Settings of `msresnet train` that are arguments of the constructor, by their name there."""
ELSEWHERE = {
    **dict.fromkeys(("data", "val_data"), "fit(X, y, validation_data=...) takes the data"),
    "test_data": "evaluate(X, y) measures on other data",
    **dict.fromkeys(("output", "exist_ok"), "save(folder) writes the model"),
    "resume": "msresnet train --resume continues a run",
    **dict.fromkeys(("devices", "shard"), "fit trains in one process; msresnet train --devices, in several"),
    "test_fraction": "evaluate(X, y) measures on what fit was not given",
}
"""Settings of `msresnet train` that an estimator has no use for, and what does their work."""


class ImageEstimator(BaseEstimator, ABC):  # type: ignore[misc]
    """A model that is fitted to images; its arguments are described where users meet them, at `Classifier`."""

    task: str
    """What it is for, by the task's name."""
    truths: str
    """What `evaluate` needs beside images, in a word."""
    form: str = ""
    """How that is given, where it is more than one array."""
    classes_: npt.NDArray[Any]
    bundle_: Bundle
    history_: list[dict[str, Any]]
    _predictor: Predictor

    def __init__(
        self,
        model: str = "auto",
        *,
        epochs: int | None = None,
        batch_size: int = 128,
        lr: float | None = None,
        time_limit: str | None = None,
        validation_fraction: float | None = None,
        random_state: int | np.random.RandomState | None = 0,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.time_limit = time_limit
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.options = options

    def fit(
        self,
        X: Any,  # noqa: N803
        y: Any = None,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        validation_data: Any = None,
        verbose: bool | int = 0,
    ) -> Self:
        """Train on arrays, or on what `msresnet train --data` takes.

        Args:
            X: images as arrays, or a path or name as text.
            y: what is to be learnt of each image; None with a path.
            epochs, batch_size: for this call, in place of the constructor's.
            validation_data: (X, y) beside arrays, a path beside a path; it chooses the model. None holds some of X out.
            verbose: 1 prints a line for each epoch.

        Raises UsageError and DataError (both ValueErrors); the model is then what it was before. A KeyboardInterrupt
        says what is kept: the best of the epochs that were done, as if training had ended there.
        """
        fresh = copy(self)
        for name in [name for name in vars(self) if name.endswith("_")]:  # what an earlier fit has learnt
            delattr(fresh, name)
        config = fresh._config(epochs=epochs, batch_size=batch_size)
        try:
            interrupted = fresh._fit(X, y, config, validation_data, Printing() if verbose else Silent())
        except KeyboardInterrupt:
            raise KeyboardInterrupt("nothing of this fit is kept; the model is what it was before") from None
        self.__dict__ = fresh.__dict__
        if interrupted:
            done = len(self.history_)
            raise KeyboardInterrupt(f"stopped after epoch {done}; the model is fitted: the best epoch is kept")
        return self

    def _fit(self, X: Any, y: Any, config: TrainConfig, validation: Any, observer: Observer) -> bool:  # noqa: N803
        """What `fit` does; whether an interrupt ended it early."""
        if validation is not None and is_path(validation) != is_path(X):
            raise UsageError("data and validation_data are a path and arrays", hint="give both in the same form")
        if not (validation is None or is_path(validation) or (isinstance(validation, Sized) and len(validation) == 2)):
            raise UsageError("validation_data is not a pair", hint="validation_data=(X, y)")
        value_range: Range = None
        if is_path(X):
            beside = None if validation is None else one_path(validation)
            splits = open_data(one_path(X), replace(config, val_data=beside))
            if splits.train.task != self.task:
                what = f"the data is for {splits.train.task}, {type(self).__name__} for {self.task}"
                hint = "Classifier for classes of images, Segmenter for masks, Detector for boxes"
                raise UsageError(what, where=str(X), hint=hint)
            labels, self.classes_ = None, np.array(splits.classes)
        else:
            splits, value_range = self._splits(X, y, validation, config)
            labels = plain(self.classes_)
        fitted = train(config, splits, observer=observer, interruptible=True)
        bundle, _ = settled(fitted.bundle, fitted.sets, partial(predictor_of, device=config.device))
        preprocess = replace(bundle.preprocess, value_range=value_range)
        self.bundle_, self.history_ = replace(bundle, preprocess=preprocess, labels=labels), fitted.history
        self._predictor = predictor_of(self.bundle_, config.device)
        return fitted.interrupted

    def _splits(self, X: Any, y: Any, validation: Any, config: TrainConfig) -> tuple[Splits, Range]:  # noqa: N803
        """The sets in arrays, and the range of values that all later images are measured by; sets `classes_`."""
        train, value_range = self._training(X, y)
        found = {"train": train}
        if validation is not None:
            images = self._pixels(validation[0], value_range, "validation_data")
            found["val"] = self._source(images, validation[1], train.classes, "validation_data", "validation")
        return self._arranged(found, config), value_range

    def _arranged(self, found: dict[str, Source], config: TrainConfig) -> Splits:
        """The sets in arrays, and what is held out where one is missing."""
        return arrange(found, config)

    @abstractmethod
    def _training(self, X: Any, y: Any) -> tuple[Source, Range]:  # noqa: N803
        """The training set in arrays, and the range of its values; sets `classes_`."""

    @abstractmethod
    def _source(self, images: Images, y: Any, classes: Sequence[str], name: str = "y", prefix: str = "array") -> Source:
        """A set in arrays, once `classes_` is set.

        Args:
            images: what `_pixels` gives.
            y: what is known of each, as `fit` takes it.
            classes: their names.
            name: what errors call `y`.
            prefix: what the images' ids begin with.

        Raises DataError for what the model does not know, and for what does not belong to the images.
        """

    def loaded_classes(self, bundle: Bundle) -> npt.NDArray[Any]:
        """The labels of a model that was not fitted here: those that it was fitted with, else the classes' names."""
        return np.array(bundle.task.class_names if bundle.labels is None else bundle.labels)

    @classmethod
    def from_bundle(cls, bundle: Bundle, device: str = "auto") -> Self:
        """An estimator that has the model of a bundle, as if it had been fitted.

        Its arguments say which network it is, what that was made with, and the device, so that a clone trains the like
        there; they do not say how the model was trained.

        Args:
            bundle: what `load_bundle` gives.
            device: where it answers: 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'.

        Raises UsageError for the model of another task, and for a device that is not here.
        """
        if bundle.task.name != cls.task:
            what = f"the model is for {bundle.task.name}, {cls.__name__} for {cls.task}"
            raise UsageError(what, hint="msresnet.load(folder), which chooses the estimator")
        model = cls(bundle.architecture, options={"device": device, "model_args": own_arguments(bundle.arguments)})
        model.bundle_, model.history_ = bundle, []
        model.classes_ = model.loaded_classes(bundle)
        model._predictor = predictor_of(bundle, device)
        return model

    def evaluate(self, X: Any, y: Any = None) -> Evaluation:  # noqa: N803
        """The figures of the model on arrays and what is known of them, or on a path.

        Of classes: accuracy with its interval, loss, calibration and figures of each class. Of masks: mean IoU, pixel
        accuracy with its interval, boundary F and figures of each class. Of boxes: average precision, of all classes
        and of each.

        Args:
            X: images as arrays, or a path or name as text, of which the test set is measured, else the validation set,
                else all there is.
            y: labels, masks or objects, as `fit` takes them; None with a path.

        Raises UsageError without `y` beside arrays, DataError for what the model does not know.
        """
        check_is_fitted(self, "bundle_")
        return self._measured(self._predictor, X, y)

    def _measured(self, predictor: Predictor, X: Any, y: Any) -> Evaluation:  # noqa: N803
        """What `evaluate` gives, of the model at work."""
        config = self._config()
        if is_path(X):
            split, source = pick(read_any(one_path(X), config)[0], "auto")
        elif y is None:
            raise UsageError(f"evaluate needs {self.truths}", why=self.form, hint="evaluate(X, y), or a folder")
        else:
            split, source = "given", self._source(self._images(X), y, self.bundle_.task.class_names)
        return measure(predictor, prepare(self.bundle_, source, config), split)

    def _pixels(self, X: Any, value_range: Range, name: str = "X") -> Images:  # noqa: N803
        """Arrays as uint8 (C, H, W), one for each image; `name` is what errors call them."""
        return [pixels_of_one(image, value_range) for image in as_arrays(X, name)]

    def _images(self, X: Any) -> Images:  # noqa: N803
        """Images to answer for. Raises DataError where an array may be one image or several."""
        return self._pixels(self._several(as_list(X)), self.bundle_.preprocess.value_range)

    def _several(self, X: Any) -> Any:  # noqa: N803
        """Images to answer for, an array (H, W, C) being one of them.

        Raises DataError for an array (3, H, W) where the model takes colour, which may be one image or three.
        """
        if isinstance(X, Sequence):
            return X
        dense = np.asarray(X)
        if dense.ndim == 3 and is_one(dense.shape):
            return dense[None]
        if self.bundle_.preprocess.channels == 3 and dense.ndim == 3 and len(dense) == 3:
            what = f"an array of shape {dense.shape} may be one image in colour or three grey ones"
            raise DataError(what, why="the model takes colour", hint="X[None] for one image, X[:, None] for three")
        return X

    def save(self, folder: str | Path) -> Path:
        """Write the trained model as a bundle that every verb of `msresnet` takes; over an earlier one, in its place.

        Raises UsageError where a file of another kind would be overwritten.
        """
        check_is_fitted(self, "bundle_")
        check_own(Path(folder))
        return self.bundle_.save(Path(folder))

    def _config(self, **given: Any) -> TrainConfig:
        """The settings of training, those that are `given` in place of the constructor's."""
        options = dict(self.options or {})
        known = {f.name for f in fields(TrainConfig)} - ARGUMENTS.keys() - ELSEWHERE.keys()
        for key, value in options.items():
            if key in ARGUMENTS:
                what = f"{key!r} is an argument of its own, no option"
                raise UsageError(what, hint=f"{type(self).__name__}({ARGUMENTS[key]}={value!r})")
            if key in ELSEWHERE:
                raise UsageError(f"the option {key!r} has no meaning here", hint=ELSEWHERE[key])
            if key not in known:
                raise UsageError(f"unknown option {key!r}", hint=nearest(key, known) or ", ".join(sorted(known)))
        settings = {setting: getattr(self, argument) for setting, argument in ARGUMENTS.items()}
        if options.get("recipe") is not None:
            usual = type(self)()
            chosen = {key: value for key, value in settings.items() if value != getattr(usual, ARGUMENTS[key])}
            settings |= find_recipe(str(options["recipe"])).settings | chosen
        settings |= {"seed": seed_of(self.random_state), "workers": 0, "test_fraction": 0.0, **options}
        settings |= {name: value for name, value in given.items() if value is not None}
        kinds = get_type_hints(TrainConfig)
        return TrainConfig(**{name: _of_kind(name, value, kinds[name]) for name, value in settings.items()})

    def _asked(self, budget: str | None, tta: TTA) -> Predictor:
        """The model at work as a call wants it."""
        if budget is None and tta == "none":
            return self._predictor
        limit = None if budget is None else str(budget)
        return predictor_of(self.bundle_, self._config().device, budget=limit, tta=tta)

    def _results(self, X: Any, predictor: Predictor) -> Results:  # noqa: N803
        if not is_path(X):
            images = list(self._images(X))
            return predictor.predict(images, [f"array[{i}]" for i in range(len(images))])
        words = [str(X)] if isinstance(X, (str, Path)) else [str(each) for each in X]
        parts = list[Results]()
        for answered in answer_all(predictor, expand(words, io.BytesIO()), cores()):
            if answered.bad:
                raise answered.bad[0]
            assert answered.results is not None  # all of the batch could be read
            parts.append(answered.results)
        return type(parts[0]).joined(parts)


def seed_of(random_state: Any) -> int:
    """A seed from what scikit-learn takes as random_state."""
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


def _of_kind(setting: str, value: Any, kind: Any) -> Any:
    """A value as training takes it: also numbers of numpy, and a list, or a value alone, for a tuple.

    Raises UsageError for one of another kind.
    """
    value = value.item() if isinstance(value, np.generic) else value
    for meant in (value, tuple(value) if isinstance(value, list) else (value,)):
        with suppress(TypeCheckError):
            return check_type(meant, kind, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    words = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
    name = ARGUMENTS.get(setting, setting)
    raise UsageError(f"{name}={value!r}", why=f"it takes {words}", hint=_example(name, kind))


def _example(name: str, kind: Any) -> str:
    """What to type for an argument: one of its texts, or its usual value."""
    choices = [choice for part in (kind, *get_args(kind)) if get_origin(part) is Literal for choice in get_args(part)]
    usual = {field.name: field.default for field in fields(TrainConfig)}
    setting = next((setting for setting, argument in ARGUMENTS.items() if argument == name), name)
    return " or ".join(f"{name}={value!r}" for value in (choices or [usual[setting]]))


def is_path(X: Any) -> bool:  # noqa: N803
    """Whether data is a path or a name, or a list of them, and no array."""
    return isinstance(X, (str, Path)) or (
        isinstance(X, (list, tuple)) and bool(X) and all(isinstance(each, (str, Path)) for each in X)
    )


def one_path(X: Any) -> str:  # noqa: N803
    """The path or name of a set. Raises UsageError for a list of them."""
    if isinstance(X, (str, Path)):
        return str(X)
    raise UsageError("a list of paths is not a set", why="a set is a folder, a table or a name", hint="a folder")


def plain(classes: npt.NDArray[Any]) -> list[Any] | None:
    """Labels as JSON can hold them, or None for labels of another kind, which are known by their names."""
    labels = [label.item() if isinstance(label, np.generic) else label for label in classes.tolist()]
    return labels if all(isinstance(label, (str, int, float)) for label in labels) else None


class Places:
    """The indices of labels that a model knows, as they were fitted, by an equal number or by their text.

    Args:
        classes: the labels, in their order.
    """

    def __init__(self, classes: npt.NDArray[Any]) -> None:
        self.labels = classes.tolist()
        by_number = {_key(label): index for index, label in enumerate(self.labels)}
        self.places = by_number | {str(label): index for index, label in enumerate(self.labels)}

    def of(self, labels: list[Any], where: str = "") -> list[int]:
        """The index of each label. Raises DataError for one that is unknown, `where` being what it belongs to."""
        found = [self.places.get(str(label), self.places.get(_key(label))) for label in labels]
        if None in found:
            unknown = str(labels[found.index(None)])
            why = f"the model knows {', '.join(map(str, self.labels))}"
            raise DataError(f"unknown label {unknown!r}", where=where, why=why)
        return cast(list[int], found)


def _key(label: Any) -> str:
    """The same text for labels that are equal, as 1, 1.0 and True are."""
    whole = isinstance(label, bool) or (isinstance(label, float) and label.is_integer())
    return str(int(label)) if whole else str(label)

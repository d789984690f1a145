"""What the estimators of the Python door share: their arguments, what these mean to training, saving and asking."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sized
from contextlib import suppress
from copy import copy
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from msresnet.bundle import Bundle
from msresnet.data.arrays import Range
from msresnet.data.sample import Image
from msresnet.data.splits import Splits, open_data, read_any
from msresnet.errors import DataError, UsageError, nearest
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.calibrate import settled
from msresnet.infer.config import TTA
from msresnet.infer.config import budget as read_budget
from msresnet.infer.evaluate import evaluate as measure
from msresnet.infer.evaluate import prepare
from msresnet.infer.inputs import expand
from msresnet.infer.predictor import Predictor
from msresnet.infer.stream import decode_all
from msresnet.results import Evaluation, Results
from msresnet.train.config import TrainConfig
from msresnet.train.fit import fit as train

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
}
"""Settings of `msresnet train` that an estimator has no use for, and what does their work."""


class ImageEstimator(BaseEstimator, ABC):  # type: ignore[misc]
    """A model that is fitted to images; its arguments are described where users meet them, at `Classifier`."""

    task: str
    """What it is for, by the task's name."""
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
    ) -> Self:
        """Train on arrays, or on what `msresnet train --data` takes.

        Args:
            X: images as arrays, or a path or name as text.
            y: what is to be learnt of each image; None with a path.
            epochs, batch_size: for this call, in place of the constructor's.
            validation_data: (X, y) beside arrays, a path beside a path; it chooses the model. None holds some of X out.

        Raises UsageError and DataError (both ValueErrors); the model is then what it was before.
        """
        fresh = copy(self)
        for name in [name for name in vars(self) if name.endswith("_")]:  # what an earlier fit has learnt
            delattr(fresh, name)
        fresh._fit(X, y, epochs, batch_size, validation_data)
        self.__dict__ = fresh.__dict__
        return self

    def _fit(self, X: Any, y: Any, epochs: int | None, batch_size: int | None, validation: Any) -> None:  # noqa: N803
        config = self._config(epochs=epochs, batch_size=batch_size)
        if validation is not None and is_path(validation) != is_path(X):
            raise UsageError("data and validation_data are a path and arrays", hint="give both in the same form")
        if not (validation is None or is_path(validation) or (isinstance(validation, Sized) and len(validation) == 2)):
            raise UsageError("validation_data is no pair", hint="validation_data=(X, y)")
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
        fitted = train(config, splits)
        bundle, _ = settled(fitted.bundle, fitted.sets, partial(predictor_of, device=config.device))
        preprocess = replace(bundle.preprocess, value_range=value_range)
        self.bundle_, self.history_ = replace(bundle, preprocess=preprocess, labels=labels), fitted.history
        self._predictor = predictor_of(self.bundle_, config.device)

    @abstractmethod
    def _splits(self, X: Any, y: Any, validation: Any, config: TrainConfig) -> tuple[Splits, Range]:  # noqa: N803
        """The sets in arrays, and the range of values that all later images are measured by; sets `classes_`."""

    def loaded_classes(self, bundle: Bundle) -> npt.NDArray[Any]:
        """The labels of a model that was not fitted here: those that it was fitted with, else the classes' names."""
        return np.array(bundle.task.class_names if bundle.labels is None else bundle.labels)

    @abstractmethod
    def _images(self, X: Any) -> list[Image]:  # noqa: N803
        """Arrays to predict on, as uint8 (C, H, W)."""

    def _measured(self, path: str, tta: TTA) -> Evaluation:
        """What an evaluation on data at a path gives: of its test set, else the validation set, else all there is."""
        config, predictor = self._config(), self._asked(None, tta)
        found, _ = read_any(path, config)
        name = next(split for split in ("test", "val", "train") if split in found)
        return measure(predictor, prepare(self.bundle_, found[name], config), name)

    def save(self, folder: str | Path) -> Path:
        """Write the trained model as a bundle that every verb of `msresnet` takes."""
        check_is_fitted(self, "bundle_")
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
        settings |= {"seed": seed_of(self.random_state), "workers": 0, "test_fraction": 0.0, **options}
        settings |= {name: value for name, value in given.items() if value is not None}
        kinds = get_type_hints(TrainConfig)
        return TrainConfig(**{name: _of_kind(name, value, kinds[name]) for name, value in settings.items()})

    def _asked(self, budget: str | None, tta: TTA) -> Predictor:
        """The model at work as a call wants it."""
        if budget is None and tta == "none":
            return self._predictor
        limit = None if budget is None else read_budget(str(budget))
        return predictor_of(self.bundle_, self._config().device, budget=limit, tta=tta)

    def _results(self, X: Any, predictor: Predictor) -> Results:  # noqa: N803
        if not is_path(X):
            images = self._images(X)
            return predictor.predict(images, [f"array[{i}]" for i in range(len(images))])
        words = [str(X)] if isinstance(X, (str, Path)) else [str(each) for each in X]
        pairs = list(decode_all(expand(words, io.BytesIO()), self.bundle_.preprocess, 0))
        for _, image in pairs:
            if isinstance(image, DataError):
                raise image
        return predictor.predict([cast(Image, image) for _, image in pairs], [name for name, _ in pairs])


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
    raise UsageError("a list of paths is no set", why="a set is a folder, a table or a name", hint="a folder")


def plain(classes: npt.NDArray[Any]) -> list[Any] | None:
    """Labels as JSON can hold them, or None for labels of another kind, which are known by their names."""
    labels = [label.item() if isinstance(label, np.generic) else label for label in classes.tolist()]
    return labels if all(isinstance(label, (str, int, float)) for label in labels) else None


E = TypeVar("E", bound=ImageEstimator)


def opened(model: E, bundle: Bundle) -> E:
    """An estimator that has the model of a bundle, as if it had been fitted."""
    model.bundle_, model.history_ = bundle, []
    model.classes_ = model.loaded_classes(bundle)
    model._predictor = predictor_of(bundle)
    return model

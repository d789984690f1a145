"""The Python door: `Classifier`, with scikit-learn's conventions, and `load`.

    from msresnet import Classifier

    model = Classifier(epochs=10).fit(x_train, y_train, validation_data=(x_test, y_test))
    model.evaluate(x_test, y_test)

Images come as arrays (N, H, W), (N, H, W, C) or (N, C, H, W), as flat rows of pixels (N, H*W), as a folder, or as
anything else that `msresnet train --data` takes. How numbers become pixels is settled by what the model was trained on,
never by the images that come later: after arrays that are not uint8, the range found in them is black to white; after
bytes, files or folders, uint8 is 0 to 255 and any other kind of number is a share of 1.
"""

from __future__ import annotations

import io
from copy import copy
from dataclasses import fields, replace
from math import isqrt
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import assert_all_finite, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, column_or_1d, validate_data

from msresnet.bundle import load_bundle
from msresnet.data.preprocess import to_uint8
from msresnet.data.sample import ArraySource, Image, Source
from msresnet.data.splits import Splits, arrange, open_data, read_any
from msresnet.errors import DataError, UsageError, nearest
from msresnet.infer.config import TTA
from msresnet.infer.config import budget as read_budget
from msresnet.infer.evaluate import evaluate as measure
from msresnet.infer.evaluate import prepare
from msresnet.infer.inputs import expand
from msresnet.infer.predictor import Predictor, decode_all
from msresnet.results import Classification, Evaluation
from msresnet.train.config import TrainConfig
from msresnet.train.fit import fit as train

FLAT = 2
Array = npt.NDArray[Any]
Range = tuple[float, float] | None
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


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A multi-scale ResNet that classifies images.

    Args:
        model: a name from `list_models()`; 'auto' chooses by the images.
        epochs: passes over the data; None is 20, or as many as `time_limit` allows.
        batch_size: images in a step.
        lr: highest learning rate; None chooses by optimiser and batch size.
        time_limit: longest training time, such as '2m'.
        validation_fraction: share of the data that chooses the model; 0 holds none out; None is 0.1, of large
            sets about 5,000 images.
        random_state: a seed, or a numpy RandomState to draw it from.
        options: any other setting of `msresnet train`, such as {'optimizer': 'sgd', 'mixup': 0.2}.

    Attributes:
        classes_: the labels, sorted; names as text where the model was trained on files or on the command line.
        bundle_: the trained model, as `save` writes it.
        history_: one row for each epoch.
    """

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
    ) -> Classifier:
        """Train on arrays and labels, or on what `msresnet train --data` takes.

        Args:
            X: images as arrays, or a path or name as text.
            y: labels (N,), numbers or strings; None with a path.
            epochs, batch_size: for this call, in place of the constructor's.
            validation_data: (X, y) beside arrays, a path beside a path; it chooses the model. None holds some of X out.

        Raises UsageError and DataError (both ValueErrors); the model is then what it was before.
        """
        fresh = copy(self)
        fresh._fit(X, y, epochs, batch_size, validation_data)
        self.__dict__ = fresh.__dict__
        return self

    def _fit(self, X: Any, y: Any, epochs: int | None, batch_size: int | None, validation: Any) -> None:  # noqa: N803
        config = self._config()
        config = replace(
            config,
            epochs=config.epochs if epochs is None else epochs,
            batch_size=config.batch_size if batch_size is None else batch_size,
        )
        if validation is not None and _is_path(validation) != _is_path(X):
            raise UsageError("data and validation_data are a path and arrays", hint="give both in the same form")
        value_range: Range = None
        if _is_path(X):
            splits = open_data(str(X), replace(config, val_data=None if validation is None else str(validation)))
            labels, self.classes_ = None, np.array(splits.classes)
        else:
            images, value_range = self._first_images(X, y)
            splits = self._splits(images, y, validation, value_range, config)
            labels = _plain(self.classes_)
        fitted = train(config, splits)
        preprocess = replace(fitted.bundle.preprocess, value_range=value_range)
        self.bundle_, self.history_ = replace(fitted.bundle, preprocess=preprocess, labels=labels), fitted.history
        self._predictor = Predictor(self.bundle_, config.device)

    def predict_proba(self, X: Any, budget: str | None = None, tta: TTA = "none") -> npt.NDArray[np.float64]:  # noqa: N803
        """Probabilities (N, K), in the order of `classes_`; `budget` and `tta` as in `predict`."""
        check_is_fitted(self, "bundle_")
        return self._results(X, self._asked(budget, tta)).probabilities

    def predict(self, X: Any, budget: str | None = None, tta: TTA = "none") -> Any:  # noqa: N803
        """Labels (N,) out of `classes_` for arrays; for a file, folder or pattern, a `Classification`, by name.

        Args:
            budget: for networks with several exits, leave at an answer this sure ('0.9'), or go as deep as a time for
                each image allows ('5ms').
            tta: average over views of each image: 'flip', 'shifts' or 'flip+shifts'.
        """
        check_is_fitted(self, "bundle_")
        results = self._results(X, self._asked(budget, tta))
        return results if _is_path(X) else self.classes_[results.indices]

    def evaluate(self, X: Any, y: Any = None, tta: TTA = "none") -> Evaluation:  # noqa: N803
        """Accuracy with its interval, loss, calibration and per-class figures on arrays and labels, or on a path.

        `tta` as in `predict`.
        """
        check_is_fitted(self, "bundle_")
        config, predictor = self._config(), self._asked(None, tta)
        if _is_path(X):
            found, _ = read_any(str(X), config)
            name = next(split for split in ("test", "val", "train") if split in found)
            return measure(predictor, prepare(self.bundle_, found[name], config), name)
        if y is None:
            raise UsageError("evaluate needs labels", hint="evaluate(X, y), or a folder")
        images, targets = self._images(X), self._targets(y)
        check_consistent_length(images, targets)
        source = ArraySource(images, targets, self.bundle_.task.class_names)
        return measure(predictor, prepare(self.bundle_, source, config), "given")

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:  # noqa: N803
        """Share of right answers, each weighted by `sample_weight` (N,) if given."""
        measured = self.evaluate(X, y)
        return float(np.average(measured.predictions.indices == measured.targets, weights=sample_weight))

    def save(self, folder: str | Path) -> Path:
        """Write the trained model as a bundle that every verb of `msresnet` takes."""
        check_is_fitted(self, "bundle_")
        return self.bundle_.save(Path(folder))

    def _config(self) -> TrainConfig:
        options = dict(self.options or {})
        known = {f.name for f in fields(TrainConfig)} - ARGUMENTS.keys() - ELSEWHERE.keys()
        for key, value in options.items():
            if key in ARGUMENTS:
                what = f"{key!r} is an argument of its own, no option"
                raise UsageError(what, hint=f"Classifier({ARGUMENTS[key]}={value!r})")
            if key in ELSEWHERE:
                raise UsageError(f"the option {key!r} has no meaning here", hint=ELSEWHERE[key])
            if key not in known:
                raise UsageError(f"unknown option {key!r}", hint=nearest(key, known) or ", ".join(sorted(known)))
        options = {"workers": 0, "test_fraction": 0.0, **options}
        return TrainConfig(
            model=self.model,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            time_limit=self.time_limit,
            val_fraction=self.validation_fraction,
            seed=_seed(self.random_state),
            **options,
        )

    def _first_images(self, X: Any, y: Any) -> tuple[Image, Range]:  # noqa: N803
        """The training images, and the range of values that all later ones are measured by."""
        if y is None:
            raise UsageError(
                "This Classifier estimator requires y to be passed, but the target y is None", hint="fit(X, y)"
            )
        dense = self._checked(X, fitting=True)
        value_range = _value_range(dense)
        return _pixels(dense, value_range), value_range

    def _splits(self, images: Image, y: Any, validation: Any, value_range: Range, config: TrainConfig) -> Splits:
        labels = column_or_1d(y, warn=True)
        check_consistent_length(images, labels)
        if labels.dtype.kind == "f":
            assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        self.classes_, targets = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError("a classifier cannot learn from one class", why=f"all labels are {self.classes_[0]!r}")
        names = [str(c) for c in self.classes_]
        found: dict[str, Source] = {"train": ArraySource(images, targets.astype(np.int64), names)}
        if validation is not None:
            others = _pixels(self._checked(validation[0], fitting=False), value_range)
            found["val"] = ArraySource(others, self._targets(validation[1]), names, "validation")
        return arrange(found, config)

    def _targets(self, y: Any) -> npt.NDArray[np.int64]:
        """Labels (N,) -> class indices. Raises DataError for a label that the model does not know."""
        classes = self.classes_.tolist()
        places = {_key(label): i for i, label in enumerate(classes)} | {
            str(label): i for i, label in enumerate(classes)
        }
        found = [(label, places.get(str(label), places.get(_key(label)))) for label in column_or_1d(y).tolist()]
        unknown = next((label for label, place in found if place is None), None)
        if unknown is not None:
            raise DataError(f"unknown label {str(unknown)!r}", why=f"the model knows {', '.join(map(str, classes))}")
        return np.array([place for _, place in found], dtype=np.int64)

    def _checked(self, X: Any, fitting: bool) -> Array:  # noqa: N803
        """Finite numbers as an array; the number of features of flat rows stays that of `fit`."""
        rules = {"dtype": "numeric", "allow_nd": True, "ensure_min_samples": 2 if fitting else 1}
        dense = check_array(X, **rules)
        return cast(Array, dense if dense.ndim > FLAT else validate_data(self, X, reset=fitting, **rules))

    def _images(self, X: Any) -> Image:  # noqa: N803
        """Arrays to predict on, as uint8 (N, C, H, W)."""
        return _pixels(self._checked(X, fitting=False), self.bundle_.preprocess.value_range)

    def _asked(self, budget: str | None, tta: TTA) -> Predictor:
        """The model at work as a call wants it."""
        if budget is None and tta == "none":
            return self._predictor
        limit = None if budget is None else read_budget(budget)
        return Predictor(self.bundle_, self._config().device, budget=limit, tta=tta)

    def _results(self, X: Any, predictor: Predictor) -> Classification:  # noqa: N803
        if not _is_path(X):
            images = self._images(X)
            return predictor.predict(list(images), [f"array[{i}]" for i in range(len(images))])
        pairs = list(decode_all(expand([str(X)], io.BytesIO()), self.bundle_.preprocess, 0))
        for _, image in pairs:
            if isinstance(image, DataError):
                raise image
        return predictor.predict([cast(Image, image) for _, image in pairs], [name for name, _ in pairs])

    def __sklearn_tags__(self) -> Any:
        """Dense numbers of two to four dimensions."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def load(folder: str | Path) -> Classifier:
    """A trained classifier from a bundle or a run's folder. Raises ModelError for one that cannot be used.

    Labels are those that `fit` was given. A model trained on files or on the command line knows the names of its
    classes alone: it predicts texts ('7', not 7), and takes either as `y`.
    """
    bundle = load_bundle(folder)
    model = Classifier(bundle.architecture)
    model.bundle_, model.history_ = bundle, []
    model.classes_ = np.array(bundle.task.class_names if bundle.labels is None else bundle.labels)
    model._predictor = Predictor(bundle)
    return model


def _seed(random_state: Any) -> int:
    """A seed from what scikit-learn takes as random_state."""
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


def _is_path(X: Any) -> bool:  # noqa: N803
    return isinstance(X, (str, Path))


def _plain(classes: Array) -> list[Any] | None:
    """Labels as JSON can hold them, or None for labels of another kind, which are known by their names."""
    labels = [label.item() if isinstance(label, np.generic) else label for label in classes.tolist()]
    return labels if all(isinstance(label, (str, int, float)) for label in labels) else None


def _key(label: Any) -> str:
    """The same text for labels that are equal, as 1, 1.0 and True are."""
    return (
        str(int(label)) if isinstance(label, bool) or (isinstance(label, float) and label.is_integer()) else str(label)
    )


def _value_range(dense: Array) -> Range:
    """(lowest, highest) value that is black and white: 0 to 1 for shares, 0 to 255, else as found; None for bytes."""
    if dense.dtype == np.uint8:
        return None
    low, high = float(dense.min()), float(dense.max())
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    bytes_too = low >= 0 and 100 < high <= 255 and bool((dense == np.rint(dense)).all())
    return (0.0, 255.0) if bytes_too else (low, high)


def _pixels(dense: Array, value_range: Range) -> Image:
    """Arrays as uint8 (N, C, H, W). Raises DataError for numbers that cannot be meant after training on bytes."""
    if value_range is None and dense.dtype != np.uint8:
        low, high = dense.min(), dense.max()
        if low < 0 or high > 1:
            raise DataError(
                f"the {'smallest' if low < 0 else 'largest'} value is {low if low < 0 else high:g}",
                why=f"after training on bytes, uint8 is 0 to 255, and {dense.dtype} is 0 to 1",
                hint="X.astype('uint8'), or X / 255",
            )
    return to_uint8(_as_images(dense), value_range or (0.0, 1.0))


def _as_images(dense: Array) -> Array:
    """(N, pixels), (N, H, W), (N, H, W, C) or (N, C, H, W) -> (N, C, H, W). Raises DataError for other shapes."""
    if dense.ndim == FLAT:
        side = isqrt(dense.shape[1])
        # Rows that make no square are lines of pixels.
        shape = (1, side, side) if side * side == dense.shape[1] else (1, 1, dense.shape[1])
        return dense.reshape(len(dense), *shape)
    if dense.ndim == 3:
        return dense[:, None]
    if dense.ndim == 4 and dense.shape[1] in (1, 3) and dense.shape[3] not in (1, 3):
        return dense
    if dense.ndim == 4 and dense.shape[3] in (1, 3):
        return np.ascontiguousarray(dense.transpose(0, 3, 1, 2))
    raise DataError(
        f"arrays of shape {dense.shape} are no images", why="(N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3"
    )

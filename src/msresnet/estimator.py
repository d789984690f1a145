"""The Python door: `Classifier`, with scikit-learn's conventions, and `load`.

    from msresnet import Classifier

    model = Classifier(epochs=10).fit(x_train, y_train, validation_data=(x_test, y_test))
    model.evaluate(x_test, y_test)

Images come as arrays (N, H, W), (N, H, W, C) or (N, C, H, W), as flat rows of pixels (N, H*W), as a folder, or as
anything else that `msresnet train --data` takes.
"""

from __future__ import annotations

import io
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
from msresnet.data.splits import Splits, arrange, open_data, read_any, whole
from msresnet.errors import DataError, UsageError, nearest
from msresnet.infer.evaluate import evaluate as measure
from msresnet.infer.evaluate import prepare
from msresnet.infer.inputs import expand
from msresnet.infer.predictor import Predictor, decode_all
from msresnet.results import Classification, Evaluation
from msresnet.train.config import TrainConfig
from msresnet.train.fit import fit as train

FLAT = 2
Array = npt.NDArray[Any]


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A multi-scale ResNet that classifies images.

    Args:
        model: a name from `list_models()`; 'auto' chooses by the images.
        epochs: passes over the data; None is 20, or as many as `time_limit` allows.
        batch_size: images in a step.
        lr: highest learning rate; None chooses by optimiser and batch size.
        time_limit: longest training time, such as '2m'.
        validation_fraction: share of the data that chooses the model; 0 holds none out.
        random_state: a seed, or a numpy RandomState to draw it from.
        options: any further setting of `msresnet train`, such as {'optimizer': 'sgd', 'mixup': 0.2}.

    Attributes:
        classes_: the labels, sorted.
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
        validation_fraction: float = 0.1,
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
            validation_data: (X, y), or a path; it chooses the model. None holds some of X out.

        Raises UsageError and DataError (both ValueErrors).
        """
        config = self._config()
        config = replace(
            config,
            epochs=config.epochs if epochs is None else epochs,
            batch_size=config.batch_size if batch_size is None else batch_size,
        )
        value_range = (0.0, 255.0)
        if _is_path(X):
            splits = open_data(str(X), config)
            self.classes_ = _labels(splits.classes)
            if validation_data is not None:
                splits = arrange({"train": splits.train, "val": whole(str(validation_data), config)}, config)
        else:
            images, value_range = self._first_images(X, y)
            splits = self._splits(images, y, validation_data, value_range, config)
        fitted = train(config, splits)
        preprocess = replace(fitted.bundle.preprocess, value_range=value_range)
        self.bundle_, self.history_ = replace(fitted.bundle, preprocess=preprocess), fitted.history
        self._predictor = Predictor(self.bundle_, config.device)
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Probabilities (N, K), in the order of `classes_`."""
        check_is_fitted(self, "bundle_")
        return self._results(X).probabilities

    def predict(self, X: Any) -> Any:  # noqa: N803
        """Labels (N,) for arrays; for a file, folder or pattern, a `Classification` with names and probabilities."""
        check_is_fitted(self, "bundle_")
        results = self._results(X)
        return results if _is_path(X) else self.classes_[results.indices]

    def evaluate(self, X: Any, y: Any = None) -> Evaluation:  # noqa: N803
        """Accuracy with its interval, loss, calibration and per-class figures on arrays and labels, or on a path."""
        check_is_fitted(self, "bundle_")
        config = self._config()
        if _is_path(X):
            found, _ = read_any(str(X), config)
            name = next(split for split in ("test", "val", "train") if split in found)
            return measure(self._predictor, prepare(self.bundle_, found[name], config), name)
        if y is None:
            raise UsageError("evaluate needs labels", hint="evaluate(X, y), or a folder")
        images, targets = self._images(X), self._targets(y)
        check_consistent_length(images, targets)
        source = ArraySource(images, targets, self.bundle_.task.class_names)
        return measure(self._predictor, prepare(self.bundle_, source, config), "given")

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
        known = {f.name for f in fields(TrainConfig)}
        for key in options:
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

    def _first_images(self, X: Any, y: Any) -> tuple[Image, tuple[float, float]]:  # noqa: N803
        """The training images, and the range of values that all later ones are measured by."""
        if y is None:
            raise UsageError(
                "This Classifier estimator requires y to be passed, but the target y is None", hint="fit(X, y)"
            )
        dense = self._checked(X, fitting=True)
        value_range = _value_range(dense)
        return to_uint8(_as_images(dense), value_range), value_range

    def _splits(
        self, images: Image, y: Any, validation: Any, value_range: tuple[float, float], config: TrainConfig
    ) -> Splits:
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
            others = to_uint8(_as_images(self._checked(validation[0], fitting=False)), value_range)
            found["val"] = ArraySource(others, self._targets(validation[1]), names, "validation")
        return arrange(found, config)

    def _targets(self, y: Any) -> npt.NDArray[np.int64]:
        """Labels (N,) -> class indices. Raises DataError for a label that the model does not know."""
        places = {str(name): i for i, name in enumerate(self.classes_)}
        labels = [str(label) for label in column_or_1d(y)]
        unknown = next((label for label in labels if label not in places), None)
        if unknown is not None:
            raise DataError(f"unknown label {unknown!r}", why=f"the model knows {', '.join(places)}")
        return np.array([places[label] for label in labels], dtype=np.int64)

    def _checked(self, X: Any, fitting: bool) -> Array:  # noqa: N803
        """Finite numbers as an array; the number of features of flat rows stays that of `fit`."""
        rules = {"dtype": "numeric", "allow_nd": True, "ensure_min_samples": 2 if fitting else 1}
        dense = check_array(X, **rules)
        return cast(Array, dense if dense.ndim > FLAT else validate_data(self, X, reset=fitting, **rules))

    def _images(self, X: Any) -> Image:  # noqa: N803
        """Arrays to predict on, as uint8 (N, C, H, W)."""
        dense = self._checked(X, fitting=False)
        value_range = self.bundle_.preprocess.value_range
        if value_range == (0.0, 255.0) and dense.dtype.kind == "f" and dense.min() >= 0 and dense.max() <= 1:
            value_range = (0.0, 1.0)  # shares of 255, as people write them
        return to_uint8(_as_images(dense), value_range)

    def _results(self, X: Any) -> Classification:  # noqa: N803
        if not _is_path(X):
            images = self._images(X)
            return self._predictor.predict(list(images), [f"array[{i}]" for i in range(len(images))])
        pairs = list(decode_all(expand([str(X)], io.BytesIO()), 0))
        for _, image in pairs:
            if isinstance(image, DataError):
                raise image
        return self._predictor.predict([cast(Image, image) for _, image in pairs], [name for name, _ in pairs])

    def __sklearn_tags__(self) -> Any:
        """Dense numbers of two to four dimensions."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def load(folder: str | Path) -> Classifier:
    """A trained classifier from a bundle or a run's folder. Raises ModelError for one that cannot be used."""
    bundle = load_bundle(folder)
    model = Classifier(bundle.architecture)
    model.bundle_, model.history_ = bundle, []
    model.classes_ = _labels(bundle.task.class_names)
    model._predictor = Predictor(bundle)
    return model


def _seed(random_state: Any) -> int:
    """A seed from what scikit-learn takes as random_state."""
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


def _is_path(X: Any) -> bool:  # noqa: N803
    return isinstance(X, (str, Path))


def _labels(names: tuple[str, ...]) -> Array:
    """Class names as labels: numbers where all are whole numbers."""
    whole_numbers = all(name.isdecimal() and str(int(name)) == name for name in names)
    return np.array([int(name) for name in names] if whole_numbers else names)


def _value_range(dense: Array) -> tuple[float, float]:
    """(lowest, highest) value that is black and white: 0 to 255 for bytes, 0 to 1 for shares, else as found."""
    if dense.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(dense.min()), float(dense.max())
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    bytes_too = low >= 0 and 100 < high <= 255 and bool((dense == np.rint(dense)).all())
    return (0.0, 255.0) if bytes_too else (low, high)


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

"""The Python door: `Classifier`, with scikit-learn's conventions, and `load`.

    from msresnet import Classifier

    model = Classifier(epochs=10).fit(x_train, y_train, validation_data=(x_test, y_test))
    model.evaluate(x_test, y_test)

Images come as arrays (N, H, W), (N, H, W, C) or (N, C, H, W), as a list of them or of Pillow's images, as flat rows of
pixels (N, H*W), as a folder, or as anything else that `msresnet train --data` takes. A trained model answers for one
image too: an array (H, W, C), one (H, W) of the size that it learnt from, or an image of Pillow.
How numbers become pixels is settled by what the model was trained on, never by the images that come later: after arrays
that are not uint8, the range found in them is black to white; after bytes, files or folders, uint8 is 0 to 255 and any
other kind of number is a share of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, column_or_1d, validate_data

from msresnet.bundle import load_bundle
from msresnet.data.arrays import FLAT, Array, Range, is_one, pictures, pixels_of, value_range_of
from msresnet.data.preprocess import sizes_before
from msresnet.data.sample import ArraySource, Pictures, Source
from msresnet.detector import Detector
from msresnet.errors import DataError, UsageError
from msresnet.estimator_base import ImageEstimator, Images, Places, is_path
from msresnet.infer.config import TTA
from msresnet.results import Evaluation, classified
from msresnet.segmenter import Segmenter


class Classifier(ClassifierMixin, ImageEstimator):  # type: ignore[misc]
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
        options: any other setting of `msresnet train`, such as {'optimizer': 'sgd', 'mixup': 0.2}. {'recipe': NAME}
            sets what is left at its default here and is not among the options.

    Attributes:
        classes_: the labels, sorted; names as text where the model was trained on files or on the command line.
        bundle_: the trained model, as `save` writes it.
        history_: one row for each epoch.
    """

    task = "classification"
    truths = "labels"

    def predict_proba(self, X: Any, budget: str | None = None, tta: TTA = "none") -> npt.NDArray[np.float64]:  # noqa: N803
        """Probabilities (N, K), in the order of `classes_`; `budget` and `tta` as in `predict`."""
        check_is_fitted(self, "bundle_")
        return classified(self._results(X, self._asked(budget, tta))).probabilities

    def predict(self, X: Any, budget: str | None = None, tta: TTA = "none") -> Any:  # noqa: N803
        """Labels (N,) out of `classes_` for arrays; for files, folders and patterns, a `Classification`.

        Args:
            budget: for networks with several exits, leave at an answer this sure ('0.9'), or go as deep as a time for
                each image allows ('5ms').
            tta: average over views of each image: 'flip', 'shifts', 'scales' and sums such as 'flip+shifts'.
        """
        check_is_fitted(self, "bundle_")
        results = classified(self._results(X, self._asked(budget, tta)))
        return results if is_path(X) else self.classes_[results.indices]

    def evaluate(self, X: Any, y: Any = None, tta: TTA = "none") -> Evaluation:  # noqa: N803
        """Accuracy with its interval, loss, calibration and per-class figures on arrays and labels, or on a path.

        `tta` as in `predict`.
        """
        check_is_fitted(self, "bundle_")
        return self._measured(self._asked(None, tta), X, y)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:  # noqa: N803
        """Share of right answers, each weighted by `sample_weight` (N,) if given."""
        measured = self.evaluate(X, y)
        answers = classified(measured.predictions).indices
        return float(accuracy_score(measured.targets, answers, sample_weight=sample_weight))

    def _training(self, X: Any, y: Any) -> tuple[Source, Range]:  # noqa: N803
        if y is None:
            what = "This Classifier estimator requires y to be passed, but the target y is None"
            raise UsageError(what, hint="fit(X, y)")
        images: Images | None = pictures(X)
        value_range: Range = None
        if images is None:
            dense = self._checked(X, fitting=True)
            value_range = value_range_of(dense)
            images = pixels_of(dense, value_range)
        labels = column_or_1d(y, warn=True)
        check_consistent_length(images, labels)
        if labels.dtype.kind == "f":
            assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        self.classes_, targets = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(
                "a classifier cannot learn from one class", why=f"all labels are {self.classes_.tolist()[0]!r}"
            )
        return _classed(images, targets.astype(np.int64), [str(c) for c in self.classes_]), value_range

    def _source(self, images: Images, y: Any, classes: Sequence[str], name: str = "y", prefix: str = "array") -> Source:
        targets = np.array(Places(self.classes_).of(column_or_1d(y).tolist()), dtype=np.int64)
        check_consistent_length(images, targets)
        return _classed(images, targets, classes, prefix)

    def _checked(self, X: Any, fitting: bool) -> Array:  # noqa: N803
        """Finite numbers as an array; the number of features of flat rows stays that of `fit`."""
        rules = {"dtype": "numeric", "allow_nd": True, "ensure_min_samples": 2 if fitting else 1}
        dense = check_array(X, **rules)
        return cast(Array, dense if dense.ndim > FLAT else validate_data(self, X, reset=fitting, **rules))

    def _pixels(self, X: Any, value_range: Range, name: str = "X") -> Images:  # noqa: N803
        decoded = pictures(X)
        return pixels_of(self._checked(X, fitting=False), value_range) if decoded is None else decoded

    def _several(self, X: Any) -> Any:  # noqa: N803
        """Images to answer for: rows of pixels by their length, an array (H, W) of the size that was learnt is one.

        Raises DataError for an array (H, W) of another size, which may be one image or rows.
        """
        if isinstance(X, Sequence) and len(X) and (isinstance(X[0], Sequence) or getattr(X[0], "ndim", FLAT) < FLAT):
            X = np.asarray(X)  # noqa: N806
        if isinstance(X, Sequence):
            return X
        dense, learnt = np.asarray(X), sizes_before(self.bundle_.preprocess.size)
        if dense.ndim == 3 and is_one(dense.shape) and dense.shape[1:] in learnt:
            return X
        if dense.ndim != FLAT:
            return super()._several(X)
        fitted = getattr(self, "n_features_in_", None)
        lengths = {height * width for height, width in learnt} if fitted is None else {fitted}
        if dense.shape[1] not in lengths and dense.shape in learnt:
            return dense[None]
        if dense.shape[1] in lengths or fitted is not None:  # scikit-learn says how long the rows of `fit` were
            return X
        many, length = dense.shape
        side = isqrt(length)
        raise DataError(
            f"an array of shape {dense.shape} may be one image or {many} rows of pixels",
            why=f"the model takes images of {' or '.join(f'{h} x {w}' for h, w in sorted(learnt))}",
            hint="X[None] for one image" + (f", X.reshape(-1, {side}, {side}) for rows" if side**2 == length else ""),
        )

    def __sklearn_tags__(self) -> Any:
        """Dense numbers of two to four dimensions."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _classed(images: Images, targets: npt.NDArray[np.int64], classes: Sequence[str], prefix: str = "array") -> Source:
    """Images and the indices of their classes."""
    kind = ArraySource if isinstance(images, np.ndarray) else Pictures
    return kind(images, targets, classes, prefix)


def load(folder: str | Path, device: str = "auto") -> Classifier | Segmenter | Detector:
    """A trained model: a `Classifier`, a `Segmenter` for masks, a `Detector` for boxes.

    Labels are those that `fit` was given. A model trained on files or on the command line knows the names of its
    classes alone: a classifier predicts texts ('7', not 7), and takes either as `y`; a segmenter predicts the classes'
    numbers from 0, and a detector answers with names in any case.

    `sklearn.base.clone` of it trains such a network anew, made with the same arguments and on the same device.

    Args:
        folder: a bundle or a run's folder, or 'hf:user/repo'.
        device: where it answers: 'auto' (a GPU if there is one), 'cpu', 'cuda', 'cuda:1' or 'mps'.

    Raises ModelError for a model that cannot be used, UsageError for a device that is not here.
    """
    bundle = load_bundle(folder)
    return ESTIMATORS[bundle.task.name].from_bundle(bundle, device)


ESTIMATORS: dict[str, type[Classifier] | type[Segmenter] | type[Detector]] = {
    kind.task: kind for kind in (Classifier, Segmenter, Detector)
}

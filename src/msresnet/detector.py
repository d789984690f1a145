"""The Python door for boxes: `Detector`, which finds objects.

    from msresnet import Detector

    model = Detector(epochs=20).fit(images, objects)
    model.predict(images)

Images come as one array (H, W) or (H, W, C) or image of Pillow, as arrays (N, H, W), (N, H, W, C) or (N, C, H, W), as a
list of images of any sizes, or as anything with boxes that `msresnet train --data` takes. What an image shows is a pair
(boxes, labels) or a dictionary {'boxes': ..., 'labels': ...}: boxes (M, 4) x1, y1, x2, y2 in pixels of the image, and a
label for each, a number or a text. Predictions are `Detections`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from msresnet.boxes import Boxes, clip
from msresnet.data.arrays import Range, as_arrays, range_of_all
from msresnet.data.boxed import BoxedArrays
from msresnet.data.sample import Source
from msresnet.errors import DataError, UsageError
from msresnet.estimator_base import ImageEstimator, Images, Places
from msresnet.results import Detections

FORM = "for each image (boxes, labels) or {'boxes': boxes, 'labels': labels}"
Shown = tuple[npt.NDArray[np.float32], npt.NDArray[Any]]
"""Boxes (M, 4) and labels (M,) of one image."""


class Detector(ImageEstimator):
    """A multi-scale ResNet with a pyramid that finds objects.

    Arguments and attributes are those of `Classifier`; `classes_` are the labels, sorted.
    """

    task = "detection"
    truths = "objects"
    form = FORM

    def predict(self, X: Any, score: float | None = None) -> Detections:  # noqa: N803
        """The objects in each image, at the images' own pixels; of arrays, files, folders and patterns alike.

        Args:
            X: images.
            score: the lowest score of an answer; None is what the model says, 0.3 unless its config says otherwise.
        """
        check_is_fitted(self, "bundle_")
        results = self._results(X, self._predictor if score is None else self._predictor.from_score(score))
        assert isinstance(results, Detections)
        return results

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """The average precision; 0 where there are no objects."""
        return float(self.evaluate(X, y).metrics[self.bundle_.task.metric] or 0.0)

    def _training(self, X: Any, y: Any) -> tuple[Source, Range]:  # noqa: N803
        if y is None:
            raise UsageError("objects are learnt from boxes", why=FORM, hint="fit(images, objects)")
        dense, shown = as_arrays(X, "X"), _shown(y, "y")
        value_range = range_of_all(dense)
        images = self._pixels(dense, value_range)
        labels = [labels for _, labels in shown if len(labels)]
        if not labels:
            raise DataError("no image shows an object", why="there is nothing to learn to find")
        self.classes_ = np.unique(np.concatenate(labels))
        names = [str(label) for label in self.classes_.tolist()]
        return BoxedArrays(images, self._boxes(shown, images), names), value_range

    def _source(self, images: Images, y: Any, classes: Sequence[str], name: str = "y", prefix: str = "array") -> Source:
        return BoxedArrays(images, self._boxes(_shown(y, name), images), classes, prefix)

    def _boxes(self, shown: list[Shown], images: Images) -> list[Boxes]:
        """Boxes cut at the edges, labels as class indices. Raises DataError for unknown labels and bad boxes."""
        if len(shown) != len(images):
            raise DataError(f"objects of {len(shown)} images for {len(images)} images")
        places, found = Places(self.classes_), []
        for number, ((boxes, labels), image) in enumerate(zip(shown, images, strict=True)):
            own = places.of(labels.tolist(), where=f"image {number}")
            inside = clip(boxes, (image.shape[1], image.shape[2]))
            if not (inside[:, 2:] > inside[:, :2]).all():
                row = int(np.flatnonzero(~(inside[:, 2:] > inside[:, :2]).all(1))[0])
                size = f"the image has {image.shape[2]} x {image.shape[1]} pixels"
                what = f"{boxes[row].tolist()} is not a box x1 < x2, y1 < y2 in its image"
                raise DataError(what, where=f"image {number}, box {row}", why=size)
            found.append(Boxes.of(inside, own))
        return found


def _shown(given: Any, name: str) -> list[Shown]:
    """Pairs or dictionaries -> boxes and labels of each image. Raises DataError for anything else."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise DataError(f"{name} is not a list of objects", why=FORM)
    return [_pair(item, f"{name}[{number}]") for number, item in enumerate(given)]


def _pair(item: Any, where: str) -> Shown:
    """Boxes and labels of one image."""
    if isinstance(item, Mapping) and {"boxes", "labels"} <= item.keys():
        item = item["boxes"], item["labels"]
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise DataError(f"{where} is {type(item).__name__}", why=FORM)
    try:
        boxes, labels = np.asarray(item[0], np.float32), np.asarray(item[1]).reshape(-1)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} holds no boxes", why=str(error)) from error
    boxes = boxes.reshape(0, 4) if not boxes.size else boxes
    if boxes.shape != (len(labels), 4) or not np.isfinite(boxes).all():
        what = f"{where} has boxes of shape {boxes.shape} for {len(labels)} labels"
        raise DataError(what, why="boxes are finite numbers (M, 4): x1, y1, x2, y2")
    return boxes, labels

"""The Python door for masks: `Segmenter`, which learns the class of each pixel.

    from msresnet import Segmenter

    model = Segmenter(epochs=20).fit(images, masks)
    model.predict(images)

Images come as one array (H, W) or (H, W, C) or image of Pillow, as arrays (N, H, W), (N, H, W, C) or (N, C, H, W), as a
list of images of any sizes, or as anything with masks that `msresnet train --data` takes. Masks hold a number for each
pixel, whichever numbers stand for the classes (0 and 255, 0 and 1, 0 to 20), and -1 where nobody knows. Predictions
hold the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from sklearn.utils.validation import check_is_fitted

from msresnet.bundle import Bundle
from msresnet.data.arrays import Array, Range, as_arrays, is_one, range_of_all
from msresnet.data.sample import IGNORED, Image, MaskedArrays, Source, Subset
from msresnet.data.splits import Splits
from msresnet.errors import DataError, UsageError
from msresnet.estimator_base import ImageEstimator, Images, is_path
from msresnet.results import Segmentation
from msresnet.train.config import TrainConfig

UNKNOWN = -1
COPIES = 128
"""One image is learnt from as often as this in an epoch, changed at random each time."""


class Segmenter(ImageEstimator):
    """A multi-scale ResNet with a feature pyramid that gives each pixel a class.

    Arguments and attributes are those of `Classifier`; `classes_` are the numbers in the masks, sorted.
    """

    task = "segmentation"
    truths = "masks"

    def predict(self, X: Any) -> Any:  # noqa: N803
        """The class of each pixel: masks in the form of the images, of the numbers that `fit` was given.

        For files, folders or patterns a `Segmentation`, which holds indices of classes.
        """
        check_is_fitted(self, "bundle_")
        results = self._results(X, self._predictor)
        assert isinstance(results, Segmentation)
        if is_path(X):
            return results
        masks = [self.classes_[mask] for mask in results.masks]
        if isinstance(X, Sequence):
            return masks
        return masks[0] if isinstance(X, Pillow.Image) or is_one(np.shape(X)) else np.stack(masks)

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """The mean IoU."""
        return float(self.evaluate(X, y).metrics[self.bundle_.task.metric])

    def loaded_classes(self, bundle: Bundle) -> npt.NDArray[Any]:
        """The numbers in the masks: those of `fit`, else the classes' indices."""
        return np.arange(len(bundle.task.class_names)) if bundle.labels is None else np.array(bundle.labels)

    def _training(self, X: Any, y: Any) -> tuple[Source, Range]:  # noqa: N803
        if y is None:
            raise UsageError("masks are learnt from masks", hint="fit(images, masks)")
        dense, masks = as_arrays(X, "X"), as_arrays(y, "y", colour=False)
        value_range = range_of_all(dense)
        images = self._pixels(dense, value_range)
        self.classes_ = _classes(masks)
        return self._source(images, masks, [str(value) for value in self.classes_.tolist()]), value_range

    def _source(self, images: Images, y: Any, classes: Sequence[str], name: str = "y", prefix: str = "array") -> Source:
        return MaskedArrays(images, self._indices(as_arrays(y, name, colour=False), images), classes, prefix)

    def _arranged(self, found: dict[str, Source], config: TrainConfig) -> Splits:
        if len(found["train"]) > 1:
            return super()._arranged(found, config)
        copies = Subset(found["train"], np.zeros(COPIES, np.int64))
        if "val" in found:
            return super()._arranged(found | {"train": copies}, config)
        return Splits(copies, notes=["one image: nothing is held out"])

    def _indices(self, masks: list[Array], images: Images) -> list[Image]:
        """Masks of any numbers -> class indices, IGNORED for -1. Raises DataError for unknown ones and other sizes."""
        if len(masks) != len(images):
            raise DataError(f"{len(masks)} masks for {len(images)} images")
        found = []
        for number, (mask, image) in enumerate(zip(masks, images, strict=True)):
            if mask.shape != image.shape[1:]:
                why = f"mask {' x '.join(map(str, mask.shape))}, image {image.shape[1]} x {image.shape[2]}"
                raise DataError("a mask has another size than its image", where=f"mask {number}", why=why)
            place = np.searchsorted(self.classes_, mask).clip(max=len(self.classes_) - 1)
            wrong = (self.classes_[place] != mask) & (mask != UNKNOWN)
            if wrong.any():
                why = f"the classes are {', '.join(map(str, self.classes_.tolist()[:12]))}; -1 where nobody knows"
                raise DataError(
                    f"the mask holds {mask[wrong][0]}, which is not a class", where=f"mask {number}", why=why
                )
            found.append(np.where(mask == UNKNOWN, IGNORED, place).astype(np.uint8))
        return found


def _classes(masks: list[Array]) -> npt.NDArray[np.int64]:
    """The numbers in masks, sorted, without -1. Raises DataError for fractions, too many, or one alone."""
    values = np.unique(np.concatenate([np.unique(mask) for mask in masks]))
    values = values[values != UNKNOWN]
    if (values != np.floor(values)).any():
        hint = "masks > 0.5, or another threshold"
        raise DataError(
            "masks hold fractions", why=f"{values[values != np.floor(values)][0]:g} is not a class", hint=hint
        )
    if not 2 <= len(values) <= IGNORED:
        what = "the masks show one class" if len(values) == 1 else f"the masks show {len(values)} classes"
        raise DataError(what, why=f"from 2 to {IGNORED} can be learnt")
    whole: npt.NDArray[np.int64] = values.astype(np.int64)
    return whole

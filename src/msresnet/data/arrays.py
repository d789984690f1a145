"""Arrays of any numbers as images: (N, H, W), (N, H, W, C), (N, C, H, W) or flat rows (N, pixels), to uint8.

How numbers become pixels is settled by what a model was trained on: after arrays that are not uint8, the range found in
them is black to white; after bytes or files, uint8 is 0 to 255 and any other kind of number is a share of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from msresnet.data.decode import decode_opened
from msresnet.data.preprocess import to_uint8
from msresnet.data.sample import Image
from msresnet.errors import DataError

FLAT = 2
PLANES = 4
"""An axis no longer than this may be channels: grey or colour, each perhaps with transparency."""
Array = npt.NDArray[Any]
Range = tuple[float, float] | None


def value_range_of(dense: Array) -> Range:
    """(lowest, highest) value that is black and white: 0 to 1 for shares, 0 to 255, else as found; None for bytes."""
    return range_of_all([dense])


def range_of_all(images: Sequence[Array]) -> Range:
    """The same over several images."""
    if all(image.dtype == np.uint8 for image in images):
        return None
    low, high = min(float(image.min()) for image in images), max(float(image.max()) for image in images)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    bytes_too = low >= 0 and 100 < high <= 255 and all(bool((image == np.rint(image)).all()) for image in images)
    return (0.0, 255.0) if bytes_too else (low, high)


def pixels_of(dense: Array, value_range: Range) -> Image:
    """Arrays as uint8 (N, C, H, W). Raises DataError for numbers that cannot be meant after training on bytes."""
    return to_uint8(as_images(_meant(dense, value_range)), value_range or (0.0, 1.0))


def pixels_of_one(image: Array, value_range: Range) -> Image:
    """An array (H, W), (H, W, C) or (C, H, W) as uint8 (C, H, W); raises as `pixels_of`."""
    pixels: Image = to_uint8(as_images(_meant(image, value_range)[None]), value_range or (0.0, 1.0))[0]
    return pixels


def _meant(dense: Array, value_range: Range) -> Array:
    """The same array. Raises DataError where its numbers cannot be meant after training on bytes."""
    if value_range is None and dense.dtype != np.uint8:
        low, high = dense.min(), dense.max()
        if low < 0 or high > 1:
            raise DataError(
                f"the {'smallest' if low < 0 else 'largest'} value is {low if low < 0 else high:g}",
                why=f"after training on bytes, uint8 is 0 to 255, and {dense.dtype} is 0 to 1",
                hint="X.astype('uint8'), or X / 255",
            )
    return dense


def as_images(dense: Array) -> Array:
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
    transparent = dense.ndim == 4 and dense.shape[3] in (2, 4)
    raise DataError(
        f"arrays of shape {dense.shape} are not images",
        why="(N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3",
        hint=f"X[..., :{dense.shape[3] - 1}] leaves transparency out" if transparent else "",
    )


def pictures(given: Any) -> list[Image] | None:
    """Images of Pillow, one or a list, as their files would be decoded: uint8 (C, H, W). None for anything else.

    Raises DataError for those that cannot be decoded, and for a list of them and of others.
    """
    items = as_list(given)
    opened = [isinstance(item, Pillow.Image) for item in items] if isinstance(items, Sequence) else []
    if not any(opened):
        return None
    if not all(opened):
        what = "a list of Pillow's images and of others"
        raise DataError(what, where=f"item {opened.index(False)}", hint="images of one kind")
    return [decode_opened(item, f"image {number}") for number, item in enumerate(items)]


def as_list(given: Any) -> Any:
    """An image of Pillow in a list; anything else as it is."""
    return [given] if isinstance(given, Pillow.Image) else given


def as_arrays(given: Any, name: str, colour: bool = True) -> list[Array]:
    """One image or array (H, W) or, with `colour`, (H, W, C), several behind each other, or a list of them -> a list.

    With `colour`, images of Pillow are decoded as files are; without it, they are the numbers of a mask.

    Raises DataError for no numbers.
    """
    if colour and (decoded := pictures(given)) is not None:
        return [image[0] if len(image) == 1 else image.transpose(1, 2, 0) for image in decoded]
    if isinstance(given, Sequence):
        arrays = [np.asarray(item) for item in given]
    else:
        whole = np.asarray(given)
        arrays = [whole] if is_one(whole.shape, colour) else list(whole)
    if not arrays:
        raise DataError(f"{name} is empty")
    for number, array in enumerate(arrays):
        if array.dtype.kind not in "biuf" or array.ndim < 2 or not array.size:
            what = f"{name}[{number}] is {array.dtype} of shape {array.shape}"
            raise DataError(what, why="images and masks are numbers (H, W), images also (H, W, C) or (C, H, W)")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{name}[{number}] holds NaN or infinity")
    return arrays


def is_one(shape: Sequence[int], colour: bool = True) -> bool:
    """Whether an array of this shape is one image, (H, W) or with `colour` (H, W, C), and not several."""
    return len(shape) == 2 or (colour and len(shape) == 3 and shape[2] <= PLANES)

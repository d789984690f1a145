"""`digit-scenes`: several digits in a picture, at many scales, made from scikit-learn's, to find them.

Each image is a dark, noisy ground of 128x160 pixels with up to a dozen of the embedded digits. Their sides are 10 to 64
pixels, as often between 10 and 20 as between 32 and 64; some scenes are crowded, and some are empty. A digit's box is
that of its pixels which are brighter than any ground. Training, validation and test scenes show different digits. The
draws come from numpy's legacy generator, whose stream never changes, and all pixels are computed in whole numbers, so
that every machine makes the same bytes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from msresnet.boxes import Boxes
from msresnet.data.boxed import BoxedArrays
from msresnet.data.sample import ArraySource, Image, Source
from msresnet.data.sources.digits import digits
from msresnet.data.sources.scaled_digits import enlarged

NAME = "digit-scenes"
HEIGHT, WIDTH = 128, 160
SMALLEST, LARGEST = 10, 64
"""Sides of digits in pixels."""
COUNTS = {"train": 2_000, "val": 300, "test": 500}
SHOWN = {"train": (0, 1_097), "val": (1_097, 1_347), "test": (1_347, 1_797)}
"""Which of the embedded digits; those at the end are mostly by other writers."""
NOISE, VISIBLE = 48, 64
"""Grey levels: the ground lies below the first, what is seen of a digit is above the second."""
DIMMEST = 140
"""Grey level of the palest ink."""
EMPTY, CROWDED = 0.06, 0.3
"""Shares of scenes without a digit, and of those where digits are drawn close to each other."""
MOST = 12
COVERED = 0.35
"""Of the smaller of two boxes, at most so much is shared with the other."""


def digit_scenes() -> dict[str, Source]:
    """The training, the validation and the test set."""
    embedded = digits()
    return {split: _scenes(split, embedded, seed) for seed, split in enumerate(COUNTS)}


def _scenes(split: str, embedded: ArraySource, seed: int) -> BoxedArrays:
    draws, count = np.random.RandomState(seed), COUNTS[split]
    images = np.empty((count, 1, HEIGHT, WIDTH), np.uint8)
    boxes = [_draw(images[i, 0], embedded, SHOWN[split], draws) for i in range(count)]
    return BoxedArrays(images, boxes, embedded.classes, f"{NAME}/{split}")


def _draw(image: Image, embedded: ArraySource, shown: tuple[int, int], draws: np.random.RandomState) -> Boxes:
    """Draw one scene into an image (H, W), and give its boxes."""
    image[:] = ground(image.shape, draws)
    if draws.random_sample() < EMPTY:
        return Boxes.none()
    wanted, crowded = draws.randint(1, MOST + 1), draws.random_sample() < CROWDED
    centre = draws.random_sample(2) * image.shape
    found: list[tuple[int, int, int, int]] = []
    classes: list[int] = []
    for _ in range(wanted):
        index, ink = draws.randint(*shown), draws.randint(DIMMEST, 256)
        side = int(np.rint(SMALLEST * (LARGEST / SMALLEST) ** draws.random_sample()))
        middle = centre + draws.normal(0, side, 2) if crowded else draws.random_sample(2) * image.shape
        top, left = (int(np.clip(m - side // 2, 0, s - side)) for m, s in zip(middle, image.shape, strict=True))
        digit = inked(embedded.image(index)[0], side, ink)
        box = seen(digit, top, left)
        if all(_shared(box, other) <= COVERED for other in found):
            stamp(image, digit, top, left)
            found.append(box)
            classes.append(int(embedded.targets[index]))
    return Boxes.of(found, classes)


def ground(shape: tuple[int, ...], draws: np.random.RandomState) -> Image:
    """A dark, noisy picture."""
    return draws.randint(0, NOISE, shape).astype(np.uint8)


def inked(digit: npt.NDArray[np.uint8], side: int, ink: int) -> npt.NDArray[np.uint8]:
    """A digit (8, 8) at another side, its brightest possible pixel being `ink`."""
    return np.asarray(enlarged(digit, side).astype(np.int64) * ink // 255, np.uint8)


def stamp(image: Image, digit: npt.NDArray[np.uint8], top: int, left: int) -> None:
    """Draw a digit (S, S) into an image (H, W), where it may reach beyond the edges."""
    rows, columns = (slice(max(0, at), max(0, at + len(digit))) for at in (top, left))
    there = image[rows, columns]
    part = digit[rows.start - top :, columns.start - left :][: there.shape[0], : there.shape[1]]
    np.maximum(there, part, out=there)


def seen(digit: npt.NDArray[np.uint8], top: int, left: int) -> tuple[int, int, int, int]:
    """The box, xyxy in pixels, of what is seen of a digit (S, S) that stands at a place."""
    rows, columns = (np.flatnonzero((digit > VISIBLE).any(axis)) for axis in (1, 0))
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


def _shared(box: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Which share of the smaller of two boxes both hold."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return max(0, width) * max(0, height) / smaller

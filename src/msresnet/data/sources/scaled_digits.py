"""`scaled-digits`: digits at many scales and places, made from scikit-learn's, to see what a model owes to scale.

Each image is one of the embedded digits on a dark, slightly noisy ground of 48x48 pixels. Its side is between a quarter
and the whole of the frame, as often between a quarter and a half as between a half and the whole; its place is anywhere
that it fits. Training and test images show different digits. The draws come from numpy's legacy generator, whose stream
never changes, and all pixels are computed in whole numbers, so that every machine makes the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from msresnet.data.sample import ArraySource, Image, Source
from msresnet.data.sources.digits import digits

NAME = "scaled-digits"
FRAME, SMALLEST = 48, 12
"""Sides in pixels: of the images, and of the smallest digit."""
COUNTS = {"train": 6_000, "test": 2_000}
TEST_FROM = 1_347
"""The digits from here on, a quarter, are those of the test set; they are mostly by other writers."""
NOISE = 48
"""Grey levels below which the ground lies."""
SCALE = re.compile(r" x(\d+\.\d+)$")


class ScaledDigits(ArraySource):
    """Digits at many scales.

    Args:
        images: (N, 1, FRAME, FRAME).
        targets: (N,).
        classes: names.
        ids: each ends with its scale, as `scale_of` reads it.
        shown: which of the embedded digits each image shows (N,).
    """

    def __init__(
        self,
        images: Image,
        targets: npt.NDArray[np.int64],
        classes: Sequence[str],
        ids: Sequence[str],
        shown: npt.NDArray[np.int64],
    ) -> None:
        super().__init__(images, targets, classes, NAME)
        self.ids, self.shown = ids, shown

    def split_key(self, index: int) -> bytes:
        """The digit that is shown, so that the same one at another scale stays on its side of a split."""
        return str(self.shown[index]).encode()


def scaled_digits() -> dict[str, Source]:
    """The training and the test set."""
    embedded = digits()
    places = {"train": np.arange(TEST_FROM), "test": np.arange(TEST_FROM, len(embedded))}
    return {name: _made(name, embedded, places[name], seed) for seed, name in enumerate(COUNTS)}


def scale_of(name: str) -> float | None:
    """The share of the frame's side that an image's object takes, from its id; None for an id that does not say."""
    found = SCALE.search(name)
    return float(found[1]) if found else None


def _made(name: str, embedded: ArraySource, places: npt.NDArray[np.int64], seed: int) -> ScaledDigits:
    draws, count = np.random.RandomState(seed), COUNTS[name]
    shown = places[np.arange(count) % len(places)]  # each as often as any other
    sides = np.rint(SMALLEST * (FRAME / SMALLEST) ** draws.random_sample(count)).astype(np.int64)
    corners = np.floor(draws.random_sample((count, 2)) * (FRAME - sides + 1)[:, None]).astype(np.int64)
    images = draws.randint(0, NOISE, (count, 1, FRAME, FRAME)).astype(np.uint8)
    for image, digit, side, (top, left) in zip(images, shown, sides, corners, strict=True):
        there = image[0, top : top + side, left : left + side]
        np.maximum(there, enlarged(embedded.image(int(digit))[0], int(side)), out=there)
    ids = [f"{NAME}[{name} {i}] x{side / FRAME:.2f}" for i, side in enumerate(sides)]
    return ScaledDigits(images, embedded.targets[shown], embedded.classes, ids, shown)


def enlarged(digit: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """A square image (8, 8) at another side, interpolated linearly, in whole parts of which `whole` are one."""
    whole, last = 2 * side, len(digit) - 1
    centres = np.clip((2 * np.arange(side) + 1) * len(digit) - side, 0, last * whole)
    weights = np.maximum(0, whole - np.abs(centres[:, None] - whole * np.arange(len(digit))))  # (side, 8)
    total = weights @ digit.astype(np.int64) @ weights.T
    return np.asarray((total + whole**2 // 2) // whole**2, np.uint8)

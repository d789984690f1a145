"""`binary-digits`: scikit-learn's digits, enlarged, and what Otsu's threshold makes of them, as in the article.

An image is a digit of 32x32 pixels; its mask is black and white by the threshold of the clean image. Training and test
images show different digits. All pixels are computed in whole numbers, so that every machine makes the same bytes.
"""

from __future__ import annotations

import numpy as np
from PIL import Image as Pillow

from msresnet.data.preprocess import otsu
from msresnet.data.sample import MaskedArrays, Source
from msresnet.data.sources.digits import digits
from msresnet.data.sources.meaning import TWO

NAME, SIDE = "binary-digits", 32
TEST_FROM = 1_347
"""The digits from here on, a quarter, are those of the test set; they are mostly by other writers."""


def binary_digits() -> dict[str, Source]:
    """The training and the test set."""
    small = digits().images[:, 0]
    images = np.stack([np.asarray(Pillow.fromarray(i).resize((SIDE, SIDE), Pillow.Resampling.BICUBIC)) for i in small])
    masks = np.stack([image > otsu(image) for image in images]).astype(np.uint8)
    parts = {"train": slice(0, TEST_FROM), "test": slice(TEST_FROM, None)}
    return {
        split: MaskedArrays(images[rows, None], masks[rows], TWO, f"{NAME}/{split}") for split, rows in parts.items()
    }

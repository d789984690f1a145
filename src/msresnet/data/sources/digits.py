"""scikit-learn's digits: 1,797 grey images of 8x8 pixels, ten classes, embedded in the package (BSD licence)."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from msresnet.data.preprocess import to_uint8
from msresnet.data.sample import ArraySource

NAME = "digits"


def digits() -> ArraySource:
    """All 1,797 samples; their grey levels 0 to 16 become 0 to 255."""
    bunch = load_digits()
    images = to_uint8(bunch.images, (0, 16))[:, None]  # (N, H, W) -> (N, 1, H, W)
    return ArraySource(images, bunch.target.astype(np.int64), [str(c) for c in bunch.target_names], NAME)

"""The colours of classes, for masks that people look at. K classes, H and W pixels."""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt

from msresnet.data.sample import Image

GOLDEN = 0.61803398875
"""Hues that are this far apart never come close to each other, however many there are."""
UNKNOWN = (128, 128, 128)
WRONG = (214, 39, 40)


def palette(classes: int) -> npt.NDArray[np.uint8]:
    """A colour for each index (256, 3): of two classes black and white, else black and hues; grey for no class."""
    colours = np.full((256, 3), UNKNOWN, np.uint8)
    colours[0] = 0
    for index in range(1, classes):
        hue = (0.58 + GOLDEN * (index - 1)) % 1
        colours[index] = np.rint(255 * np.array(colorsys.hsv_to_rgb(hue, 0.65, 0.95)))
    if classes <= 2:
        colours[1] = 255
    return colours


def coloured(mask: Image, classes: int) -> Image:
    """Class indices (H, W) -> their colours (3, H, W)."""
    return np.ascontiguousarray(palette(classes)[mask].transpose(2, 0, 1))


def mistakes(answer: Image, truth: Image, classes: int) -> Image:
    """Where an answer differs from the truth, red, over the truth in dark (3, H, W)."""
    picture = coloured(truth, classes) // 3
    wrong = (answer != truth) & (truth < classes)
    picture[:, wrong] = np.array(WRONG, np.uint8)[:, None]
    return picture

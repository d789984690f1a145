"""The colours of classes, for masks and boxes that people look at. K classes, H and W pixels."""

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
        colours[index] = hue(index - 1)
    if classes <= 2:
        colours[1] = 255
    return colours


def hue(index: int) -> tuple[int, int, int]:
    """A bright colour for an index, far from those of its neighbours."""
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb((0.58 + GOLDEN * index) % 1, 0.65, 0.95))
    return red, green, blue


def coloured(mask: Image, classes: int) -> Image:
    """Class indices (H, W) -> their colours (3, H, W)."""
    return np.ascontiguousarray(palette(classes)[mask].transpose(2, 0, 1))


def mistakes(answer: Image, truth: Image, classes: int) -> Image:
    """Where an answer differs from the truth, red, over the truth in dark (3, H, W)."""
    picture = coloured(truth, classes) // 3
    wrong = (answer != truth) & (truth < classes)
    picture[:, wrong] = np.array(WRONG, np.uint8)[:, None]
    return picture


def outlined(image: Image, boxes: npt.NDArray[np.float32], classes: npt.NDArray[np.int64]) -> Image:
    """An image (C, H, W) with boxes xyxy (M, 4) in pixels, in the colours of their classes: (3, H, W)."""
    picture = np.broadcast_to(image, (3, *image.shape[1:])).copy()
    thick = max(1, max(image.shape[1:]) // 300)
    for (left, top, right, bottom), index in zip(np.rint(boxes).astype(np.int64).tolist(), classes, strict=True):
        colour = np.array(hue(int(index)), np.uint8)[:, None, None]
        rows, columns = slice(top, max(top + 1, bottom)), slice(left, max(left + 1, right))
        area = picture[:, rows, columns]
        inner = area[:, thick:-thick, thick:-thick].copy()
        area[:] = colour
        area[:, thick:-thick, thick:-thick] = inner
    return picture

"""What the page is told of the models: how to draw for them, and examples. No torch here."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as Pillow

from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import Image
from msresnet.serve.page.pictures import data_url
from msresnet.trained import Trained

LARGEST_DRAWN = 64
"""Pixels a side up to which grey images are taken for characters that a person can draw."""
INK = 0.26
"""Mean brightness of handwritten digits within their own square, of scikit-learn's and of MNIST's alike: how large a
set's digits are is told by the mean of its pixels, which every model keeps."""
STROKE = 0.65
"""Width of a stroke in parts of the image's side, for each unit of mean brightness; measured on the same sets."""
DIGITS = tuple("0123456789")
EXAMPLE, PIXELS = 7, 20
"""Which of each digit is shown, and how many pixels a side it gets where it does not fill its square."""


class Pen(NamedTuple):
    """How to draw for a model: how much of the side a character fills, a stroke's width, whether ink is dark."""

    fill: float
    stroke: float
    dark: bool


def described(name: str, trained: Trained, explains: bool) -> dict[str, Any]:
    """What the page needs to know of a model, as plain values."""
    found = pen(trained.preprocess)
    height, width = trained.preprocess.size
    return {
        "name": name,
        "architecture": trained.architecture,
        "parameters": trained.params,
        "input": {"height": height, "width": width, "channels": trained.preprocess.channels},
        "classes": len(trained.postprocess.class_names),
        "explains": explains,
        "drawing": None if found is None else found._asdict(),
    }


def pen(preprocess: Preprocess) -> Pen | None:
    """How to draw for a model; None for those that do not take small grey images."""
    if preprocess.channels != 1 or max(preprocess.size) > LARGEST_DRAWN:
        return None
    mean = preprocess.mean[0]
    ink = min(mean, 1 - mean)
    fill, stroke = math.sqrt(ink / INK), STROKE * ink
    return Pen(round(min(1.0, max(0.5, fill)), 3), round(min(0.2, max(0.06, stroke)), 3), mean > 0.5)


def examples(trained: Trained) -> list[dict[str, str]]:
    """Pictures as data: URLs, with words, for models that know the handwritten digits."""
    found = pen(trained.preprocess)
    return [] if found is None or trained.postprocess.class_names != DIGITS else handwritten(found)


@cache
def handwritten(chosen: Pen) -> list[dict[str, str]]:
    """A digit of each kind, as large in its square as a model expects it."""
    from msresnet.data.sources.digits import digits  # scikit-learn takes a second to load

    source = digits()
    places = [int(np.flatnonzero(source.targets == digit)[EXAMPLE]) for digit in range(len(DIGITS))]
    return [
        {"source": data_url(framed(source.image(place), chosen)), "words": f"a handwritten {digit}"}
        for digit, place in zip(DIGITS, places, strict=True)
    ]


def framed(image: Image, chosen: Pen) -> Pillow.Image:
    """A grey image (1, H, W) of bright ink, in the middle of a square of which it fills a share."""
    inner = Pillow.fromarray(255 - image[0] if chosen.dark else image[0])
    side = round(PIXELS / chosen.fill)
    if side <= PIXELS + 1:
        return inner
    inner = inner.resize((PIXELS, PIXELS), Pillow.Resampling.BICUBIC)
    square = Pillow.new("L", (side, side), 255 if chosen.dark else 0)
    square.paste(inner, ((side - PIXELS) // 2, (side - PIXELS) // 2))
    return square

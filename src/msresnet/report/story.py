"""What a report tells, and the pictures in it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from msresnet.data.decode import printable
from msresnet.data.sample import Image
from msresnet.data.sets import Samples
from msresnet.report.page import Card, Line, Picture
from msresnet.report.plots import as_rgb
from msresnet.results import Evaluation
from msresnet.trained import Trained

SIDE, SMALL = 160, 96
"""Longest side, in pixels, of a picture: in a large card, in a small one."""
COARSE = 64
"""Pictures with fewer pixels a side are shown pixel by pixel."""


@dataclass(frozen=True)
class Story:
    """A model, its answers on a set, and how it came about.

    Args:
        known: whether the set is the run's own, as it was in training: then its name says what has seen it.
    """

    trained: Trained
    evaluation: Evaluation
    data: Samples
    history: Sequence[dict[str, Any]]
    notes: Sequence[str]
    environment: dict[str, Any]
    command: str
    known: bool = False

    @cached_property
    def places(self) -> Sequence[int]:
        """Where each answer's image is in the set: a set may have lost images that could not be read."""
        ids = self.evaluation.predictions.ids
        if len(ids) == len(self.data):
            return range(len(ids))
        place = {name: index for index, name in enumerate(self.data.ids)}
        return [place[name] for name in ids]

    def image(self, index: int) -> Image:
        """The image (C, H, W) of an answer, as the network takes it."""
        pixels: Image = self.data.image(self.places[index]).numpy()
        return pixels

    def id(self, index: int) -> str:
        """Where the image of an answer comes from."""
        return printable(self.evaluation.predictions.ids[index])

    def picture(self, index: int, side: int = SIDE) -> Picture:
        """The image of an answer."""
        return picture(as_rgb(self.image(index)), f"image {self.id(index)}", side)

    def card(self, index: int, lines: Sequence[Line], side: int = SIDE) -> Card:
        """An image with lines about it."""
        return Card([self.picture(index, side)], lines, self.id(index))


def picture(pixels: npt.NDArray[np.uint8], words: str, side: int = SIDE) -> Picture:
    """An image (H, W, 3) as it is when small, reduced when large; as PNG or JPEG, whichever is shorter."""
    image = Pillow.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((side, side))
    kind, data = min((_encoded(image, "PNG"), _encoded(image, "JPEG")), key=lambda pair: len(pair[1]))
    text = f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"
    return Picture(text, words, image.width, image.height, max(image.size) < COARSE)


def _encoded(image: Pillow.Image, kind: str) -> tuple[str, bytes]:
    data = io.BytesIO()
    image.save(data, kind, optimize=True, **({"quality": 82} if kind == "JPEG" else {}))
    return kind, data.getvalue()

"""Frames with the tracks in them: each object in the colour of its number."""

from __future__ import annotations

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from msresnet.data.sample import Image
from msresnet.report.annotate import PAPER, SMALLEST, as_picture, fitting
from msresnet.results import Tracks
from msresnet.tasks.palette import hue


def followed(image: Image, tracks: Tracks) -> Image:
    """An image (C, H, W) with the boxes of one frame and their numbers: (3, H, W), small images enlarged."""
    picture, found, numbers = as_picture(image), tracks.detections, tracks.track_ids[0]
    factor = -(-SMALLEST // max(picture.size))
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Pillow.Resampling.NEAREST)
    size = max(10, min(24, max(picture.size) // 40))
    font, pen = ImageFont.load_default(size), ImageDraw.Draw(picture)
    for box, kind, number in zip(found.boxes[0], found.classes[0], numbers, strict=True):
        left, top, right, bottom = (box * factor).tolist()
        colour = hue(int(number))
        pen.rectangle((left, top, right, bottom), outline=colour, width=max(1, size // 8))
        line = fitting(f"{number} {found.class_names[kind]}", font, picture.width)
        place = (min(left, picture.width - font.getlength(line)), max(0.0, top - 1.25 * size))
        pen.rectangle(pen.textbbox(place, line, font), fill=PAPER)
        pen.text(place, line, colour, font)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))

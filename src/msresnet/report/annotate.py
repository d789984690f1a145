"""Images with their answers on them, as files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from msresnet.data.sample import Image
from msresnet.files import check_output, disk_errors
from msresnet.results import DIGITS, Classification, Detections, Results, Segmentation
from msresnet.tasks.mask_files import save_mask
from msresnet.tasks.palette import hue

SMALLEST = 160
"""Pixels of the longer side below which an image is enlarged, so that its label can be read."""
LONGEST_NAME = 120
TEXT, PAPER = (255, 255, 255), (20, 20, 20)


class Gallery:
    """A folder of images with their answers; files that are there already are never overwritten.

    Raises UsageError for a folder that cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        check_output(folder, folder=True)
        self.folder = folder

    def add(self, results: Results, previews: Sequence[Image | None]) -> None:
        """Save some: label and probability below each image, boxes in it, or its mask. Raises ResourceError.

        `previews` are reduced images, or whole ones where answers belong to pixels.
        """
        if isinstance(results, Segmentation):
            for name, mask in zip(results.ids, results.masks, strict=True):
                with disk_errors(self.folder):
                    path = free_file(self.folder, safe_name(name), ".png")
                save_mask(mask, len(results.class_names), path)
            return
        for name, preview, answer in zip(results.ids, previews, results, strict=True):
            assert preview is not None
            picture = boxed(preview, answer) if isinstance(answer, Detections) else labelled(preview, answer)
            with disk_errors(self.folder), free_file(self.folder, safe_name(name), ".jpg").open("wb") as file:
                picture.save(file, "JPEG", quality=90)


def safe_name(text: str) -> str:
    """An image's id as the name of a file: letters, digits and few signs, never hidden, of a bounded length."""
    name = re.sub(r"[^A-Za-z0-9._=#-]+", "_", text.strip("/")).lstrip("._-")
    return name[-LONGEST_NAME:].lstrip("._-") or "image"


def free_file(folder: Path, stem: str, ending: str) -> Path:
    """A new, empty file of a name that nobody has yet: with a number where it is taken."""
    for number in itertools.count(1):
        path = folder / (f"{stem}{ending}" if number == 1 else f"{stem}-{number}{ending}")
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            continue
        return path
    raise AssertionError("there is always another number")


def labelled(image: Image, answer: Results) -> Pillow.Image:
    """An image (C, H, W) with label and probability below it."""
    assert isinstance(answer, Classification)
    return annotated(image, f"{answer.labels[0]} {answer.confidences[0]:.{DIGITS}f}")


def boxed(image: Image, answer: Detections) -> Pillow.Image:
    """An image (C, H, W) with the boxes that were found in it, and what each is and how sure, the surest on top."""
    picture = as_picture(image)
    factor = -(-SMALLEST // max(picture.size))
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Pillow.Resampling.NEAREST)
    size = max(10, min(24, max(picture.size) // 40))
    font, pen = ImageFont.load_default(size), ImageDraw.Draw(picture)
    for index in np.argsort(answer.scores[0], kind="stable"):
        left, top, right, bottom = (answer.boxes[0][index] * factor).tolist()
        colour = hue(int(answer.classes[0][index]))
        pen.rectangle((left, top, right, bottom), outline=colour, width=max(1, size // 8))
        name, score = answer.class_names[answer.classes[0][index]], answer.scores[0][index]
        line = fitting(f"{name} {score:.2f}", font, picture.width)
        place = (min(left, picture.width - font.getlength(line)), max(0.0, top - 1.25 * size))
        pen.rectangle(pen.textbbox(place, line, font), fill=PAPER)
        pen.text(place, line, colour, font)
    return picture


def annotated(image: Image, text: str) -> Pillow.Image:
    """An image (C, H, W) with a line of text below it."""
    picture = as_picture(image)
    factor = -(-SMALLEST // max(picture.size))
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Pillow.Resampling.NEAREST)
    size = max(12, min(28, max(picture.size) // 16))
    font = ImageFont.load_default(size)
    line = fitting(text, font, max(picture.width, SMALLEST) - size)
    paper = Pillow.new("RGB", (max(picture.width, SMALLEST), picture.height + 2 * size), PAPER)
    paper.paste(picture, ((paper.width - picture.width) // 2, 0))
    ImageDraw.Draw(paper).text((size // 2, picture.height + size // 3), line, TEXT, font)
    return paper


def fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """A text on one line, shortened where it is wider than so many pixels."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    while len(line) > 1 and font.getlength(line) > width:
        line = line[:-2] + "…"
    return line


def as_picture(image: Image) -> Pillow.Image:
    """uint8 (C, H, W) as an RGB image."""
    return Pillow.fromarray(np.ascontiguousarray(np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)))

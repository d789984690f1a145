"""The server's page as a person uses it: digits as a hand draws them, and the places where answers appear.

A stroke is a line of points, in 0 to 1 of the board's side.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from hostile import encode
from msresnet.data.sources.digits import digits

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

Visit = Callable[..., "tuple[Page, list[str]]"]
"""Opens the page; gives it, and a list of what the browser complains of."""
Stroke = list[tuple[float, float]]


def arc(centre: tuple[float, float], radii: tuple[float, float], start: float, end: float) -> Stroke:
    """A part of an ellipse, in degrees clockwise from the right."""
    turns = [math.radians(start + (end - start) * step / 20) for step in range(21)]
    return [(centre[0] + radii[0] * math.cos(turn), centre[1] + radii[1] * math.sin(turn)) for turn in turns]


DIGITS: list[list[Stroke]] = [
    [arc((0.5, 0.5), (0.2, 0.3), -90, 270)],
    [[(0.42, 0.3), (0.52, 0.2), (0.52, 0.8)]],
    [[*arc((0.5, 0.35), (0.18, 0.15), -170, 20), (0.34, 0.8), (0.7, 0.8)]],
    [arc((0.48, 0.35), (0.17, 0.15), -150, 90) + arc((0.48, 0.65), (0.19, 0.16), -90, 150)],
    [[(0.55, 0.2), (0.3, 0.6), (0.72, 0.6)], [(0.58, 0.42), (0.58, 0.82)]],
    [[(0.68, 0.2), (0.4, 0.2), (0.37, 0.45), *arc((0.48, 0.6), (0.2, 0.18), -120, 140)]],
    [[(0.6, 0.18), (0.42, 0.38), *arc((0.5, 0.62), (0.17, 0.18), -160, 200)]],
    [[(0.3, 0.2), (0.7, 0.2), (0.45, 0.82)]],
    [arc((0.5, 0.35), (0.14, 0.15), 90, -270) + arc((0.5, 0.66), (0.17, 0.16), -90, 270)],
    [[*arc((0.5, 0.37), (0.16, 0.16), 0, -360), (0.66, 0.37), (0.62, 0.82)]],
]


def placed(page: Page, stroke: Stroke) -> Stroke:
    """A stroke where the board is on the screen."""
    box = page.locator("#board").bounding_box()
    assert box is not None
    return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]


def draw(page: Page, digit: int) -> None:
    """Draw a digit on the page's board with the mouse."""
    for stroke in DIGITS[digit]:
        first, *rest = placed(page, stroke)
        page.mouse.move(*first)
        page.mouse.down()
        for point in rest:
            page.mouse.move(*point)
        page.mouse.up()


def picture(index: int = 0) -> bytes:
    """A sample of the digits as a PNG; the first ten are 0 to 9, of which the 5 could be a 9."""
    return encode(digits().images[index][0], "PNG")


def give(page: Page, data: bytes, name: str = "x.png") -> None:
    """Choose a file."""
    page.locator("#file").set_input_files({"name": name, "mimeType": "image/png", "buffer": data})


def article(page: Page, model: str = "digits") -> Locator:
    return page.get_by_role("article", name=f"Answer of {model}")


def headline(page: Page, model: str = "digits") -> Locator:
    return article(page, model).locator(".headline")


def wait_text(place: Locator, text: str) -> None:
    place.filter(has_text=re.compile(f"^{re.escape(text)}$")).wait_for()


def explained(page: Page, model: str = "digits") -> Locator:
    """The answer, once it is explained."""
    place = article(page, model)
    place.locator("img.heat").wait_for()
    return place


def alone(page: Page, model: str = "digits") -> None:
    """One model, nothing beside it."""
    page.get_by_label("Model").select_option(model)
    page.get_by_label("Beside it").select_option("none")

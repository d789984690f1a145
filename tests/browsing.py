"""A real browser where there is one, and what tests of pages measure in it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TEXTS = """() => {
  const parse = (colour) => { const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number); return { r, g, b, a }; };
  const over = (top, below) => Object.fromEntries(
    ["r", "g", "b"].map((c) => [c, top[c] * top.a + below[c] * (1 - top.a)]));
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), { r: 255, g: 255, b: 255 });
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("script, style")) continue;
    const style = getComputedStyle(element), paper = behind(element);
    const ink = over(parse(element.closest("svg") ? style.fill : style.color), paper);
    const text = ({ r, g, b }) => `rgb(${r}, ${g}, ${b})`;
    found.push([walker.currentNode.data.trim(), text(ink), text(paper)]);
  }
  return found;
}"""
"""Every visible text with its colour and that of the paper below it, transparency worked out."""


@contextlib.contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """The chromium that is installed, or a skip."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu", *flags])
        yield opened
        opened.close()


def contrast(a: str, b: str) -> float:
    """WCAG's contrast ratio of two CSS colours of the form rgb(r, g, b)."""

    def luminance(colour: str) -> float:
        channels = np.array([float(c) for c in colour[4:-1].split(",")]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)

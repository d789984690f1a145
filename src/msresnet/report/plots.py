"""Pictures, as PNG files and as SVG or PNG text for the report. Colours work on light and on dark paper."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from scipy.ndimage import gaussian_filter

from msresnet.files import write_atomic

BLUE, ORANGE, GREY = "#3f7cc4", "#d9822b", "#808489"
SPREAD, DARKENED = 1 / 70, 0.55
"""Of a heat map, the width in parts of its side; what is left of a picture's brightness below it."""
MARKED = 20
"""Fewer points than these are marked each."""
Image = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.float32]


def as_rgb(image: Image) -> npt.NDArray[np.uint8]:
    """uint8 (C, H, W) -> (H, W, 3)."""
    return np.ascontiguousarray(np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0))


def overlay(image: Image, heat: Heat) -> npt.NDArray[np.uint8]:
    """A picture (C, H, W), darkened and without colour, with its heat map (H, W) shining on it, as (H, W, 3).

    Attributions of single pixels are seen only when they are spread a little, and a few extreme ones left out of the
    scale.
    """
    spread = gaussian_filter(heat, max(heat.shape) * SPREAD)
    strength = np.clip(spread / max(float(np.quantile(spread, 0.99)), 1e-12), 0, 1)[..., None]
    grey = as_rgb(image).mean(-1, keepdims=True) * DARKENED
    colours = matplotlib.colormaps["inferno"](0.25 + 0.75 * strength[..., 0])[..., :3] * 255
    return np.asarray(grey * (1 - strength) + np.maximum(colours, grey) * strength, dtype=np.uint8)


def new_figure(width: float, height: float) -> Figure:
    """A figure on no background, inches."""
    figure = Figure((width, height), layout="constrained")
    figure.patch.set_alpha(0)
    return figure


def blank_axes(figure: Figure, width: float, height: float) -> Any:
    """Axes that measure in inches from the lower left corner, without lines or numbers."""
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    return axes


def plain_axes(figure: Figure, *position: int | SubplotSpec) -> Any:
    """Axes with two lines and a faint grid."""
    axes = figure.add_subplot(*position)
    axes.patch.set_alpha(0)
    axes.tick_params(colors=GREY, labelsize=9)
    axes.grid(color=GREY, alpha=0.2, linewidth=0.6)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(GREY)
    return axes


def labelled(axes: Any, title: str, x: str, y: str) -> None:
    """Say what axes show."""
    axes.set_title(title, color=GREY, fontsize=10, loc="left")
    axes.set_xlabel(x, color=GREY, fontsize=9)
    axes.set_ylabel(y, color=GREY, fontsize=9)


def svg(figure: Figure) -> str:
    """A figure as SVG text, the same each time."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "msresnet", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def preprocess_picture(pairs: Sequence[tuple[Image, Image]], names: Sequence[str], title: str, path: Path) -> None:
    """Images before (above) and after (below) preprocessing. A PNG file."""
    columns = min(6, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = Figure((1.7 * columns, 3.9 * rows), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=10)
    for i, (pair, name) in enumerate(zip(pairs, names, strict=True)):
        for below, image in enumerate(pair):
            place = (2 * (i // columns) + below) * columns + i % columns + 1
            axes = figure.add_subplot(2 * rows, columns, place)
            axes.imshow(as_rgb(image), interpolation="nearest" if max(image.shape) < 64 else None)
            axes.set_title(name if not below else f"{image.shape[2]}x{image.shape[1]}", fontsize=9)
            axes.axis("off")
    figure.savefig(path, format="png", dpi=110)


def sweep_picture(rows: Sequence[tuple[float, float]], names: tuple[str, str], chosen: float, path: Path) -> None:
    """What was measured at each value that was tried, and which was chosen, as a PNG file."""
    figure = new_figure(5.5, 3.2)
    figure.patch.set(facecolor="white", alpha=1)
    axes = plain_axes(figure)
    axes.plot(*zip(*rows, strict=True), color=BLUE, linewidth=1.4, marker="o" if len(rows) < MARKED else "")
    axes.axvline(chosen, color=ORANGE, linewidth=1.2, linestyle="--")
    axes.set_xscale("log", base=2 if len(rows) < MARKED else 10)
    labelled(axes, f"chosen: {chosen:g}", *(name.replace("_", " ") for name in names))
    write_atomic(path, lambda part: figure.savefig(part, format="png", dpi=120))

"""Pictures, as PNG files and as SVG or PNG text for the report. Colours work on light and on dark paper."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from PIL import Image as Pillow

from msresnet.explain.explanation import Explanation
from msresnet.explain.scales import ScaleResponse
from msresnet.files import write_atomic

BLUE, ORANGE, GREY = "#3f7cc4", "#d9822b", "#808489"
THUMBNAIL = 160
"""Longest side, in pixels, of a picture in the report."""
MARKED = 20
"""Fewer points than these are marked each."""
Image = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.float32]


def as_rgb(image: Image) -> npt.NDArray[np.uint8]:
    """uint8 (C, H, W) -> (H, W, 3)."""
    return np.ascontiguousarray(np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0))


def overlay(image: Image, heat: Heat) -> npt.NDArray[np.uint8]:
    """A picture (C, H, W) with its heat map (H, W) laid over it, as (H, W, 3)."""
    colours = matplotlib.colormaps["inferno"](heat)[..., :3] * 255
    weight = 0.15 + 0.5 * heat[..., None]
    return np.asarray(as_rgb(image) * (1 - weight) + colours * weight, dtype=np.uint8)


def png_data(array: npt.NDArray[np.uint8]) -> str:
    """(H, W, 3) as a data: URI; enlarged in whole steps when tiny, reduced when large."""
    picture = Pillow.fromarray(array)
    factor = max(1, 64 // max(picture.size))
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Pillow.Resampling.NEAREST)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    text = io.BytesIO()
    picture.save(text, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(text.getvalue()).decode()


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


def curves(history: Sequence[dict[str, Any]]) -> str:
    """Loss and validation accuracy over the epochs, as SVG."""
    figure = new_figure(8, 2.9)
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(epochs) < 3 else None
    losses, scores = plain_axes(figure, 1, 2, 1), plain_axes(figure, 1, 2, 2)
    losses.plot(epochs, [row["train_loss"] for row in history], color=BLUE, label="training", marker=marker)
    metric = next((k for k in history[0] if k.startswith("val_") and k != "val_loss"), None)
    if metric is not None:
        losses.plot(epochs, [row["val_loss"] for row in history], color=ORANGE, label="validation", marker=marker)
        scores.plot(epochs, [100 * row[metric] for row in history], color=ORANGE, marker=marker)
    losses.legend(frameon=False, labelcolor=GREY, fontsize=9)
    labelled(losses, "Loss", "epoch", "nats")
    labelled(scores, "Validation top-1", "epoch", "%")
    return svg(figure)


def reliability_plot(rows: Sequence[tuple[float, float, int]]) -> str:
    """Accuracy against confidence (mean confidence, accuracy, count), as SVG."""
    figure = new_figure(3.6, 3.2)
    axes = plain_axes(figure, 1, 1, 1)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    confidences, accuracies, counts = (np.array(column) for column in zip(*rows, strict=True))
    sizes = 15 + 120 * counts / counts.max()
    axes.scatter(confidences, accuracies, s=sizes, color=BLUE, alpha=0.75, clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    labelled(axes, "Is it as sure as it should be?", "stated probability", "share correct")
    return svg(figure)


def cost_plot(exits: Sequence[dict[str, Any]], budgets: Sequence[dict[str, Any]], metric: str) -> str:
    """Accuracy against multiply-adds: at each exit, and where images leave as soon as they are sure, as SVG."""
    figure = new_figure(4.6, 3.2)
    axes = plain_axes(figure, 1, 1, 1)
    for rows, colour, label in ((exits, ORANGE, "all at one exit"), (budgets, BLUE, "each when it is sure")):
        points = sorted((row["macs"] / 1e6, 100 * row[metric]) for row in rows)
        axes.plot([x for x, _ in points], [y for _, y in points], color=colour, marker="o", markersize=4, label=label)
    axes.legend(frameon=False, labelcolor=GREY, fontsize=9, loc="lower right")
    labelled(axes, "Accuracy against cost", "million multiply-adds an image", f"{metric}, %")
    return svg(figure)


def scale_bars(rows: Sequence[tuple[str, float]]) -> str:
    """The mean share of each scale, as SVG."""
    figure = new_figure(4.6, 0.7 + 0.34 * len(rows))
    axes = plain_axes(figure, 1, 1, 1)
    names, shares = [r[0] for r in rows][::-1], [100 * r[1] for r in rows][::-1]
    axes.barh(names, shares, color=BLUE, height=0.62)
    for i, share in enumerate(shares):
        axes.text(share + 0.8, i, f"{share:.0f} %", va="center", color=GREY, fontsize=9)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, max(shares) * 1.15 or 1)
    labelled(axes, "Response of each scale", "share, %", "")
    return svg(figure)


def explanation_picture(items: Sequence[Explanation], path: Path) -> None:
    """One row for each image: the picture, the heat map, the scales, block by block. A PNG file."""
    figure = Figure((11, 3.1 * len(items)), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(len(items), 3, width_ratios=(1, 1, 1.9))
    for row, item in enumerate(items):
        label, probability = item.result.top(1)[0][0]
        views = (
            (as_rgb(item.picture), f"{label} {probability:.4f}"),
            (overlay(item.picture, item.heat), f"where: {item.target}"),
        )
        for column, (view, title) in enumerate(views):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(view, interpolation="nearest" if max(view.shape) < 64 else None)
            axes.set_title(title, fontsize=10)
            axes.axis("off")
        _stacked(figure.add_subplot(grid[row, 2]), item.scales)
    figure.savefig(path, format="png", dpi=110)


def _stacked(axes: Any, scales: Sequence[ScaleResponse]) -> None:
    """The shares of each operator's branches as stacked bars, from the image's side to the answer's."""
    axes.set_title("at which scale", fontsize=10)
    if not scales:
        axes.axis("off")
        axes.text(0.5, 0.5, "no operator whose scales\ncan be told apart", ha="center", color=GREY)
        return
    operators = list(dict.fromkeys(s.operator for s in scales))
    branches = list(dict.fromkeys(s.branch for s in scales))
    palette = matplotlib.colormaps["viridis"](np.linspace(0.1, 0.9, len(branches)))
    start = np.zeros(len(operators))
    for branch, colour in zip(branches, palette, strict=True):
        shares = np.array([sum(s.share for s in scales if (s.operator, s.branch) == (o, branch)) for o in operators])
        axes.barh(operators, 100 * shares, left=100 * start, color=colour, label=branch)
        start += shares
    axes.invert_yaxis()
    axes.set_xlabel("share of the response, %", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, ncols=min(4, len(branches)), loc="upper center", bbox_to_anchor=(0.5, -0.22), frameon=False)


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

"""Charts of a page: SVG in the page's own colours and letters, so that they are read on light and dark paper."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from msresnet.data.decode import printable
from msresnet.report.page import Chart, short
from msresnet.report.plots import BLUE, GREY, ORANGE, labelled, new_figure, plain_axes, svg

COLOURS = {GREY: "var(--soft)", BLUE: "rgb(var(--blue))", ORANGE: "rgb(var(--orange))"}
TAG = re.compile(r"<[^!<>][^<>]*>")
"""What is rewritten: names that a user gave stand between tags."""
WIDE, HIGH = 4.4, 3.0
"""Inches: two charts fit beside each other, and one on a phone."""
LONGEST_NAME = 24
MARKED = 3
"""With fewer points, a line would not be seen."""


def chart(figure: Figure, words: str) -> Chart:
    """A figure for a page, with what it shows in words."""
    text = TAG.sub(lambda tag: _plain(tag[0]), svg(figure))
    prefix = f"c{crc32(text.encode()):08x}-"  # ids of several drawings on a page would clash
    text = TAG.sub(lambda tag: re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", tag[0]), text)
    text = text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
    return Chart(Markup(text), words)


def _plain(tag: str) -> str:
    """A tag in the page's colours and letters, without a group's name."""
    for colour, name in COLOURS.items():
        tag = tag.replace(colour, name)
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    tag = re.sub(r"font-family: [^;\"]*", "font-family: inherit", tag)
    return re.sub(r"(font: [\d.]+px) [^;\"]*", r"\1 inherit", tag)


def axes_of(title: str, x: str, y: str) -> tuple[Figure, Any]:
    """A figure of one chart, and its axes."""
    figure = new_figure(WIDE, HIGH)
    axes = plain_axes(figure, 1, 1, 1)
    labelled(axes, title, x, y)
    return figure, axes


def key(axes: Any, **where: Any) -> None:
    """What the colours of a chart mean."""
    axes.legend(frameon=False, labelcolor=GREY, fontsize=9, **where)


def whole_epochs(axes: Any, epochs: Sequence[int]) -> None:
    """Ticks at epochs, and none between them."""
    if len(epochs) < MARKED:
        axes.set_xticks(epochs)
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)


def losses(history: Sequence[dict[str, Any]]) -> Chart:
    """Loss over the epochs."""
    figure, axes = axes_of("Loss", "epoch", "loss")
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(epochs) < MARKED else None
    axes.plot(epochs, [row["train_loss"] for row in history], color=BLUE, label="training", marker=marker)
    first, last = history[0], history[-1]
    words = f"Training loss over {len(epochs)} epochs, {first['train_loss']:.3g} to {last['train_loss']:.3g}"
    if validated := [(row["epoch"], row["val_loss"]) for row in history if "val_loss" in row]:
        axes.plot(*zip(*validated, strict=True), color=ORANGE, label="validation", marker=marker)
        words += f"; validation loss {validated[0][1]:.3g} to {validated[-1][1]:.3g}"
    whole_epochs(axes, epochs)
    key(axes)
    return chart(figure, words)


def scores(history: Sequence[dict[str, Any]], metric: str, name: str) -> Chart:
    """The validation's figure over the epochs, in per cent."""
    figure, axes = axes_of(f"Validation: {name}", "epoch", f"{name}, %")
    values = [100 * row[metric] for row in history if metric in row]
    epochs = [row["epoch"] for row in history if metric in row]
    axes.plot(epochs, values, color=ORANGE, marker="o" if len(epochs) < MARKED else None)
    whole_epochs(axes, epochs)
    told = f"{values[0]:.2f} % after epoch {epochs[0]} and {values[-1]:.2f} % after the last epoch"
    return chart(figure, f"{name} on the validation set, {told}")


def reliability_chart(rows: Sequence[dict[str, float]], before: Sequence[dict[str, float]] | None = None) -> Chart:
    """Accuracy against confidence, a point for each bin, larger for more images; beside it, before calibration."""
    figure, axes = axes_of("Is it as sure as it should be?", "stated probability", "share correct")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    if before:
        points = zip(*((row["confidence"], row["accuracy"]) for row in before), strict=True)
        axes.plot(*points, color=ORANGE, linewidth=1, marker="o", markersize=3, label="before calibration")
    stated, right, counts = (np.array([row[name] for row in rows]) for name in ("confidence", "accuracy", "n"))
    axes.plot(stated, right, color=BLUE, linewidth=1, alpha=0.5)
    sizes = 15 + 120 * counts / counts.max()
    axes.scatter(stated, right, s=sizes, color=BLUE, alpha=0.8, clip_on=False, label="calibrated" if before else None)
    if before:
        key(axes, loc="upper left")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    gap = float(np.abs(stated - right) @ counts / counts.sum())
    words = f"Share of correct answers against stated probability; on average they are {100 * gap:.1f} points apart"
    return chart(figure, words)


def coverage_chart(rows: Sequence[dict[str, float]]) -> Chart:
    """Accuracy among the surest answers, against how many they are."""
    figure, axes = axes_of("If it answers only when it is sure", "share answered, %", "correct of those, %")
    shares, right = ([100 * row[name] for row in rows] for name in ("coverage", "accuracy"))
    axes.plot(shares, right, color=BLUE, marker="o" if len(rows) < MARKED else None)
    axes.set_xlim(0, 101)
    half = min(rows, key=lambda row: abs(row["coverage"] - 0.5))
    words = (
        f"Accuracy against coverage: {right[-1]:.2f} % when all images are answered, "
        f"{100 * half['accuracy']:.2f} % of the {100 * half['coverage']:.0f} % that it is surest of"
    )
    return chart(figure, words)


def cost_chart(exits: Sequence[dict[str, Any]], budgets: Sequence[dict[str, Any]], metric: str, name: str) -> Chart:
    """Accuracy against multiply-adds: at each exit, and where images leave as soon as they are sure."""
    figure, axes = axes_of("Accuracy against cost", "million multiply-adds an image", f"{name}, %")
    for rows, colour, label in ((exits, ORANGE, "all at one exit"), (budgets, BLUE, "each when it is sure")):
        points = sorted((row["macs"] / 1e6, 100 * row[metric]) for row in rows)
        axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, label=label)
    key(axes, loc="lower right")
    words = f"{name} against multiply-adds, at each of {len(exits)} exits and for bounds on the stated probability"
    return chart(figure, words)


def robustness_chart(
    curves: Sequence[tuple[str, Sequence[tuple[float, float, Sequence[float] | None]]]], title: str, x: str, y: str
) -> Chart:
    """Accuracy against size, a line for each model: its name, and rows of size, share and interval."""
    figure, axes = axes_of(title, x, y)
    told = []
    for (name, rows), colour in zip(curves, (BLUE, ORANGE), strict=False):
        sizes, shares = [row[0] for row in rows], [100 * row[1] for row in rows]
        axes.plot(sizes, shares, color=colour, marker="o", markersize=4, label=literal(name))
        if all(row[2] is not None for row in rows):
            low, high = ([100 * row[2][side] for row in rows if row[2]] for side in (0, 1))
            axes.fill_between(sizes, low, high, color=colour, alpha=0.16, linewidth=0)
        each = (f"{share:.1f} % at {size:g}" for size, share in zip(sizes, shares, strict=True))
        told.append(f"{name}: {', '.join(each)}")
    axes.set_xscale("log", base=2)
    every = sorted({row[0] for _, rows in curves for row in rows})
    axes.set_xticks(every, [f"{size:g}" for size in every])
    axes.minorticks_off()
    if len(curves) > 1:
        key(axes)
    return chart(figure, f"{title}. {'; '.join(told)}")


def named(text: str) -> str:
    """A class's name for a key: its beginning, as it is, and not left out for how it begins."""
    shown = literal(short(printable(text), LONGEST_NAME))
    return f" {shown}" if shown.startswith("_") else shown


def literal(text: str) -> str:
    """A text that matplotlib shows as it is, dollar signs and all."""
    return text.replace("$", r"\$")

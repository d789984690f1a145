"""Pictures of operators, drawn from the data that the networks are built from."""

from __future__ import annotations

from typing import Any

from matplotlib.patches import FancyBboxPatch

from msresnet.nn.grammar import Branch, Operator
from msresnet.report.plots import BLUE, GREY, ORANGE, blank_axes, new_figure, svg

ROW, BOX = 0.62, 0.4
"""Height of a branch's row, and of its box, in inches."""
INPUT, LEFT, RIGHT, JOIN, OUTPUT = 0.45, 1.5, 3.9, 4.75, 5.7
"""Where things stand from left to right, in inches."""


def operator_picture(name: str, spec: Operator) -> str:
    """One operator from left to right: the input and its split, the branches, how they join. SVG."""
    height = ROW * len(spec.branches) + 0.5
    figure = new_figure(6.4, height)
    axes = blank_axes(figure, 6.4, height)
    rows = [height - 0.5 - ROW * (i + 0.5) for i in range(len(spec.branches))]
    axes.text(0.05, height - 0.2, name, color=GREY, fontsize=10, weight="bold", va="center")
    middle = sum(rows) / len(rows)
    _box(axes, (INPUT, middle), 0.7, "x", GREY)
    for i, (branch, y) in enumerate(zip(spec.branches, rows, strict=True)):
        _arrow(axes, (INPUT + 0.36, middle), (LEFT, y))
        _branch(axes, spec, branch, y)
        if spec.connect == "cascade" and i and branch.kind == "conv":
            _cascade(axes, rows[i - 1], y)
        if len(rows) > 1:
            _arrow(axes, (RIGHT, y), (JOIN - 0.22, middle))
    if spec.split != "none":
        words = f"{len(spec.branches)} parts" if spec.split == "channels" else f"{len(spec.branches)} radix groups"
        axes.text(INPUT, middle - 0.34, words, color=GREY, fontsize=7, ha="center", va="center")
    _join(axes, spec, middle)
    return svg(figure)


def _branch(axes: Any, spec: Operator, branch: Branch, y: float) -> None:
    parts = [branch.label]
    if branch.groups == "depthwise":
        parts.append("depthwise")
    elif branch.groups > 1:
        parts.append(f"{branch.groups} groups")
    total = sum(b.share for b in spec.branches)
    if total != len(spec.branches):
        parts.append(f"{branch.share}/{total} of the channels")
    if branch.kind != "identity" or spec.linear:
        parts += ["BN"] if spec.norm == "branch" else []
        parts += ["ReLU"] if spec.act else []
    colour = GREY if branch.kind == "identity" else BLUE
    _box(axes, ((LEFT + RIGHT) / 2, y), RIGHT - LEFT, " · ".join(parts), colour)


def _cascade(axes: Any, above: float, y: float) -> None:
    """What the branch before gave is added to what this one takes."""
    x = LEFT - 0.16
    axes.plot(
        [RIGHT + 0.1, RIGHT + 0.1, x, x], [above, (above + y) / 2, (above + y) / 2, y + 0.1], color=ORANGE, lw=1.1
    )
    axes.text(x, y, "+", color=ORANGE, fontsize=11, ha="center", va="center", weight="bold")


def _join(axes: Any, spec: Operator, y: float) -> None:
    if len(spec.branches) > 1:
        words = {"concat": "concat", "sum": "sum", "softmax": "softmax\nsum"}[spec.merge]
        _box(axes, (JOIN + 0.15, y), 0.74, words, ORANGE)
    _arrow(axes, (JOIN + 0.53 if len(spec.branches) > 1 else RIGHT, y), (OUTPUT, y))
    axes.text(OUTPUT + 0.06, y, "y" if spec.norm == "branch" else "BN", color=GREY, fontsize=9, va="center")
    if spec.linear and len(spec.branches) > 1:
        axes.text(6.35, y - 0.36, "folds to one convolution", color=GREY, fontsize=7, ha="right", va="center")


def _box(axes: Any, centre: tuple[float, float], width: float, text: str, colour: str) -> None:
    x, y = centre
    corner = (x - width / 2, y - BOX / 2)
    shape = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch(corner, width, BOX, boxstyle=shape, fill=False, edgecolor=colour, linewidth=1.2))
    axes.text(x, y, text, color=colour, fontsize=8.5, ha="center", va="center", linespacing=0.95)


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": GREY, "linewidth": 0.9, "mutation_scale": 8}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)

"""A benchmark as a page: who is fastest, at which accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msresnet.deploy.benchmark.table import HEADS, cells
from msresnet.report import page
from msresnet.report.charts import WIDE, chart
from msresnet.report.overview import machine
from msresnet.report.page import Chart, Command, Headline, Headlines, Part, Row, Section, Table, Words
from msresnet.report.plots import BLUE, labelled, new_figure, plain_axes

BAR, FRAME = 0.26, 0.9
"""Inches: of a bar, and of what stands around them."""


def write_page(
    path: Path, rows: Sequence[dict[str, Any]], peaks: dict[str, float], environment: dict[str, Any], command: str
) -> None:
    """One HTML file that opens anywhere, offline."""
    batches = sorted({row["batch"] for row in rows})
    models = list(dict.fromkeys(row["model"] for row in rows))
    lead = f"{', '.join(models)}: images a second, measured in turn in one run; figures are medians over the rounds."
    parts: list[Part] = [Headlines([_fastest(rows, batch) for batch in batches])] if rows else []
    parts += [Row([_bars(rows, batch) for batch in batches])] if rows else []
    parts.append(Table("All figures", HEADS, [cells(row) for row in rows], sort=True))
    if peaks:
        reached = ", ".join(f"{value / 1e9:,.0f} billion a second in {name}" for name, value in peaks.items())
        parts.append(Words(f"The peak is what large convolutions reach here, in operations: {reached}."))
    sections = [
        Section("speed", "How fast it answers", parts),
        Section("origin", "How this came about", [Command(command), machine(environment)]),
    ]
    page.write_page(path, "Benchmark", lead, sections)


def _fastest(rows: Sequence[dict[str, Any]], batch: int) -> Headline:
    best = max((row for row in rows if row["batch"] == batch), key=lambda row: float(row["images_per_second"]))
    who = ", ".join(cells(best)[:2])
    return Headline(f"{best['images_per_second']:,.0f}", f"images a second, {batch} at a time: {who}")


def _bars(rows: Sequence[dict[str, Any]], batch: int) -> Chart:
    """Images a second of all contestants, fastest first."""
    shown = sorted((row for row in rows if row["batch"] == batch), key=lambda row: float(row["images_per_second"]))
    names = ["\n".join(cells(row)[:2]) for row in shown]
    values = [row["images_per_second"] for row in shown]
    figure = new_figure(WIDE, FRAME + 1.6 * BAR * len(shown))
    axes = plain_axes(figure, 1, 1, 1)
    labelled(axes, f"{batch} at a time", "images a second", "")
    axes.barh(range(len(shown)), values, color=BLUE, height=0.6)
    axes.set_yticks(range(len(shown)), names, fontsize=8)
    axes.set_xlim(left=0)
    told = ", ".join(f"{n.replace(chr(10), ' by ')} {v:,.0f}" for n, v in zip(names[::-1], values[::-1], strict=True))
    return chart(figure, f"Images a second, {batch} at a time: {told}")

"""`msresnet data check`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.data.options import DataOptions, PreprocessOptions
from msresnet.errors import DataError, QualityGateError, UsageError, at_least
from msresnet.machine import cores
from msresnet.rows import write_csv

if TYPE_CHECKING:
    from collections.abc import Callable

    from msresnet.cli.screen import Screen
    from msresnet.data.findings import Finding
    from msresnet.data.verify import Report

Gate = Literal["corrupt", "leaks", "duplicates", "conflicts", "any"]
GATES: dict[str, tuple[str, ...]] = {
    "corrupt": ("corrupt", "lost"),
    "leaks": ("leaks",),
    "duplicates": ("duplicates", "leaks", "copies"),
    "conflicts": ("conflicts", "two-classes"),
}
MOST_CLASSES, EXAMPLES, BAR = 24, 3, 20
SAY_EVERY = 10.0
"""Seconds between lines of progress where there is no terminal."""
COLUMNS = ("kind", "level", "group", "split", "id", "class", "detail")
ABOVE = "the findings above say what to do"
MARKS = {"error": ("✗", "red"), "warning": ("!", "yellow"), "note": ("·", "cyan")}


@dataclass(frozen=True, kw_only=True)
class CheckConfig(DataOptions, PreprocessOptions):
    """Decode every image and say what is wrong with the data: unreadable, equal, mislabelled, missing, unusual."""

    data: str = "digits"
    """What `train` takes."""
    output: str | None = None
    """A .json file for everything that was found."""
    format: Literal["table", "json", "csv"] = "table"
    """How the findings are printed. In a .csv, a row is an image or a class of a finding."""
    fail_on: tuple[Gate, ...] = ()
    """Leave with 8 where such findings are: corrupt, leaks (between sets), duplicates (leaks too), conflicts (of
    labels), any (but for notes). What training would refuse leaves with 3 in any case."""
    workers: int = field(default_factory=cores)
    """Processes that decode images. Default: one for each core."""

    def __post_init__(self) -> None:
        at_least({"workers": (self.workers, 1)})  # 0 would decode in this process, which a file may end


def main(words: list[str], common: Common) -> int:
    """Print the classes of each set and everything that was found; raises what training would raise."""
    parsed = parse("data check", CheckConfig, words, common)
    config = parsed.config
    if "cache" in parsed.origin:
        why = "each image is looked at once; what was found is always remembered"
        raise UsageError("--cache has no effect here", why=why, hint="leave it out")
    from msresnet.cli.screen import Screen
    from msresnet.data.splits import open_data
    from msresnet.data.verify import check
    from msresnet.files import check_output, write_json

    if config.output is not None:
        check_output(Path(config.output), folder=False)
    screen = Screen(common)
    splits = open_data(config.data, config, unlabelled=True)
    name = json.dumps([config.data, config.val_data, config.test_data])
    with _progress(screen) as progress:
        report = check(splits, config, name=name, workers=config.workers, on_bad=config.on_bad, progress=progress)
    if config.output is not None:
        write_json(Path(config.output), {"data": config.data, **report.to_dict()})
    _print(report, config, screen)
    if config.output is not None:
        screen.note(f"all of it: {config.output}")
    _judge(report.findings, config.fail_on)
    return 0


@contextmanager
def _progress(screen: Screen) -> Iterator[Callable[[int, int], None]]:
    """Something to call with (done, total): a bar on a terminal, else a line now and then."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("looking at images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    terminal = screen.console.is_terminal and not screen.quiet
    # It refreshes no faster than asked, in this thread: no other may run while processes are forked.
    bar = Progress(*columns, console=screen.console, transient=True, auto_refresh=False, disable=not terminal)
    task = bar.add_task("", total=None)
    last = time.monotonic()

    def step(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last < (0.1 if terminal else SAY_EVERY):
            return
        last = time.monotonic()
        if terminal:
            bar.update(task, completed=done, total=total, refresh=True)
        else:
            screen.note(f"· {done:,} of {total:,} images looked at", "dim")

    with bar:
        yield step


def _print(report: Report, config: CheckConfig, screen: Screen) -> None:
    screen.notes(report.notes)
    if config.format == "json":
        print(json.dumps({"data": config.data, **report.to_dict()}, indent=2))
        return
    if config.format == "csv":
        write_csv(sys.stdout, [COLUMNS, *(row for finding in report.findings for row in _rows(finding))])
        return
    screen.table(_class_table(report))
    screen.table(_finding_table(report))


def _rows(finding: Finding) -> Iterator[tuple[Any, ...]]:
    """A finding's items as rows of COLUMNS; the images of one group bear the same number."""
    for number, item in enumerate(finding.items, 1):
        for part in item.get("images", [item]):
            named = ("split", "id", "class")
            rest = "; ".join(
                f"{key} {value}" for key, value in {**item, **part}.items() if key not in (*named, "images")
            )
            yield finding.kind, finding.level, number, *(part.get(key) or "" for key in named), rest


def _class_table(report: Report) -> Any:
    """Classes x sets, with a bar for the share in the first set; the middle of a long list is left out."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, show_footer=True)
    first, rows = next(iter(report.sets)), report.classes
    boxed = any("boxes" in counts for counts in report.sets.values())
    table.add_column("boxes of" if boxed else "class", Text("all"), footer_style="bold", overflow="fold")
    for name, counts in report.sets.items():
        table.add_column(name, f"{counts.get('boxes', counts['images']):,}", justify="right", footer_style="bold")
    table.add_column("", no_wrap=True)
    most = max([row[first] for row in rows] or [0])
    if len(rows) > MOST_CLASSES:
        rows = sorted(rows, key=lambda row: -row[first])
    for place, row in enumerate(rows):
        if MOST_CLASSES // 2 <= place < len(rows) - MOST_CLASSES // 2 and len(rows) > MOST_CLASSES:
            if place == MOST_CLASSES // 2:
                table.add_row(Text(f"… {len(rows) - MOST_CLASSES:,} more", "dim"))
            continue
        cells = [Text(f"{row[name]:,}", "" if row[name] else "red") for name in report.sets]
        bar = "━" * max(1, round(BAR * row[first] / most)) if row[first] else ""
        table.add_row(Text(row["class"]), *cells, Text(bar, "blue"))
    return table


def _finding_table(report: Report) -> Any:
    """Each finding with its first examples and what to do, below what the images are like."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(overflow="fold")
    table.add_row("", "")
    table.add_row("", _about(report))
    for finding in report.findings:
        mark, colour = MARKS[finding.level]
        table.add_row("", "")
        table.add_row(Text(mark, f"bold {colour}"), Text(finding.text, "bold"))
        for item in finding.items[:EXAMPLES] if "id" in finding.items[0] or "images" in finding.items[0] else []:
            table.add_row("", Text(_example(item, "≈" if finding.kind == "near" else "="), "dim"))
        if len(finding.items) > EXAMPLES and "id" in finding.items[0]:
            table.add_row("", Text(f"… {len(finding.items) - EXAMPLES:,} more", "dim"))
        table.add_row("", Text(f"→ {finding.advice}", colour))
    if not any(finding.level != "note" for finding in report.findings):
        table.add_row("", "")
        table.add_row(Text("✓", "bold green"), Text("nothing is wrong with this data", "bold"))
    return table


def _about(report: Report) -> str:
    """What the images are like, in a line."""
    images = report.images
    total = sum(counts["images"] for counts in report.sets.values())
    if not images["readable"]:
        return f"{total:,} images, none of them readable"
    sizes = {name: f"{height}x{width}" for name, (height, width) in images["size"].items()}
    same = sizes["smallest"] == sizes["largest"]
    size = (
        f"all of {sizes['median']}" if same else f"{sizes['smallest']} to {sizes['largest']}, median {sizes['median']}"
    )
    colour, grey = images["colour"], images["readable"] - images["colour"]
    kinds = "in colour" if not grey else "grey" if not colour else f"{colour:,} in colour and {grey:,} grey"
    return f"{total:,} images, {kinds}, {size} pixels" + (f"; {_boxes(images)}" if "boxes" in images else "")


def _boxes(images: dict[str, Any]) -> str:
    """What the boxes are like, in a line."""
    parts = [f"{images[size]:,} {size}" for size in ("small", "medium", "large")]
    parts += [f"{images['crowds']:,} to be ignored"] * bool(images["crowds"])
    parts += [f"none in {images['empty']:,} images"] * bool(images["empty"])
    sides = f", sides about {images['sides'][1]:g} pixels" if images["sides"] else ""
    return f"{images['boxes']:,} boxes ({', '.join(parts)}){sides}, at most {images['most']:,} in an image"


def _example(item: dict[str, Any], equals: str) -> str:
    """One image or one group of images, in a line."""
    if "images" not in item:
        detail = item.get("reason") or (f"{item['height']}x{item['width']}" if "height" in item else "")
        detail = detail or (f"at {', '.join(f'{value:g}' for value in item['box'])}" if "box" in item else "")
        return _place(item) + (f": {detail}" if detail else "")
    shown = [_place(image) for image in item["images"][:EXAMPLES]]
    rest = len(item["images"]) - len(shown)
    return f" {equals} ".join(shown) + (f" and {rest:,} more" if rest else "")


def _place(image: dict[str, Any]) -> str:
    label = image["class"]
    within = label is None or image["id"].startswith(f"{label}/")
    return f"{image['split']}: {image['id']}" + ("" if within else f" ({label})")


def _judge(findings: list[Finding], fail_on: tuple[Gate, ...]) -> None:
    """Raise DataError for what training would refuse, QualityGateError for what --fail-on names."""
    if refused := [finding.text for finding in findings if finding.level == "error"]:
        raise DataError("training would refuse this data", why="; ".join(refused), hint=ABOVE)
    kinds = {kind for gate in fail_on for kind in GATES.get(gate, ())}
    hits = [f for f in findings if f.kind in kinds or ("any" in fail_on and f.level != "note")]
    if hits:
        why = "; ".join(f.text for f in hits)
        raise QualityGateError(f"--fail-on {' '.join(fail_on)}", why=why, hint=ABOVE)

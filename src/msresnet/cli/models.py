"""`msresnet models`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any, Literal

from tyro.conf import Positional

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.errors import UsageError, at_least
from msresnet.rows import write_csv

MOST_TREES, MOST_MAPS = 3, 6
COLUMNS = ("model", "params", "folded", "macs", "pixels", "top1", "top1_pixels", "weights", "licence", "source", "maps")


@dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """List the networks that match a pattern, or show one."""

    pattern: Positional[str] = "*"
    """Such as 'res2*'."""
    pretrained: bool = False
    """Only those with published weights."""
    tree: bool = False
    """Print the network as a tree of its modules, with the shapes of their outputs and their parameters."""
    folded: bool = False
    """With --tree: the network as it is used, after folding."""
    depth: int | None = None
    """With --tree: how many levels are printed, 4 by default."""
    image_size: int | None = None
    """With --tree: the side of the image in pixels. Default: what the network is meant for."""
    format: Literal["table", "json", "csv"] = "table"
    """How the list is printed."""

    def __post_init__(self) -> None:
        given = {"folded": self.folded or None, "depth": self.depth, "image-size": self.image_size}
        for name, value in given.items():
            if value is not None and not self.tree:
                hint = f"--tree --{name}" if value is True else f"--tree --{name} {value}"
                raise UsageError(f"--{name} has no effect here", why="it is of --tree", hint=hint)
        at_least({name: (value, 1) for name, value in given.items()})
        if self.tree and self.format != "table":
            raise UsageError(f"--format {self.format}, but --tree", why="a tree is text", hint="leave one of them out")


def main(words: list[str], common: Common) -> int:
    """Print parameters, operations, published accuracy, licence and maps of networks, or the modules of one."""
    config = parse("models", ModelsConfig, words, common).config
    from msresnet.models.factory import MODELS, list_models

    names = list_models(config.pattern, pretrained=config.pretrained)
    if not list_models(config.pattern):
        MODELS[config.pattern]  # says which names are near
    if not names:
        raise UsageError(
            f"no model that matches {config.pattern!r} has published weights", hint="leave --pretrained out"
        )
    if config.tree and len(names) > MOST_TREES:
        raise UsageError(f"{len(names)} models match {config.pattern!r}", hint=f"--tree of at most {MOST_TREES}")
    if config.tree:
        _print_trees(names, config, common)
        return 0
    rows = [_row(name) for name in names]
    if config.format == "json":
        print(json.dumps(rows, indent=2))
    elif config.format == "csv":
        shown = (row | {"maps": " ".join("x".join(map(str, m)) for m in row["maps"])} for row in rows)
        write_csv(sys.stdout, [COLUMNS, *(row.values() for row in shown)])
    else:
        _print_table(rows, common)
    return 0


def _row(name: str) -> dict[str, Any]:
    from msresnet.models.cost import figures
    from msresnet.models.published import published

    own, known = figures(name), published(name)
    counts = {"params": own.params, "folded": own.folded, "macs": own.macs, "pixels": own.pixels}
    top1 = {"top1": float(known.top1), "top1_pixels": int(known.top1_pixels)} if known.top1 else {}
    empty = dict.fromkeys(COLUMNS)
    weights = {"weights": known.weights or None, "licence": known.licence or None, "source": known.source or None}
    return empty | {"model": name} | counts | top1 | weights | {"maps": [list(m) for m in own.maps]}


def _print_table(rows: list[dict[str, Any]], common: Common) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from msresnet.cli.screen import Screen

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in ("model", "params", "mult-adds", "top-1", "weights", "maps"):
        left = title in ("model", "weights", "maps")
        table.add_column(title, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        top1 = f"{row['top1']:.1f}@{row['top1_pixels']}" if row["top1"] else ""
        counts = (f"{row['params'] / 1e6:.2f} M", f"{row['macs'] / 1e9:.2f} G@{row['pixels']}")
        sides = [str(h) for _, h, _ in row["maps"]]
        maps = " ".join(sides if len(sides) <= MOST_MAPS else [*sides[:2], "…", sides[-1]])
        table.add_row(row["model"], *counts, top1, row["licence"] or "", maps)
    screen = Screen(common)
    screen.table(table)
    screen.notes(
        [
            "mult-adds and top-1 at so many pixels; weights: their licence; maps: pixels a side, stage by stage; "
            "top-1 at 32 is of CIFAR (its source: --format json), else of ImageNet"
        ]
    )


def _print_trees(names: list[str], config: ModelsConfig, common: Common) -> None:
    import torch
    from rich.text import Text
    from rich.tree import Tree

    from msresnet.cli.screen import Screen
    from msresnet.models.factory import create_classifier
    from msresnet.models.tree import Node, tree

    def grow(branch: Tree, node: Node, depth: int) -> None:
        for part in node.parts if depth else ():
            grow(branch.add(Text(part.line())), part, depth - 1)

    screen = Screen(common)
    for name in names:
        sized = {} if config.image_size is None else {"img_size": config.image_size}
        with torch.device("meta"):
            model = create_classifier(name, **sized)
        root = tree(name, model, model.config.img_size, config.folded)
        image = f"{model.in_chans}x{'x'.join(map(str, model.config.img_size))}"
        screen.notes([f"{name} for an image of {image}: module, class, shape of its output, parameters"])
        top = Tree(Text(root.line()))
        grow(top, root, config.depth or 4)
        screen.out.print(top)

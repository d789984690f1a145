"""`msresnet models`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from tyro.conf import Positional

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """List the networks that match a pattern."""

    pattern: Positional[str] = "*"
    """Such as 'res*'."""
    format: Literal["table", "json"] = "table"
    """How the list is printed."""


def main(words: list[str], common: Common) -> int:
    """Print parameters and operations of each network, as trained and as folded."""
    parsed = parse("models", ModelsConfig, words, common.config)
    config = parsed.config
    if common.print_config:
        print(parsed.table())
        return 0
    from rich.table import Table

    from msresnet.cli.screen import Screen
    from msresnet.models.cost import count_macs
    from msresnet.models.factory import create_classifier, list_models
    from msresnet.nn.folding import fold

    names = list_models(config.pattern)
    if not names:
        raise UsageError(f"no model matches {config.pattern!r}", hint="msresnet models")
    rows: list[dict[str, Any]] = []
    for name in names:
        small = name in ("msresnet_micro", "article_cnn")
        arguments = {"num_classes": 10, "in_chans": 1, "img_size": 28} if small else {}
        model = create_classifier(name, **arguments).eval()
        folded = sum(p.numel() for p in fold(model).parameters())
        size = model.config.img_size[0]
        params = sum(p.numel() for p in model.parameters())
        rows.append({"model": name, "params": params, "folded": folded, "macs": count_macs(model), "image_size": size})
    if config.format == "json":
        print(json.dumps(rows, indent=2))
        return 0
    table = Table()
    for title in ("model", "parameters", "folded", "multiply-adds", "at pixels"):
        table.add_column(title, justify="left" if title == "model" else "right")
    for row in rows:
        counts = (f"{row['params']:,}", f"{row['folded']:,}", f"{row['macs'] / 1e6:,.1f} M")
        table.add_row(str(row["model"]), *counts, str(row["image_size"]))
    Screen(common).table(table)
    return 0

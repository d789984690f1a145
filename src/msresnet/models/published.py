"""Figures that others published about the models, and where their weights are: facts with sources, read from a table.

The table is `published.csv` beside this file; an empty cell means that nothing was found.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Published(NamedTuple):
    """A row of the table; every figure as its source prints it.

    Args:
        name: the model's.
        params: parameters, such as '25.56M' or '25557032'.
        macs: multiply-accumulates, such as '4.11G', for an image of `pixels` a side. Some sources count normalisation
            too, at two for each value: 0.5 % of a ResNet-50.
        pixels: see `macs`.
        top1: accuracy in percent on ImageNet-1k (or what `source` says) for images of `top1_pixels` a side; where there
            are weights, theirs.
        top1_pixels: see `top1`.
        source: paper, or table, of these figures.
        weights: id on the Hugging Face hub, such as 'timm/resnet50.a1_in1k'.
        licence: of the weights, as the hub or their authors say.
    """

    name: str
    params: str = ""
    macs: str = ""
    pixels: str = ""
    top1: str = ""
    top1_pixels: str = ""
    source: str = ""
    weights: str = ""
    licence: str = ""


@cache
def table() -> dict[str, Published]:
    """All rows by model name."""
    text = (files("msresnet.models") / "published.csv").read_text(encoding="utf-8")
    return {row["name"]: Published(**row) for row in csv.DictReader(text.splitlines())}


def published(name: str) -> Published:
    """What is known about a model; a row of empty cells when nothing is."""
    return table().get(name, Published(name))

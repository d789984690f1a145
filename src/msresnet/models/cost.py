"""What a network costs: parameters, multiply-accumulates for one image, and the maps that its stages give.

Counting runs the folded network on the meta device: shapes alone, no numbers. The figures of every registered model
stand in `figures.csv` beside this file, written by `make docs` and tested to be current.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from msresnet.models.base import ImageModel
from msresnet.models.factory import MODELS, create_classifier
from msresnet.nn.folding import fold
from msresnet.rows import csv_text

Shape = tuple[int, int, int]


class Figures(NamedTuple):
    """What a model costs as its authors give it.

    Args:
        params, folded: parameters as trained, and as used.
        macs: multiply-accumulates of the folded network for one image of `pixels` a side.
        maps: (C, H, W) of each stage.
    """

    name: str
    params: int
    folded: int
    macs: int
    pixels: int
    maps: tuple[Shape, ...]


def count_macs(model: ImageModel, size: tuple[int, int] | None = None) -> int:
    """Multiply-accumulates of the folded network for one image of (H, W) pixels (default: the size it is meant for)."""
    folded, image = _shapes(model, size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        folded(image)
    return int(counter.get_total_flops() // 2)


def exit_macs(model: ImageModel) -> list[int]:
    """Multiply-accumulates of the folded network up to and with each exit, for one image of its usual size."""
    folded, image = _shapes(model, None)
    state, totals = [image], []
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for index in range(model.num_exits):
            state, _ = folded.advance(state, index)
            totals.append(int(counter.get_total_flops() // 2))
    return totals


def count(name: str) -> Figures:
    """A registered model's figures, counted now."""
    with torch.device("meta"):
        model = create_classifier(name).eval()
    folded, image = _shapes(model, None)
    with torch.no_grad():
        maps = tuple((m.shape[1], m.shape[2], m.shape[3]) for m in folded.forward_stages(image))
    params, after = (sum(p.numel() for p in m.parameters()) for m in (model, folded))
    return Figures(name, params, after, count_macs(model), model.config.img_size[0], maps)


def figures(name: str) -> Figures:
    """A registered model's figures: from the table, or counted where somebody else registered it."""
    MODELS[name]
    return _table().get(name) or count(name)


def to_csv(rows: list[Figures]) -> str:
    """The table as text."""
    maps = (" ".join("x".join(map(str, shape)) for shape in row.maps) for row in rows)
    return csv_text([Figures._fields, *((*row[:-1], text) for row, text in zip(rows, maps, strict=True))])


@cache
def _table() -> dict[str, Figures]:
    text = (files("msresnet.models") / "figures.csv").read_text(encoding="utf-8")
    return {row["name"]: _row(row) for row in csv.DictReader(text.splitlines())}


def _row(row: dict[str, str]) -> Figures:
    shapes = [tuple(int(n) for n in shape.split("x")) for shape in row["maps"].split()]
    maps = tuple((c, h, w) for c, h, w in shapes)
    params, folded, macs, pixels = (int(row[k]) for k in ("params", "folded", "macs", "pixels"))
    return Figures(row["name"], params, folded, macs, pixels, maps)


def _shapes(model: ImageModel, size: tuple[int, int] | None) -> tuple[ImageModel, Tensor]:
    """The folded network and one image for it, on the meta device."""
    height, width = size or model.config.img_size
    with torch.device("meta"):
        image = torch.empty(1, model.in_chans, height, width)
        return fold(type(model)(model.spec, model.config).eval()), image  # type: ignore[call-arg]

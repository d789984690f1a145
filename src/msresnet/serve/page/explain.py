"""Why a model answered as it did on one image, as plain values for the page. Only here is torch needed for it.

C channels, H and W pixels of the network's input.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import Image
from msresnet.errors import UsageError, nearest
from msresnet.explain.attribution import DEFAULT, MOST_STEPS, attribute, blurred, heat_maps, logits_of
from msresnet.explain.scales import Place, places, responses
from msresnet.serve.page.pictures import as_seen, glow

MOST_MACS, PASSES = 1e11, 3
"""Multiply-adds that a person waits for, some seconds of two cores; a gradient costs as much as three answers."""
CHEAPEST = "grad-cam"
SPREAD = 1 / 40
"""Deviation that a map is spread by for the eye, as a share of the longer side: of single pixels only noise is seen."""
WORDS = {2: ("small", "large"), 3: ("small", "middle", "large")}
"""What details are called, by how many sizes of them a model tells apart; of more, neighbours are put together."""
ALIKE, MOST = 0.1, 0.6
"""Shares that are closer are called alike; a larger one decides."""


def explanation(bundle: Bundle, image: Image, size: tuple[int, int], name: str | None = None) -> dict[str, Any]:
    """Where on an image, and in details of which size, a model finds a class.

    Args:
        image: ready for the network, uint8 (C, H, W).
        size: (height, width) of the picture that it was made from.
        name: of the class; None is the one that is answered.

    Raises UsageError for an unknown class, ModelError for a network whose numbers are not finite.
    """
    started = time.perf_counter()
    x = bundle.preprocess.tensor(torch.tensor(image)[None])
    target = _target(bundle, x, name)
    method = DEFAULT if PASSES * MOST_STEPS * bundle.macs <= MOST_MACS else CHEAPEST
    maps = heat_maps(attribute(bundle, x, target, method), (x.shape[-2], x.shape[-1]))
    heat = blurred(maps[None], SPREAD)[0, 0].numpy()
    rows, columns, box = placed(size, bundle.preprocess)
    shares = responses(bundle, x, target).shares[0].tolist()
    return {
        "class": bundle.task.class_names[int(target)],
        "method": method,
        "heat": glow(heat[rows, columns]),
        "box": box,
        "seen": as_seen(image),
        **details(places(bundle.model), shares),
        "ms": round(1000 * (time.perf_counter() - started), 2),
    }


def _target(bundle: Bundle, x: Tensor, name: str | None) -> Tensor:
    """The index (1,) of a class by its name, or of the one that is answered."""
    names = bundle.task.class_names
    if name is None:
        with torch.no_grad():
            return logits_of(bundle)(x).argmax(1)
    if name not in names:
        raise UsageError("the model knows no such class", hint=nearest(name, names))
    return torch.tensor([names.index(name)])


def placed(size: tuple[int, int], preprocess: Preprocess) -> tuple[slice, slice, list[float]]:
    """Which rows and columns of the network's input show a picture of (H, W) pixels, and which part of it they show.

    The part is [left, top, right, bottom] in 0 to 1.
    """
    if preprocess.resize != "crop":
        place = preprocess.frame(size)
        return place.rows, place.columns, [0.0, 0.0, 1.0, 1.0]
    ratios = [wanted / given for wanted, given in zip(preprocess.size, size, strict=True)]
    down, across = (ratio / max(ratios) for ratio in ratios)
    part = [(1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2]
    return slice(None), slice(None), [round(value, 4) for value in part]


def details(branches: Sequence[Place], shares: Sequence[float]) -> dict[str, Any]:
    """The shares of small, middle and large details in an answer: over all blocks, block by block, and in words.

    Details are as large as the field of the branch that sees them, in pixels of its block's own input. Where there are
    no two sizes to tell apart, there is nothing to say.
    """
    sides = sorted({max(branch.receptive_field) for branch in branches})
    if len(sides) < 2:
        return {"scales": [], "blocks": [], "words": ""}
    parts = [part.tolist() for part in np.array_split(sides, min(3, len(sides)))]
    pairs = groupby(zip(branches, shares, strict=True), lambda pair: pair[0].operator)
    blocks = [(name, _by_part(list(members), parts)) for name, members in pairs]
    names, overall = WORDS[len(parts)], np.mean([found for _, found in blocks], axis=0).tolist()
    scales = [
        {"name": f"{name} details", "pixels": _span(part), "share": round(share, 4)}
        for name, part, share in zip(names, parts, overall, strict=True)
    ]
    rows = [{"block": block, "shares": [round(share, 4) for share in found]} for block, found in blocks]
    return {"scales": scales, "blocks": rows, "words": _sentence(names, overall)}


def _by_part(members: Sequence[tuple[Place, float]], parts: Sequence[Sequence[int]]) -> list[float]:
    """The summed shares of the branches whose field's longer side is in each part."""
    return [sum(share for branch, share in members if max(branch.receptive_field) in part) for part in parts]


def _span(sides: Sequence[int]) -> str:
    """Sizes in pixels, as '3' or '3 to 7'."""
    return str(sides[0]) if len(sides) == 1 else f"{sides[0]} to {sides[-1]}"


def _sentence(names: Sequence[str], shares: Sequence[float]) -> str:
    """Which details decided, for people."""
    first, second = sorted(range(len(names)), key=lambda place: -shares[place])[:2]
    if shares[first] - shares[second] < ALIKE:
        return f"{names[first].capitalize()} and {names[second]} details counted about alike."
    return f"{names[first].capitalize()} details counted {'above all' if shares[first] > MOST else 'most'}."

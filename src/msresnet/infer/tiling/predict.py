"""Prediction on images of any size: tile by tile, from top to bottom, in memory that does not grow with their height.

What is found, such as a segmenter's mask, is kept until the last tile. Tiles overlap, and those at the right and lower
edges are moved inwards, so that each holds as many pixels as others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from msresnet.data.bands.opened import open_bands
from msresnet.data.decode import decode_bytes, upright
from msresnet.errors import UsageError
from msresnet.infer.config import Tiling
from msresnet.infer.predictor import Predictor, batched
from msresnet.infer.tiling.strips import Overview, tiles
from msresnet.tasks.postprocess.base import Postprocess
from msresnet.tasks.tiling.grid import Grid, grid_for
from msresnet.tasks.tiling.merge import Tiled


def check_whole(postprocess: Postprocess, whole: str) -> None:
    """Raise UsageError where tiles cannot say this about the whole image."""
    if whole not in postprocess.wholes:
        why = f"the model's task is {postprocess.task}"
        raise UsageError(f"--whole {whole} has no effect here", why=why, hint="leave it out")


def _silent(done: int, total: int) -> None:
    """Say nothing of tiles that were answered."""


def predict_tiles(
    predictor: Predictor, file: BinaryIO, name: str, asked: Tiling, progress: Callable[[int, int], None] = _silent
) -> Tiled[Any]:
    """The answer for an image of any size, and what is behind it; `progress` hears how many tiles of all are done.

    An image that is no larger than a tile is predicted on as without tiles. Raises DataError for a file that cannot be
    read to its end, UsageError for a map that would be too large, and for what tiles cannot say.
    """
    check_whole(predictor.postprocess, asked.whole)
    bands = open_bands(file, name)
    preprocess = predictor.trained.preprocess
    side = preprocess.size if asked.side is None else (asked.side, asked.side)
    grid = grid_for(bands.size, side, asked.overlap)
    if grid.tile == grid.size:
        return _single(predictor, file, name, Grid(grid.size, grid.tile, grid.size), asked)
    overview = Overview(bands)
    merge = predictor.postprocess.merge(grid, asked.whole)
    prepared = ((place, preprocess.image(image)) for place, image in tiles(bands, grid, overview))
    done, total = 0, len(grid.tops) * len(grid.lefts)
    for chunk in batched(prepared, predictor.batch_size):
        places, ready = zip(*chunk, strict=True)
        frames = predictor.frames([grid.tile] * len(chunk))
        merge.add(places, predictor.predict_ready(np.stack(ready), [name] * len(chunk), frames))
        done += len(chunk)
        progress(done, total)
    return merge.finish(name, upright(overview.picture(), bands.turn), bands.note)


def _single(predictor: Predictor, file: BinaryIO, name: str, grid: Grid, asked: Tiling) -> Tiled[Any]:
    """One tile: decoded as files are elsewhere, so that the answer is the same to the last digit."""
    merge = predictor.postprocess.merge(grid, asked.whole)
    file.seek(0)
    image = decode_bytes(file.read(), name, predictor.trained.preprocess.at_least)
    found = predictor.everything([image], [name])
    merge.add([(0, 0)], found)
    return merge.finish(name, image, "")

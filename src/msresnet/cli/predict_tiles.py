"""`msresnet predict IMAGE... --tile [SIDE]`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msresnet.cli.main import Common
from msresnet.cli.printed import open_writer
from msresnet.cli.screen import Screen
from msresnet.data.decode import printable
from msresnet.errors import DataError
from msresnet.files import check_output, make_folder, write_atomic, write_json, write_text
from msresnet.infer.answers import columns
from msresnet.infer.backends.opened import open_predictor
from msresnet.infer.config import PredictConfig, tiling
from msresnet.infer.inputs import Input
from msresnet.infer.tiling.predict import check_whole, predict_tiles
from msresnet.report.annotate import safe_name
from msresnet.report.tiles import map_picture
from msresnet.results import DIGITS
from msresnet.rows import csv_text
from msresnet.tasks.tiling.merge import Tiled

SAY_EVERY = 10.0
"""Seconds between lines of progress."""
COUNTS, REGIONS, PICTURE, SUMMARY = "counts.csv", "regions.geojson", "map.png", "summary.json"


def answer_tiles(config: PredictConfig, common: Common, inputs: Iterator[Input]) -> int:
    """Print the answer for each image and, with --output, write its map; the exit code is 3 when one is unreadable."""
    screen, asked = Screen(common), tiling(config)
    folder = None if config.output is None else Path(config.output)
    if folder is not None:
        check_output(folder, folder=True)
    predictor = open_predictor(config.model, config)
    if config.score is not None:
        predictor = predictor.from_score(config.score)
    check_whole(predictor.postprocess, asked.whole)
    failures, taken = 0, set[str]()
    progress = _Progress(screen)
    with open_writer(config, columns(predictor.trained.postprocess, exits=False)) as write:
        for item in inputs:
            try:
                with item.open() as file:
                    tiled = predict_tiles(predictor, file, item.id, asked, progress)
            except DataError as error:
                print(f"error: {error if error.where else _named(error, item)}", file=sys.stderr)
                failures += 1
                continue
            screen.notes(_notes(tiled))
            write.add(tiled.answer.to_dict(config.top))
            if folder is not None:
                place = folder / _free(safe_name(item.id), taken)
                _write(place, tiled, config)
                screen.note(f"map: {place}{os.sep}")
    return DataError.exit_code if failures else 0


class _Progress:
    """A line now and then, on standard error."""

    def __init__(self, screen: Screen) -> None:
        self.screen, self.last = screen, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self.last >= SAY_EVERY:
            self.last = time.monotonic()
            self.screen.notes([f"{done:,} of {total:,} tiles"])


def _named(error: DataError, item: Input) -> DataError:
    return DataError(error.what, where=printable(item.id), why=error.why, hint=error.hint)


def _notes(tiled: Tiled[Any]) -> list[str]:
    return [tiled.described(), *([f"decoded whole: {tiled.note}"] if tiled.note else [])]


def _free(name: str, taken: set[str]) -> str:
    """A folder for each image: two of one name are numbered, in their order."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    taken.add(found)
    return found


def _write(folder: Path, tiled: Tiled[Any], config: PredictConfig) -> None:
    make_folder(folder)
    found = tiled.features()
    write_text(folder / COUNTS, csv_text([tiled.counted, *tiled.counts()], DIGITS))
    write_json(folder / REGIONS, {"type": "FeatureCollection", "features": found})
    picture = map_picture(tiled)
    write_atomic(folder / PICTURE, lambda part: picture.save(part, "PNG"))
    tiled.save(folder)
    write_json(folder / SUMMARY, summary(tiled, config, len(found)))


def summary(tiled: Tiled[Any], config: PredictConfig, areas: int) -> dict[str, Any]:
    """The answer, and how it came about, as plain values."""
    (row,) = tiled.answer.to_dict(config.top)
    grid = tiled.grid
    return {
        **row,
        "id": printable(row["id"]),
        "model": config.model,
        "height": grid.size[0],
        "width": grid.size[1],
        "tile": list(grid.tile),
        "step": list(grid.step),
        **tiled.facts(),
        "regions": areas,
        "decoded_whole": tiled.note or None,
    }

"""`msresnet data show`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.data.options import DataOptions, PreprocessOptions
from msresnet.errors import at_least

if TYPE_CHECKING:
    from msresnet.data.preprocess import Preprocess
    from msresnet.data.sample import Image, Source
    from msresnet.data.splits import Splits


@dataclass(frozen=True, kw_only=True)
class ShowConfig(DataOptions, PreprocessOptions):
    """Look at data as the network sees it: classes, counts, and a picture of images before and after preprocessing."""

    data: str = "digits"
    """What `train` takes."""
    count: int = 12
    """Images on the picture."""
    output: str = "data.png"
    """The picture."""

    def __post_init__(self) -> None:
        at_least({"count": (self.count, 1), "workers": (self.workers, 0)})


def main(words: list[str], common: Common) -> int:
    """Print the classes of each set and write the picture."""
    config = parse("data show", ShowConfig, words, common).config
    from msresnet.cli.screen import Screen
    from msresnet.data.preprocess import choose
    from msresnet.data.splits import open_data
    from msresnet.files import check_output, write_atomic
    from msresnet.report.plots import preprocess_picture

    check_output(Path(config.output), folder=False)
    screen = Screen(common)
    splits = open_data(config.data, config, unlabelled=True)
    preprocess, reasons = choose(config, splits.train)
    screen.notes([*splits.notes, *reasons])
    screen.table(_table(splits))
    chosen = range(0, len(splits.train), max(1, len(splits.train) // config.count))[: config.count]
    names, pairs = _pictures(splits.train, preprocess, chosen)
    write_atomic(Path(config.output), lambda part: preprocess_picture(pairs, names, preprocess.steps(), part))
    screen.note(f"picture: {config.output}")
    return 0


def _table(splits: Splits) -> Any:
    """How many samples, or boxes, each set has of each class."""
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for title in ("boxes of" if splits.train.boxed else "class", *splits.named()):
        table.add_column(title, justify="right" if title in splits.named() else "left")
    counts = [source.counts() for source in splits.named().values()]  # of masks, only their pixels say it
    for index, name in enumerate(splits.classes):
        table.add_row(escape(name), *("" if of_set is None else f"{int(of_set[index]):,}" for of_set in counts))
    title = "images" if splits.train.boxed else "all"
    table.add_row(title, *(f"{len(source):,}" for source in splits.named().values()), style="bold")
    return table


def _pictures(
    source: Source, preprocess: Preprocess, chosen: Sequence[int]
) -> tuple[list[str], list[tuple[Image, Image]]]:
    """Of some samples a title, and the image before and after preprocessing, with what belongs to it."""
    from msresnet.data.sample import UNLABELLED
    from msresnet.data.targets import framed
    from msresnet.tasks.palette import coloured, outlined

    pairs = [(source.image(i), preprocess.read(source, i)) for i in chosen]
    if source.boxed:
        found = [(source.truth(i), preprocess.frame(source.size(i))) for i in chosen]
        drawn = [
            (outlined(before, boxes.xyxy, boxes.classes), outlined(after, framed(boxes.xyxy, place), boxes.classes))
            for (before, after), (boxes, place) in zip(pairs, found, strict=True)
        ]
        return [f"{len(boxes)} boxes" for boxes, _ in found], drawn
    if source.planes:  # the mask stands below its image
        return ["" for _ in chosen], [(image, coloured(planes[-1], len(source.classes))) for image, planes in pairs]
    targets = [int(source.targets[i]) for i in chosen]
    return ["no label" if target == UNLABELLED else source.classes[target] for target in targets], pairs

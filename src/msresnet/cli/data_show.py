"""`msresnet data show`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.data.options import DataOptions, PreprocessOptions
from msresnet.errors import UsageError


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
        if self.count < 1 or self.workers < 0:
            why = "count is at least 1, workers at least 0"
            raise UsageError(f"--count {self.count} --workers {self.workers}", why=why)


def main(words: list[str], common: Common) -> int:
    """Print the classes of each set and write the picture."""
    parsed = parse("data show", ShowConfig, words, common.config)
    config = parsed.config
    if common.print_config:
        print(parsed.table())
        return 0
    from rich.markup import escape
    from rich.table import Table

    from msresnet.cli.screen import Screen
    from msresnet.data.preprocess import choose
    from msresnet.data.sample import UNLABELLED
    from msresnet.data.splits import open_data
    from msresnet.files import check_output, write_atomic
    from msresnet.report.plots import preprocess_picture
    from msresnet.tasks.palette import coloured

    check_output(Path(config.output), folder=False)
    screen = Screen(common)
    splits = open_data(config.data, config, unlabelled=True)
    preprocess, reasons = choose(config, splits.train)
    screen.notes([*splits.notes, *reasons])
    table = Table()
    for title in ("class", *splits.named()):
        table.add_column(title, justify="left" if title == "class" else "right")
    known = splits.train.present() is not None  # of masks, only their pixels say it
    for index, name in enumerate(splits.classes):
        counts = [f"{int((s.targets == index).sum()):,}" if known else "" for s in splits.named().values()]
        table.add_row(escape(name), *counts)
    table.add_row("all", *(f"{len(s):,}" for s in splits.named().values()), style="bold")
    screen.table(table)
    chosen = range(0, len(splits.train), max(1, len(splits.train) // config.count))[: config.count]
    targets = [int(splits.train.targets[i]) for i in chosen]
    names = ["no label" if target == UNLABELLED else splits.classes[target] for target in targets]
    pairs = [(splits.train.image(i), preprocess.read(splits.train, i)) for i in chosen]
    if splits.train.planes:  # the mask stands below its image
        names = ["" for _ in chosen]
        pairs = [(image, coloured(planes[-1], len(splits.classes))) for image, planes in pairs]
    write_atomic(Path(config.output), lambda part: preprocess_picture(pairs, names, preprocess.steps(), part))
    screen.note(f"picture: {config.output}")
    return 0

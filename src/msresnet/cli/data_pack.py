"""`msresnet data pack`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.data.options import DataOptions, PreprocessOptions
from msresnet.errors import UsageError, at_least

if TYPE_CHECKING:
    from msresnet.cli.screen import Screen


@dataclass(frozen=True, kw_only=True)
class PackConfig(DataOptions, PreprocessOptions):
    """Write data down once so that training reads it faster: `msresnet train --data FOLDER` takes what this leaves.

    cache: decoded and preprocessed images, which are mapped into memory; --image-size and the like are settled here.
    shards: tar files of the images' own bytes in a fixed random order, as WebDataset reads them.
    """

    data: str = "digits"
    """What `train` takes."""
    output: str = "packed"
    """The folder."""
    format: Literal["cache", "shards"] = "cache"
    """How."""
    shard_size: int = 5_000
    """Images in a shard."""

    def __post_init__(self) -> None:
        at_least({"shard-size": (self.shard_size, 1), "workers": (self.workers, 0)})


def main(words: list[str], common: Common) -> int:
    """Write the sets, and say how large they are."""
    parsed = parse("data pack", PackConfig, words, common)
    config = parsed.config
    _check_used(parsed.explicit(), config.format)
    from msresnet.cli.screen import Screen
    from msresnet.data.pack import begun, pack_cache, pack_shards
    from msresnet.data.preprocess import choose
    from msresnet.data.splits import open_data
    from msresnet.files import check_output, lock

    folder, screen = Path(config.output), Screen(common)
    check_output(folder, folder=True)
    with lock(folder), begun(folder):
        splits = open_data(config.data, config, unlabelled=True)
        screen.notes(splits.notes)
        with _progress(screen) as progress:
            if config.format == "cache":
                preprocess, reasons = choose(config, splits.train)
                screen.notes([*reasons, preprocess.steps()])
                bad = pack_cache(folder, splits, preprocess, config, progress)
            else:
                bad = pack_shards(folder, splits, config.shard_size, config, progress)
    out = [entry for found in bad.values() for entry in found]
    screen.notes([f"left out: {name}: {reason}" for name, reason in out])
    size = sum(path.stat().st_size for path in folder.iterdir())
    counts = ", ".join(f"{len(source) - len(bad[name]):,} {name}" for name, source in splits.named().items())
    screen.note(f"{folder}: {counts} images, {len(out):,} left out, {size / 1e6:,.1f} MB")
    screen.note(f"train with it: msresnet train --data {shlex.quote(str(folder))}")
    return 0


def _check_used(given: dict[str, object], form: str) -> None:
    """Raise UsageError for a setting that has no effect."""
    useless = {"cache": "it says how training holds images"}
    if form == "shards":
        flags = ("image_size", "channels", "resize", "threshold", "binary")
        useless |= dict.fromkeys(flags, "shards hold images as they are")
    else:
        useless["shard_size"] = "of --format shards"
    for name in given:
        if name in useless:
            raise UsageError(f"--{name.replace('_', '-')} has no effect here", why=useless[name], hint="leave it out")


@contextmanager
def _progress(screen: Screen) -> Iterator[Callable[[str, int, int], None]]:
    """What is told how far it is shows it, on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen.console, transient=True, disable=screen.quiet) as bar:
        task = bar.add_task("")

        def tell(split: str, done: int, total: int) -> None:
            bar.update(task, description=split, completed=done, total=total)

        yield tell

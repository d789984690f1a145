"""`msresnet compress`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.deploy.compress.config import CompressConfig, check_used
from msresnet.errors import UsageError
from msresnet.infer.config import which_run
from msresnet.infer.gates import check_gates, read_gates

if TYPE_CHECKING:
    from msresnet.cli.screen import Screen
    from msresnet.deploy.compress.table import Comparison

FOLDER = "compressed"


def main(words: list[str], common: Common) -> int:
    """Make the smaller model, print both side by side, and write it if it is good enough."""
    parsed = parse("compress", CompressConfig, words, common)
    config = parsed.config
    gates = read_gates(config.fail_under)
    check_used(parsed.origin, config)
    from msresnet.bundle import load_bundle
    from msresnet.cli.export import name_of
    from msresnet.cli.screen import Screen
    from msresnet.deploy.compress.data import open_for
    from msresnet.deploy.compress.made import files_of
    from msresnet.deploy.compress.run import compress
    from msresnet.deploy.compress.training import check_possible
    from msresnet.deploy.package import check_place

    screen = Screen(common)
    default = Path(FOLDER) / f"{name_of(config.model)}-{config.to}"
    place = default if config.output is None else Path(config.output)
    bundle = load_bundle(config.model)
    check_gates(gates, bundle.task.gates, ())
    check_possible(bundle, config)
    _check_apart(place, config.model)
    check_place(place, files_of(config.to))
    data = open_for(bundle, config)
    screen.notes([*which_run(config.model), *data.notes])
    compress(bundle, data, config, place, _Watching(screen, config))
    screen.note(f"{place}: msresnet predict --model {place} image.png", "bold")
    return 0


def _check_apart(place: Path, model: str) -> None:
    """Raise UsageError for a result in the place of the model that it is made from."""
    given = Path(model).resolve()
    if place.resolve() in (given, given.parent):
        why = "the model that is given stays as it is"
        raise UsageError("--output is the place of --model", where=str(place), why=why, hint="--output elsewhere")


class _Watching:
    """Shows a training and the comparison."""

    def __init__(self, screen: Screen, config: CompressConfig) -> None:
        self.screen, self.config = screen, config

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Move the progress bar."""
        self.screen.step(epoch, step, steps, loss)

    def epoch(self, row: dict[str, Any]) -> None:
        """One line for an epoch."""
        self.screen.epoch(row)

    def notes(self, texts: list[str]) -> None:
        """Some lines."""
        self.screen.stop()
        self.screen.notes(texts)

    def compared(self, found: Comparison) -> None:
        """The comparison, on standard output."""
        from msresnet.cli.evaluate import drawn
        from msresnet.deploy.compress.table import table, words

        if self.config.format == "json":
            print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
            return
        self.screen.table(drawn(table(found)))
        for line in words(found):
            print(line)

"""`msresnet train`."""

from __future__ import annotations

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.train.config import TrainConfig


def main(words: list[str], common: Common) -> int:
    """Train, measure and report; prints the result and the run's folder."""
    parsed = parse("train", TrainConfig, words, common.config)
    if common.print_config:
        print(parsed.table())
        return 0
    from msresnet.cli.pipeline import headline, resumed, train_run
    from msresnet.cli.screen import Screen

    config = resumed(parsed.config, parsed.explicit()) if parsed.config.resume else parsed.config
    given = ["--config", common.config] if common.config is not None else []
    finished = train_run(config, Screen(common), ["train", *given, *words])
    print(headline(finished.evaluation))
    print(f"report: {finished.folder / 'report.html'}")
    return 0

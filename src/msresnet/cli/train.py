"""`msresnet train`."""

from __future__ import annotations

from typing import Any

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.train.config import TrainConfig
from msresnet.train.recipes import RECIPES, find_recipe


def main(words: list[str], common: Common) -> int:
    """Train, measure and report; prints the result and the run's folder."""
    if words in (["--recipe", "list"], ["--recipe=list"], ["recipe=list"]):
        print("\n\n".join(f"{recipe.name}\n{_indented(recipe.text)}" for recipe in RECIPES.values()))
        return 0
    parsed = parse("train", TrainConfig, words, common, recipes=_settings)
    from msresnet.cli.pipeline import headline, resumed, start_processes, train_run
    from msresnet.cli.screen import Screen
    from msresnet.run_folder import REPORT

    config = resumed(parsed.config, parsed.explicit()) if parsed.config.resume else parsed.config
    command = ["train", *common.given, *words]
    code = start_processes(config, common, command)
    if code is not None:
        return code
    finished = train_run(config, Screen(common), command)
    if finished is not None:
        print(headline(finished.evaluation))
        print(f"report: {finished.folder / REPORT}")
    return 0


def _settings(name: str) -> dict[str, Any]:
    return find_recipe(name).settings


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())

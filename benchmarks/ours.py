"""Trainings of msresnet, given by the words of a command line, for the benchmarks that compare it with others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.tables import Run

from msresnet.data.splits import Splits, open_data
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.evaluate import evaluate
from msresnet.results import classified
from msresnet.train.config import TrainConfig
from msresnet.train.fit import fit
from msresnet.train.recipes import find_recipe
from msresnet.train.settings import from_text


def settings(words: Sequence[str]) -> dict[str, Any]:
    """Settings from KEY=VALUE; recipe=NAME stands for all of its own, and those beside it replace them.

    Several values of one setting are separated by commas: model_args=operator=plain,stem=small.
    """
    pairs = dict(word.split("=", 1) for word in words)
    found = dict(find_recipe(pairs.pop("recipe")).settings) if "recipe" in pairs else {}
    return found | {name: from_text(name, text, "settings") for name, text in pairs.items()}


def measure(config: TrainConfig, splits: Splits | None = None) -> Run:
    """Train, and measure the test set once, at the end; `splits` spares reading the data again."""
    start = time.perf_counter()
    splits = splits or open_data(config.data, config)
    fitted = fit(config, splits)
    whole = time.perf_counter() - start
    measured = evaluate(predictor_of(fitted.bundle), fitted.sets["test"], "test")
    right = classified(measured.predictions).indices == measured.targets
    cost = fitted.cost
    seen = round(cost["images_per_second"] * cost["train_seconds"])
    return Run(float(right.mean()), cost["params"], seen, cost["train_seconds"], whole, right)

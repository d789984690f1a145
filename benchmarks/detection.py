"""How well objects are found after so many minutes, by their size, and what a backbone of several scales brings.

    python -m benchmarks.detection --data digit-scenes --recipe detect --seeds 0 1
    python -m benchmarks.detection --data PATH --recipe detect-cells --models msresnet10 "resnet18 depths=[1,1,1,1]" \
        --time-limit 30m

A model's name may be followed by arguments, which are added to the recipe's.
Trains on the data's own split, chooses by its validation set and measures on its test set, which training never sees.
With --time-limit, all models get the same seconds.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.evaluate import evaluate, pick
from msresnet.train.config import TrainConfig
from msresnet.train.fit import fit
from msresnet.train.recipes import find_recipe

FIGURES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "small", "ap_medium": "medium", "ap_large": "large"}


def measured(data: str, seed: int, settings: dict[str, Any]) -> dict[str, float]:
    """Train once and measure: the figures, seconds of the clock, of the processors, parameters."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
    fitted = fit(TrainConfig(data=data, device="cpu", seed=seed, **settings))
    spent, busy = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
    split, samples = pick(fitted.sets, "auto")
    found = evaluate(predictor_of(fitted.bundle, "cpu"), samples, split).metrics
    figures = {name: np.nan if found[name] is None else found[name] for name in FIGURES}
    return figures | {"seconds": spent, "busy": busy, "params": fitted.cost["params"], "n": found["n"]}


def row(name: str, runs: list[dict[str, float]]) -> str:
    """A line of the table: the mean over seeds."""
    mean = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
    cells = ["-" if np.isnan(mean[key]) else f"{100 * mean[key]:.1f}" for key in FIGURES]
    costs = [f"{mean['params']:,.0f}", f"{mean['seconds']:.0f}", f"{mean['busy']:.0f}"]
    return "| " + " | ".join([name, *cells, *costs]) + " |"


def main() -> None:
    """Print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digit-scenes")
    parser.add_argument("--recipe", default="detect")
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--image-size", type=int, nargs="+")
    parser.add_argument("--time-limit")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    settings = dict(find_recipe(given.recipe).settings)
    if given.image_size:
        settings["image_size"] = tuple(given.image_size)
    if given.time_limit:
        settings |= {"time_limit": given.time_limit, "epochs": None}
    titles = ["model", *FIGURES.values(), "parameters", "seconds", "processor seconds"]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for model in given.models or [settings.get("model", "auto")]:
        name, *more = model.split()
        chosen = settings | {"model": name, "model_args": (*settings.get("model_args", ()), *more)}
        runs = [measured(given.data, seed, chosen) for seed in given.seeds]
        lines.append(row(model, runs))
    words = f"AP in % on {runs[0]['n']:,.0f} images, mean of seeds {given.seeds}; {torch.get_num_threads()} threads."
    text = "\n".join([*lines, "", words]) + "\n"
    print(text)
    if given.output is not None:
        given.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

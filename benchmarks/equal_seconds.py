"""Trainings at equal seconds: msresnet's, the published speed recipe airbench94, and timm in a plain loop.

All learn from the same decoded training images, all of them, on as many cores, for the same measured seconds. The test
set is measured once for each training. With one lane the contestants take turns, seed by seed, so that a machine whose
speed drifts slows all of them; with several they run side by side.

Contestants: airbench, timm/NAME, the name of a recipe of msresnet; a colon and a number set the batch size of the first
two, as in airbench:256. Each --ours adds a training of msresnet with a name and settings: --ours wide recipe=mnist-fast
lr=0.01. What stands in --settings holds for all of those. The word plain takes He et al.'s network of as many
multiply-adds in place of the model that the other settings name.

Run: python -m benchmarks.equal_seconds --data cifar10-jpeg.tar.gz --seconds 600 --seeds 5 \
    --contestants airbench airbench:256 timm/resnet18 cifar10-fast --output benchmarks/results/cifar10.md
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from benchmarks import airbench, baseline
from benchmarks.images import Images, read
from benchmarks.lanes import in_lanes
from benchmarks.ours import measure, settings
from benchmarks.plain import MODEL, plain_twin
from benchmarks.tables import Run, accuracy_table, difference, publish, use_threads

from msresnet.runtime import choose_device
from msresnet.train.config import TrainConfig

PLAIN = "plain"


@dataclass(frozen=True)
class Training:
    """One training, to be run in whatever process.

    Args:
        name: of the contestant.
        words: settings of a training of msresnet; without any, the name says what is trained.
        images: the file that holds the images.
    """

    name: str
    words: tuple[str, ...]
    seed: int
    seconds: float
    device: str
    images: Path


@cache
def load(path: Path, device: str) -> Images:
    """The images of all trainings, on a device."""
    found: Images = torch.load(path, weights_only=False)
    return found.to(choose_device(device)[0])


def train(training: Training) -> dict[str, Run]:
    """The runs of a training, by name: one may be measured in several ways."""
    name, seed, seconds = training.name, training.seed, training.seconds
    images = load(training.images, training.device)
    if training.words:
        fixed = {"val_fraction": 0.0, **told(training.words, images), "device": training.device, "seed": seed}
        config = TrainConfig(**{**fixed, "time_limit": f"{seconds}s", "epochs": None, "operations": None})
        return {name: measure(config, images.splits(config))}
    kind, _, batch = name.partition(":")
    if kind == "airbench":
        return airbench.measure(images, seed, airbench.Recipe(seconds=seconds, batch_size=int(batch or 1024)))
    plain = baseline.Settings(seconds, int(batch or 128))
    run = baseline.measure(images, seed, kind.removeprefix("timm/"), plain)
    return {f"{kind}, plain loop, batch {plain.batch_size}": run}


def told(words: Sequence[str], images: Images) -> dict[str, Any]:
    """Settings of a training, with the plain network of the same cost where that is asked for."""
    found = settings([word for word in words if word != PLAIN])
    if PLAIN in words:
        if "model" not in found:
            raise SystemExit("plain takes the place of a model: name one, or a recipe that has one")
        found["model_args"] = plain_twin(found["model"], found.get("model_args", ()), tuple(images.train.shape[1:]))
        found["model"] = MODEL
    return found


def contestants(names: list[str], ours: list[list[str]], shared: list[str]) -> dict[str, tuple[str, ...]]:
    """Names, and the settings of those that msresnet trains."""
    others = {name: () for name in names if name.startswith(("airbench", "timm/"))}
    recipes = {f"msresnet, {name}": (f"recipe={name}", *shared) for name in names if name not in others}
    return {**others, **recipes, **{f"msresnet, {words[0]}": (*shared, *words[1:]) for words in ours}}


def differences(results: dict[str, list[Run]]) -> list[str]:
    """Each contestant beside each before it, as Markdown."""
    lines = ["| | points of test top-1, 95 % interval over seeds and images |", "|---|--:|"]
    return lines + [f"| {b} - {a} | {difference(results, b, a)} |" for a, b in combinations(results, 2)]


def main() -> None:
    """Run all contestants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a data set as msresnet takes it, or a .tar.gz of its folder")
    parser.add_argument("--seconds", type=float, default=600, help="time for each training")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each contestant")
    parser.add_argument("--contestants", nargs="*", default=[])
    parser.add_argument("--ours", nargs="+", action="append", default=[], metavar="NAME KEY=VALUE")
    parser.add_argument("--settings", nargs="+", default=[], metavar="KEY=VALUE", help="for all trainings of msresnet")
    parser.add_argument("--lanes", type=int, default=1, help="trainings at a time")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="cores of each training")
    parser.add_argument("--output", type=Path, help="a file for the table")
    args = parser.parse_args()
    use_threads(args.threads)
    taking_part = contestants(args.contestants, args.ours, args.settings)
    found: dict[tuple[str, int], Run] = {}
    with TemporaryDirectory() as folder:
        stored, images = Path(folder) / "images.pt", read(args.data)
        torch.save(images, stored)
        jobs = [
            Training(name, words, seed, args.seconds, args.device, stored)
            for seed, (name, words) in product(range(args.seeds), taking_part.items())
        ]
        for job, runs in in_lanes(train, jobs, args.lanes, args.threads or torch.get_num_threads()):
            for name, run in runs.items():
                found[name, job.seed] = run
                print(f"seed {job.seed}: {name}: {100 * run.accuracy:.2f} %, {run.images:,} images seen", flush=True)
    # Trainings side by side end in any order; what belongs together is paired by its seed.
    order = sorted({name for name, _ in found}, key=lambda n: (n.startswith("msresnet"), n))
    results = {name: [found[name, seed] for seed in range(args.seeds)] for name in order}
    counts = f"{len(images.train):,} training and {len(images.test):,} test images"
    note = f"{counts}; {args.lanes} at a time; ± is the 95 % interval of the mean over seeds"
    body = [*accuracy_table(results), "", note, ""]
    publish(f"After {args.seconds:g} seconds", body + differences(results), args.output)


if __name__ == "__main__":
    main()

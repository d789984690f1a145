"""CIFAR-10 at equal seconds: msresnet's recipes, the published speed recipe airbench94, and timm in a plain loop.

All learn from the same decoded training images, all of them, on the same cores, for the same measured seconds; seeds
are interleaved, so that a machine whose speed drifts slows all contestants. The test set is measured once for each
training.

Contestants: airbench, timm/NAME, the name of a recipe of msresnet; a colon and a number set the batch size of the first
two, as in airbench:256. Each --ours adds a training of msresnet with such settings: --ours recipe=cifar10-fast lr=0.01.

Run: python -m benchmarks.cifar10 --data cifar10-jpeg.tar.gz --seconds 600 --seeds 5 \
    --contestants airbench airbench:256 timm/resnet18 cifar10-fast --output benchmarks/results/cifar10.md
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks import airbench, baseline
from benchmarks.images import Images, read
from benchmarks.ours import measure as measure_ours
from benchmarks.ours import settings
from benchmarks.tables import Run, accuracy_table, difference, publish, use_threads

from msresnet.runtime import choose_device
from msresnet.train.config import TrainConfig

Contestant = Callable[[int], dict[str, Run]]
"""From a seed to its runs, by name: one training may be measured in several ways."""


def ours(name: str, words: list[str], images: Images, seconds: float, device: str) -> Contestant:
    """A training of msresnet, for the time instead of a recipe's epochs."""
    fixed = {"val_fraction": 0.0, **settings(words), "time_limit": f"{seconds}s", "epochs": None, "device": device}

    def run(seed: int) -> dict[str, Run]:
        config = TrainConfig(**fixed, seed=seed)
        return {name: measure_ours(config, images.splits(config))}

    return run


def contestant(spec: str, images: Images, seconds: float, device: str) -> Contestant:
    """Who stands behind a name."""
    name, _, batch = spec.partition(":")
    if name == "airbench":
        recipe = airbench.Recipe(seconds=seconds, batch_size=int(batch or 1024))
        return lambda seed: airbench.measure(images, seed, recipe)
    if name.startswith("timm/"):
        plain = baseline.Settings(seconds, int(batch or 128))
        return lambda seed: {
            f"{name}, plain loop, batch {plain.batch_size}": baseline.measure(
                images, seed, name.removeprefix("timm/"), plain
            )
        }
    return ours(f"msresnet, {name}", [f"recipe={name}"], images, seconds, device)


def differences(results: dict[str, list[Run]]) -> list[str]:
    """Each training of msresnet beside each other contestant, as Markdown."""
    lines = ["| | points of test top-1, 95 % interval over seeds and images |", "|---|--:|"]
    mine = [name for name in results if name.startswith("msresnet")]
    others = [name for name in results if name not in mine]
    return lines + [f"| {a} - {b} | {difference(results, a, b)} |" for a in mine for b in others]


def main() -> None:
    """Run all contestants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10 as msresnet takes it, or a .tar.gz of that folder")
    parser.add_argument("--seconds", type=float, default=600, help="time for each training")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each contestant")
    parser.add_argument("--contestants", nargs="*", default=["airbench", "timm/resnet18"])
    parser.add_argument("--ours", nargs="+", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, help="a file for the table")
    args = parser.parse_args()
    use_threads(args.threads)
    images = read(args.data).to(choose_device(args.device)[0])
    contestants = [contestant(spec, images, args.seconds, args.device) for spec in args.contestants]
    contestants += [
        ours(f"msresnet, {' '.join(words)}", words, images, args.seconds, args.device) for words in args.ours
    ]
    results: dict[str, list[Run]] = {}
    for seed in range(args.seeds):
        for train in contestants:
            for name, run in train(seed).items():
                results.setdefault(name, []).append(run)
                print(f"seed {seed}: {name}: {100 * run.accuracy:.2f} %, {run.images:,} images seen", flush=True)
    title = f"CIFAR-10 after {args.seconds:g} seconds"
    counts = f"{len(images.train):,} training and {len(images.test):,} test images"
    body = [*accuracy_table(results), "", f"{counts}; ± is the 95 % interval of the mean over seeds", ""]
    publish(title, body + differences(results), args.output)


if __name__ == "__main__":
    main()

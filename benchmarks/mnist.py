"""MNIST by recipe, beside the article's network in Keras: seconds to 98.86 %, and the best accuracy.

98.86 % of the test set is what the article's network reached in Keras after its ten epochs. A recipe's seconds are
those of its whole training, for the test set is measured once, at the end. Keras runs in an environment of its own
(`--keras-python`), since TensorFlow and torch do not always share one.

Run: python -m benchmarks.mnist --data mnist --seeds 5 [--recipes mnist-fast mnist-best] \
    [--keras-python ~/keras/bin/python] [--output benchmarks/results/mnist.md]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from benchmarks.images import read
from benchmarks.ours import measure, settings
from benchmarks.tables import Run, percent, publish, use_threads

from msresnet.train.config import TrainConfig

TARGET = 0.9886
WORKER = Path(__file__).with_name("in_keras.py")


def in_keras(python: str, images: Path, seed: int, more: list[str]) -> tuple[str, Run]:
    """(name, run) of the article's network, trained by another interpreter."""
    words = [python, str(WORKER), str(images), "--seed", str(seed), "--threads", str(torch.get_num_threads()), *more]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return found.pop("name"), Run(**found)


def store(data: str, path: Path) -> None:
    """Write MNIST as the other interpreter reads it."""
    images = read(data)
    np.savez(
        path,
        x_train=images.train[:, 0].numpy(),
        y_train=images.train_targets.numpy(),
        x_test=images.test[:, 0].numpy(),
        y_test=images.test_targets.numpy(),
    )


def table(results: dict[str, list[Run]], target: float) -> list[str]:
    """One row for each contestant, as Markdown."""
    reached = f"seeds at {100 * target:.2f} % or more"
    lines = [f"| | parameters | training, s | with preparing, s | test top-1 | worst | {reached} |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|")
    for name, runs in results.items():
        accuracies = [run.accuracy for run in runs]
        spent, whole = (statistics.fmean(column) for column in ([r.seconds for r in runs], [r.whole for r in runs]))
        enough = sum(accuracy >= target for accuracy in accuracies)
        lines.append(
            f"| {name} | {runs[0].params:,} | {spent:.1f} | {whole:.1f} | {percent(accuracies)} "
            f"| {100 * min(accuracies):.2f} % | {enough} of {len(runs)} |"
        )
    return lines


def contestants(recipes: list[str], given: list[list[str]], data: str) -> dict[str, Callable[[int], Run]]:
    """Trainings of msresnet by name, each a function of the seed."""
    words = {f"msresnet, {name}": [f"recipe={name}"] for name in recipes}
    words |= {f"msresnet, {' '.join(each)}": each for each in given}

    def training(chosen: list[str]) -> Callable[[int], Run]:
        fixed = {**settings(chosen), "data": data}
        return lambda seed: measure(TrainConfig(**fixed, seed=seed))

    return {name: training(chosen) for name, chosen in words.items()}


def main() -> None:
    """Run all contestants, seed by seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist", help="MNIST as msresnet takes it")
    parser.add_argument("--recipes", nargs="*", default=["mnist-fast", "mnist-best"])
    parser.add_argument("--ours", nargs="+", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each contestant")
    parser.add_argument("--keras-python", metavar="PATH", help="an interpreter that has Keras and a backend")
    parser.add_argument("--keras-seeds", type=int, default=1, help="trainings of Keras; each takes minutes")
    parser.add_argument("--keras-args", nargs="+", default=[], metavar="WORD", help="more words, such as epochs=10")
    parser.add_argument("--target", type=float, default=TARGET, help="accuracy that counts as reached")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, help="a file for the table")
    args = parser.parse_args()
    use_threads(args.threads)
    runs = contestants(args.recipes, args.ours, args.data)
    results: dict[str, list[Run]] = {}

    def note(seed: int, name: str, run: Run) -> None:
        results.setdefault(name, []).append(run)
        print(f"seed {seed}: {name}: {100 * run.accuracy:.2f} % in {run.seconds:.1f} s", flush=True)

    with TemporaryDirectory() as folder:
        images = Path(folder) / "mnist.npz"
        if args.keras_python:
            store(args.data, images)
        for seed in range(args.seeds):
            for name, train in runs.items():
                note(seed, name, train(seed))
            if args.keras_python and seed < args.keras_seeds:
                more = [f"--{word}" for word in args.keras_args]
                note(seed, *in_keras(args.keras_python, images, seed, more))
    body = [*table(results, args.target), "", "± is the 95 % interval of the mean"]
    publish("MNIST by recipe", body, args.output)


if __name__ == "__main__":
    main()

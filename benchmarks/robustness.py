"""What several scales are for: accuracy over object scales of house networks and plain ones, at equal seconds.

Two plain networks stand beside each house network: He et al.'s for small images, with stages of the full, half and
quarter resolution and as many multiply-adds (`plain.py`), and the house network itself with one 3x3 convolution in
place of its operator and average pooling. No network sees other scales than its training images show. All training
images are learnt from; the averaged weights at the end are measured, once.

The area is that under accuracy over the logarithm of the scale, from 0 to 1. Each image adds its own part to it, so
areas form a table of seeds and images as right answers do, and their difference is paired by both.

Run: python -m benchmarks.robustness --cases msresnet_micro@scaled-digits msresnet_micro@mnist --seconds 60 \
    --seeds 5 --threads 1 --lanes 2 --output benchmarks/results/robustness.md
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from benchmarks.lanes import in_lanes
from benchmarks.ours import settings
from benchmarks.plain import MODEL, cost, plain_twin
from benchmarks.tables import publish, use_threads
from scipy import stats

from msresnet.data.splits import Splits, open_data
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.config import numbers
from msresnet.infer.robustness import Curve, bands, object_scales
from msresnet.metrics.significance import spread, t_test
from msresnet.train.config import TrainConfig
from msresnet.train.fit import fit

HOUSE, PLAIN, BARE = "house", "He et al.", "house, one convolution, average pooling"
SCALES = "0.25,0.35,0.5,0.71,1,1.41,2"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Training:
    """One training, to be run in whatever process.

    Args:
        case: MODEL@DATA.
        contestant: which network stands in the model's place.
        words: settings for all contestants alike, KEY=VALUE.
        scales: at which it is measured.
    """

    case: str
    contestant: str
    seed: int
    seconds: float
    words: tuple[str, ...]
    scales: tuple[float, ...]


@dataclass(frozen=True)
class Trained:
    """One training: its cost, and right answers at each scale and by the scale that ids tell."""

    params: int
    macs: int
    images: float
    curve: Curve
    bands: list[float]


@cache
def load(data: str, words: tuple[str, ...]) -> Splits:
    """The data of a case, read once in each process."""
    return open_data(data, TrainConfig(**{"val_fraction": 0.0, **settings(words)}))


def train(training: Training) -> Trained:
    """Train, and measure the test images at every scale, once, at the end."""
    model, _, data = training.case.partition("@")
    splits = load(data, training.words)
    fixed = {"val_fraction": 0.0, **settings(training.words)}
    arguments = tuple(fixed.pop("model_args", ()))
    shape = splits.train.image(0).shape
    if training.contestant == PLAIN:
        model, arguments = MODEL, plain_twin(model, arguments, shape)
    elif training.contestant == BARE:
        arguments = (*arguments, "operator=plain", "pool=avg")
    fixed |= {"data": data, "model": model, "model_args": arguments, "seed": training.seed}
    config = TrainConfig(**{**fixed, "time_limit": f"{training.seconds:g}s", "epochs": None, "operations": None})
    fitted = fit(config, splits)
    test = splits.named()["test"]
    curve = object_scales(predictor_of(fitted.bundle), test, config, training.scales)
    shares = [row["top1"] for row in bands(test.ids, curve.right[curve.points.index(1.0)])]
    seen = fitted.cost["images_per_second"] * fitted.cost["train_seconds"]
    return Trained(fitted.cost["params"], cost(model, arguments, shape), seen, curve, shares)


def mean(table: Floats) -> str:
    """Percent with the 95 % interval over seeds and images (S, N)."""
    found = spread(table)
    half = float(stats.t.ppf(0.975, min(found.freedom, 1e12))) * found.error
    return f"{100 * found.mean:.2f} ({100 * (found.mean - half):.2f} to {100 * (found.mean + half):.2f})"


def rows(case: str, results: dict[str, list[Trained]]) -> list[str]:
    """All networks, and the house network's difference from each other one, as Markdown."""
    lines, areas = [], {}
    for name, trained in results.items():
        areas[name] = np.stack([t.curve.areas for t in trained])
        right = np.stack([t.curve.right for t in trained]).astype(float)  # (seeds, scales, N)
        seen = float(np.mean([t.images for t in trained]))
        each = [f"{100 * share:.1f}" for share in right.mean((0, 2))]
        first = trained[0]
        cells = [case, name, f"{first.params:,}", f"{first.macs / 1e6:.2f} M", f"{seen:,.0f}", mean(areas[name]), *each]
        lines.append("| " + " | ".join(cells) + " |")
        if first.bands:
            shares = " ".join(f"{100 * share:.2f}" for share in np.mean([t.bands for t in trained], 0))
            empty = " |" * right.shape[1]
            lines.append(f"| {case} | {name}, by the digit's own scale, small to large | | | | {shares} |{empty}")
    for name in (PLAIN, BARE):
        difference = areas[HOUSE] - areas[name]
        p = t_test(spread(difference))
        empty = " |" * len(results[HOUSE][0].curve.points)
        lines.append(f"| {case} | {HOUSE} - {name}, points | | | | {mean(difference)}, p = {p:.3g} |{empty}")
    return lines


def main() -> None:
    """Compare each case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", required=True, metavar="MODEL@DATA", help="a house network and its data")
    parser.add_argument("--seconds", type=float, default=60, help="time for each training")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each network")
    parser.add_argument("--scales", default=SCALES, help="object scales, 1 among them")
    parser.add_argument("--settings", nargs="+", default=[], metavar="KEY=VALUE", help="for all networks alike")
    parser.add_argument("--lanes", type=int, default=1, help="trainings at a time")
    parser.add_argument("--threads", type=int, help="cores of each training")
    parser.add_argument("--output", type=Path, help="a file for the table")
    args = parser.parse_args()
    use_threads(args.threads)
    scales = numbers("scales", args.scales, SCALES)
    jobs = [
        Training(case, name, seed, args.seconds, tuple(args.settings), scales)
        for case, seed, name in product(args.cases, range(args.seeds), (HOUSE, PLAIN, BARE))
    ]
    found: dict[tuple[str, str, int], Trained] = {}
    for job, trained in in_lanes(train, jobs, args.lanes, args.threads or torch.get_num_threads()):
        found[job.case, job.contestant, job.seed] = trained
        print(f"{job.case} {job.contestant} {job.seed}: area {trained.curve.areas.mean():.4f}", flush=True)
    names = ["parameters", "multiply-adds", "images seen", "area, %", *(f"x{scale:g}" for scale in scales)]
    lines = [f"| | | {' | '.join(names)} |", "|---|---|" + "--:|" * len(names)]
    for case in args.cases:
        results = {name: [found[case, name, seed] for seed in range(args.seeds)] for name in (HOUSE, PLAIN, BARE)}
        model, _, data = case.partition("@")
        lines += rows(f"{model}, {Path(data).name}", results)
    counts = f"{args.seconds:g} seconds each, {args.seeds} seeds, {args.lanes} at a time"
    note = f"{counts}; 95 % intervals over seeds and images; top-1 by scale"
    publish("Accuracy over object scales at equal seconds", [*lines, "", note], args.output)


if __name__ == "__main__":
    main()

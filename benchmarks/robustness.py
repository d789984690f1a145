"""What several scales are for: accuracy over object scales of house networks and their plain twins, at equal seconds.

The twin has one 3x3 convolution where the house network has an operator that folds to one, so both cost the same in
use; in training the plain one takes more steps in the same time. Neither sees other scales than its training images
show. All training images are learnt from; the averaged weights at the end are measured, once.

The area is that under accuracy over the logarithm of the scale, from 0 to 1. Each image adds its own part to it, so
areas form a table of seeds and images as right answers do, and their difference is paired by both.

Run: python -m benchmarks.robustness --cases msresnet_micro@scaled-digits msresnet_micro@mnist --seconds 60 \
    --seeds 5 --output benchmarks/results/robustness.md
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from benchmarks.ours import settings
from benchmarks.tables import publish, use_threads
from scipy import stats

from msresnet.data.splits import Splits, open_data
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.config import numbers
from msresnet.infer.robustness import Curve, bands, object_scales
from msresnet.metrics.significance import spread, t_test
from msresnet.train.config import TrainConfig
from msresnet.train.fit import fit

HOUSE, PLAIN = "house", "plain"
SCALES = "0.25,0.35,0.5,0.71,1,1.41,2"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trained:
    """One training: parameters, images seen, right answers at each scale, and those by the scale that ids tell."""

    params: int
    images: float
    curve: Curve
    bands: list[float]


def measure(config: TrainConfig, splits: Splits, scales: Sequence[float]) -> Trained:
    """Train, and measure the test images at every scale, once, at the end."""
    fitted = fit(config, splits)
    test = splits.named()["test"]
    curve = object_scales(predictor_of(fitted.bundle), test, config, scales)
    shares = [row["top1"] for row in bands(test.ids, curve.right[curve.points.index(1.0)])]
    seen = fitted.cost["images_per_second"] * fitted.cost["train_seconds"]
    return Trained(fitted.cost["params"], seen, curve, shares)


def mean(table: Floats) -> str:
    """Percent with the 95 % interval over seeds and images (S, N)."""
    found = spread(table)
    half = float(stats.t.ppf(0.975, min(found.freedom, 1e12))) * found.error
    return f"{100 * found.mean:.2f} ({100 * (found.mean - half):.2f} to {100 * (found.mean + half):.2f})"


def rows(case: str, results: dict[str, list[Trained]]) -> list[str]:
    """Both networks and their difference, as Markdown."""
    lines, areas = [], {}
    for name, trained in results.items():
        areas[name] = np.stack([t.curve.areas for t in trained])
        right = np.stack([t.curve.right for t in trained]).astype(float)  # (seeds, scales, N)
        seen = float(np.mean([t.images for t in trained]))
        each = [f"{100 * share:.1f}" for share in right.mean((0, 2))]
        cells = [case, name, f"{trained[0].params:,}", f"{seen:,.0f}", mean(areas[name]), *each]
        lines.append("| " + " | ".join(cells) + " |")
        if trained[0].bands:
            shares = " ".join(f"{100 * share:.2f}" for share in np.mean([t.bands for t in trained], 0))
            lines.append(
                f"| {case} | {name}, by the digit's own scale, small to large | | | {shares} |" + " |" * right.shape[1]
            )
    difference = areas[HOUSE] - areas[PLAIN]
    p = t_test(spread(difference))
    empty = " |" * len(results[HOUSE][0].curve.points)
    lines.append(f"| {case} | {HOUSE} - {PLAIN}, points | | | {mean(difference)}, p = {p:.3g} |{empty}")
    return lines


def main() -> None:
    """Compare each case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", required=True, metavar="MODEL@DATA", help="a house network and its data")
    parser.add_argument("--seconds", type=float, default=60, help="time for each training")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each network")
    parser.add_argument("--scales", default=SCALES, help="object scales, 1 among them")
    parser.add_argument("--settings", nargs="+", default=[], metavar="KEY=VALUE", help="for both networks alike")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, help="a file for the table")
    args = parser.parse_args()
    use_threads(args.threads)
    scales = numbers("scales", args.scales, SCALES)
    lines = ["| | | parameters | images seen | area, % | " + " | ".join(f"x{scale:g}" for scale in scales) + " |"]
    lines.append("|---|---|--:|--:|--:|" + "--:|" * len(scales))
    for spec in args.cases:
        model, _, data = spec.partition("@")
        shared = {"val_fraction": 0.0, **settings(args.settings), "time_limit": f"{args.seconds:g}s", "epochs": None}
        own = tuple(shared.pop("model_args", ()))
        splits = open_data(data, TrainConfig(**shared))
        results: dict[str, list[Trained]] = {HOUSE: [], PLAIN: []}
        for seed in range(args.seeds):
            for name, more in ((HOUSE, ()), (PLAIN, ("operator=plain",))):
                config = TrainConfig(**shared, data=data, model=model, model_args=(*own, *more), seed=seed)
                results[name].append(measure(config, splits, scales))
                print(f"{spec} {name} {seed}: area {results[name][-1].curve.areas.mean():.4f}", flush=True)
        lines += rows(f"{model}, {Path(data).name}", results)
    note = f"{args.seconds:g} seconds each, {args.seeds} seeds; 95 % intervals over seeds and images; top-1 by scale"
    publish("Accuracy over object scales at equal seconds", [*lines, "", note], args.output)


if __name__ == "__main__":
    main()

"""Choices of the micro network at equal seconds.

Each contestant trains for the same time, and is measured on validation images that were held out of MNIST's training
set. The test set is not touched.

Run: python benchmarks/micro.py --data mnist --seconds 60 --seeds 2
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from msresnet.runtime import environment
from msresnet.train.config import TrainConfig
from msresnet.train.fit import fit


def network(*arguments: str) -> TrainConfig:
    """A contestant that differs in the network."""
    return TrainConfig(model="msresnet_micro", model_args=arguments)


CONTESTANTS = {
    "as shipped: 3x3 + 1x1 merged, mean of average and maximum": network(),
    "plain 3x3": network("operator=plain"),
    "3x3, 1x3, 3x1, 1x1 merged": network("operator=online"),
    "3x3, 1x1, 1x3, 3x1, average, identity, each with BN": network("operator=reparameterised"),
    "lower resolutions": network("operator=low_resolution"),
    "average pooling": network("pool=avg"),
    "maximum pooling": network("pool=max"),
    "every stage pooled": network("multi_stage=true"),
    "shortcut level 2": network("shortcut_levels=2"),
    "shortcut level 3": network("shortcut_levels=3"),
    "no label smoothing": replace(network(), label_smoothing=0.0),
    "learning rate halved": replace(network(), lr=4e-3),
}


def main() -> None:
    """Run all contestants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist", help="MNIST as msresnet takes it")
    parser.add_argument("--seconds", type=int, default=60, help="time for each training")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each contestant")
    parser.add_argument("--output", type=Path, default=None, help="a file for the table")
    args = parser.parse_args()
    lines = ["| | parameters | epochs | best validation top-1 of each seed | mean |", "|---|---|---|---|---|"]
    for name, contestant in CONTESTANTS.items():
        scores, epochs, params = [], 0, 0
        for seed in range(args.seeds):
            config = replace(contestant, data=args.data, time_limit=f"{args.seconds}s", seed=seed)
            fitted = fit(config)
            scores.append(max(row["val_top1"] for row in fitted.history))
            epochs, params = len(fitted.history), fitted.cost["params"]
        shown = ", ".join(f"{100 * s:.2f}" for s in scores)
        lines.append(f"| {name} | {params:,} | {epochs} | {shown} | {100 * sum(scores) / len(scores):.2f} % |")
        print(lines[-1], flush=True)
    here = environment()
    lines += ["", f"{here['processor']}, {here['threads']} threads, torch {here['torch']}"]
    lines += [f"`python benchmarks/micro.py --data MNIST --seconds {args.seconds} --seeds {args.seeds}`", ""]
    if args.output is not None:
        args.output.write_text("# Choices of the micro network\n\n" + "\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()

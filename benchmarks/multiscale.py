"""Whether several scales pay: house networks beside their plain twins at equal seconds, through `msresnet.compare`.

The twin has one 3x3 convolution where the house network has an operator. The house operator folds to such a
convolution, so both cost the same in use; in training the plain one takes more steps in the same time. Differences are
paired by seed and by test image. All training images are learnt from; the averaged weights
at the end are measured.

Run: python -m benchmarks.multiscale --cases msresnet_micro@mnist msresnet_micro@cifar10-jpeg.tar.gz \
    --seconds 120 --seeds 5 --output benchmarks/results/multiscale.md
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from benchmarks.images import Images, read
from benchmarks.ours import settings
from benchmarks.tables import publish, use_threads

from msresnet.compare.config import CompareConfig
from msresnet.compare.judge import Comparison
from msresnet.compare.run import compare
from msresnet.models.factory import create_classifier
from msresnet.nn.folding import fold

HOUSE, PLAIN = "house", "plain"


def twins(model: str, images: Images, words: list[str], seconds: float, seeds: int) -> Comparison:
    """The house network and its twin, seed by seed."""
    shared = {"val_fraction": 0.0, **settings(words), "epochs": None, "time_limit": None}
    args = tuple(shared.pop("model_args", ()))
    contestants = tuple(
        f"{name}: model={model}" + (f" model_args={','.join(own)}" if own else "")
        for name, own in ((HOUSE, args), (PLAIN, (*args, "operator=plain")))
    )
    config = CompareConfig(**shared, contestants=contestants, seconds=seconds, seeds=seeds, baseline=PLAIN)
    return compare(config, images.splits(config), announce=lambda line: print(line, flush=True))


def folded_params(model: str, images: Images, *, plain: bool) -> int:
    """Parameters in use."""
    more = {"operator": "plain"} if plain else {}
    channels, *size = images.train.shape[1:]
    net = create_classifier(model, in_chans=channels, img_size=size, num_classes=len(images.classes), **more)
    return sum(p.numel() for p in fold(net.eval()).parameters())


def rows(model: str, case: str, images: Images, found: Comparison) -> list[str]:
    """Both networks and their difference, as Markdown."""
    lines = []
    for standing in found.standings:
        if standing.test is None:
            lines.append(f"| {case} | {standing.name} | {'; '.join(standing.failures.values())} | | | | |")
            continue
        used = folded_params(model, images, plain=standing.name == PLAIN)
        mine = [t for t in found.trainings if t.contestant == standing.name and not t.failure]
        seen = statistics.fmean(t.images_per_second * t.seconds for t in mine)
        mean, low, high = (100 * share for share in standing.test)
        lines.append(
            f"| {case} | {standing.name} | {standing.params:,} | {used:,} | {standing.macs / 1e6:.2f} | {seen:,.0f} "
            f"| {mean:.2f} % ({low:.2f} to {high:.2f}) |"
        )
    contest = found.contest(HOUSE)
    if contest is not None:
        d = contest.difference
        shown = f"{100 * d.mean:+.2f} ({100 * d.low:+.2f} to {100 * d.high:+.2f}), p = {d.p:.3g}: {contest.verdict}"
        lines.append(f"| {case} | {HOUSE} - {PLAIN}, points | | | | | {shown} |")
    return lines


def main() -> None:
    """Compare each case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", required=True, metavar="MODEL@DATA", help="a house network and its data")
    parser.add_argument("--seconds", type=float, default=120, help="time for each training")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each network")
    parser.add_argument("--settings", nargs="+", default=[], metavar="KEY=VALUE", help="for both networks alike")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, help="a file for the table")
    args = parser.parse_args()
    use_threads(args.threads)
    lines = ["| | | parameters in training | in use | million operations | images seen | test top-1 |"]
    lines.append("|---|---|--:|--:|--:|--:|--:|")
    for spec in args.cases:
        model, _, data = spec.partition("@")
        images = read(data)
        case = f"{model}, {Path(data).name.split('.')[0]}"
        lines += rows(model, case, images, twins(model, images, args.settings, args.seconds, args.seeds))
    note = f"{args.seconds:g} seconds each, {args.seeds} seeds; 95 % intervals over seeds and images"
    publish("Several scales at equal seconds", [*lines, "", note], args.output)


if __name__ == "__main__":
    main()

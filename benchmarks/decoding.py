"""Photographs from files to the network's input: plain Pillow beside what training and prediction use here, one core.

Plain Pillow opens, converts to RGB, resizes and lays out as (3, H, W), which a network takes: by its own choice of
filter (bicubic), and by the bilinear one that ours is. The contestants take turns, round after round, so that a machine
whose speed drifts slows all; a figure is the median of its rounds, a ratio the median of the ratios within each round.
Seconds are those of the processor, so that other work on the machine does not count. The last column says how far ours
is from Pillow's bilinear pixels, in grey levels of 255, on average.

Run: python benchmarks/decoding.py --data FOLDER [--output benchmarks/results/decoding.md]
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import simplejpeg
import torch
from PIL import Image as Pillow

from msresnet.data.decode import decode_file
from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import Image
from msresnet.data.sources.folder import is_image
from msresnet.runtime import environment

Reader = Callable[[Path], Image]


def plain(size: tuple[int, int], filter: Pillow.Resampling | None = None) -> Reader:  # noqa: A002 - Pillow's word
    """Pillow as its manual shows it; None is its own choice."""

    def read(path: Path) -> Image:
        with Pillow.open(path) as image:
            small = image.convert("RGB").resize(size[::-1], filter)
        return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))

    return read


def ours(size: tuple[int, int]) -> Reader:
    """The path of training, evaluation and prediction."""
    preprocess = Preprocess(size, 3)
    return lambda path: preprocess.image(decode_file(path, preprocess.at_least))


def measure(readers: list[Reader], paths: list[Path], rounds: int) -> list[list[float]]:
    """Images a second of processor time of each reader in each round."""
    found: list[list[float]] = [[] for _ in readers]
    for index in range(rounds + 1):  # the first is to warm up
        for reader, speeds in zip(readers, found, strict=True):
            start = time.process_time()
            for path in paths:
                reader(path)
            if index:
                speeds.append(len(paths) / (time.process_time() - start))
    return found


def enlarged(paths: list[Path], factor: int, folder: Path) -> list[Path]:
    """The photographs at the size that cameras give them, as JPEG of quality 90."""
    made = []
    for path in paths:
        with Pillow.open(path) as image:
            large = image.convert("RGB").resize((image.width * factor, image.height * factor))
        made.append(folder / f"{path.stem}.jpg")
        large.save(made[-1], quality=90)
    return made


def row(name: str, paths: list[Path], side: int, rounds: int) -> str:
    """One line of the table."""
    readers = [plain((side, side)), plain((side, side), Pillow.Resampling.BILINEAR), ours((side, side))]
    *theirs, mine = measure(readers, paths, rounds)
    ratios = [statistics.median(b / a for a, b in zip(other, mine, strict=True)) for other in theirs]
    apart = statistics.fmean(
        float(np.abs(readers[1](path).astype(np.int16) - readers[2](path)).mean()) for path in paths
    )
    speeds = " | ".join(f"{statistics.median(each):,.0f}" for each in (*theirs, mine))
    return f"| {name} | {side} | {speeds} | {ratios[0]:.2f} | {ratios[1]:.2f} | {apart:.2f} |"


def main() -> None:
    """Measure and print, and write what was printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--sides", nargs="+", type=int, default=[256, 224, 128, 64])
    parser.add_argument("--enlarge", type=int, default=4, help="a second row from enlarged copies; 1: none")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(path for path in args.data.rglob("*") if is_image(path))
    rows = [
        "| photographs | side | Pillow, images/s | bilinear | ours | ours / Pillow | ours / bilinear | apart |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    with tempfile.TemporaryDirectory() as made:
        sizes = [Pillow.open(path).size for path in paths]
        width, height = (statistics.median(side) for side in zip(*sizes, strict=True))
        name = f"{len(paths)} of about {width:.0f} x {height:.0f}"
        sets = [(name, paths, side) for side in args.sides]
        if args.enlarge > 1:
            few = enlarged(paths[:: max(1, len(paths) // 24)], args.enlarge, Path(made))
            sets.append((f"{len(few)} of them, enlarged {args.enlarge} times", few, args.sides[0]))
        for label, chosen, side in sets:
            rows.append(row(label, chosen, side, args.rounds))
            print(rows[-1], flush=True)
    machine = environment()
    given = ["FOLDER" if word == str(args.data) else word for word in sys.argv[1:]]
    words = shlex.join(["python", "benchmarks/decoding.py", *given])
    versions = f"Pillow {machine['pillow']}, simplejpeg {simplejpeg.__version__}, torch {machine['torch']}"
    where = f"{machine['processor']} ({machine['cpu_capability']}), one thread, {versions}"
    text = [
        "# Images a second of one core, from files to (3, side, side)", "", *rows, "",
        f"{where}; medians of {args.rounds} rounds", f"`{words}`", "",
    ]  # fmt: skip
    if args.output:
        args.output.write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()

"""A trained detector on one image at a time: the network in eager torch as it was trained, and every backend.

Twice each: the network alone, and all of an answer from the decoded photograph to boxes in its pixels (resizing, the
network, what remains of boxes that overlap). The contestants take turns, round after round, in one process; a figure is
the median of its rounds, each the median of its calls, and a ratio the median of the ratios within each round.

Run: python -m benchmarks.detector_speed --model runs/cells --int8 cells-int8 --images PATH [--rounds 7] [--output FILE]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.tables import publish, use_threads

from msresnet.bundle import Bundle, load_bundle
from msresnet.data.decode import decode_bytes
from msresnet.data.sample import Image
from msresnet.infer.backend import Backend, Exits, Outputs, Pixels
from msresnet.infer.backends.opened import open_predictor, run_bundle
from msresnet.infer.config import Running
from msresnet.infer.predictor import Predictor
from msresnet.results import Results

ENDINGS, IMAGES = (".jpg", ".jpeg", ".png"), 16


class AsTrained(Backend):
    """A bundle's network as PyTorch's users run one: float32, eager, nothing folded, channels first."""

    name, precision = "eager torch, as it was trained", "fp32"

    def __init__(self, bundle: Bundle) -> None:
        self.network, self.preprocess = bundle.model.eval(), bundle.preprocess
        self.threads, self.reason = torch.get_num_threads(), "as it was trained"

    @torch.inference_mode()
    def __call__(self, images: Pixels) -> tuple[Outputs, Exits | None]:
        """Images (B, C, H, W) uint8 -> outputs (B, P, 4 + K)."""
        return self.network(self.preprocess.tensor(torch.as_tensor(images))).numpy(), None


def contestants(model: str, int8: str | None) -> dict[str, Predictor]:
    """Whatever runs the model, by name; the first is what others are compared with."""
    bundle = load_bundle(model)
    found = {AsTrained.name: Predictor(bundle, AsTrained(bundle), 1)}
    for backend in ("torch", "onnxruntime", "openvino"):
        found[f"{backend}, fp32"] = run_bundle(bundle, Running(backend=backend, batch_size=1))
    if int8:
        for backend in ("onnxruntime", "openvino"):
            found[f"{backend}, int8"] = open_predictor(int8, Running(backend=backend, batch_size=1))  # type: ignore[arg-type]
    return found


def answered(predictor: Predictor, image: Image) -> Results:
    """All of an answer."""
    return predictor.predict([image], ["image"])


def median(call: Callable[[Any], Any], inputs: list[Any], seconds: float) -> float:
    """Seconds of a call, the median of those that fit, after one of each input at most that is not counted."""
    spent: list[float] = []
    call(inputs[0])
    end = time.perf_counter() + seconds
    for each in cycle(inputs):
        start = time.perf_counter()
        call(each)
        spent.append(time.perf_counter() - start)
        if time.perf_counter() > end and len(spent) > 2:
            return statistics.median(spent)
    raise AssertionError


def compared(times: list[float], others: list[float]) -> tuple[str, str]:
    """Milliseconds, and how many times as fast as the other in the same round; medians."""
    ratios = [other / time for time, other in zip(times, others, strict=True)]
    return f"{1000 * statistics.median(times):.1f}", f"{statistics.median(ratios):.2f}"


def photographs(folder: str, predictor: Predictor) -> list[Any]:
    """Some decoded photographs (C, H, W) uint8 of a folder."""
    files = [f for f in sorted(Path(folder).rglob("*")) if f.suffix.lower() in ENDINGS][:IMAGES]
    if not files:
        raise SystemExit(f"no photograph lies in {folder}")
    at_least = predictor.trained.preprocess.at_least
    return [decode_bytes(file.read_bytes(), file.name, at_least) for file in files]


def main() -> None:
    """Measure and print, and write what was printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a detector's run")
    parser.add_argument("--int8", help="the folder that `msresnet compress --to int8` made of it")
    parser.add_argument("--images", required=True, help="a folder of photographs")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each contestant in a round, each way")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, help="a file for the table")
    args = parser.parse_args()
    use_threads(args.threads)
    predictors = contestants(args.model, args.int8)
    first = next(iter(predictors.values()))
    images = photographs(args.images, first)
    ready = [first.trained.preprocess.image(image)[None] for image in images]
    alone: dict[str, list[float]] = {name: [] for name in predictors}
    whole: dict[str, list[float]] = {name: [] for name in predictors}
    for _ in range(args.rounds):
        for name, predictor in predictors.items():
            alone[name].append(median(predictor.backend, ready, args.seconds))
            whole[name].append(median(partial(answered, predictor), images, args.seconds))
    rows = ["| | network, ms | ratio | all of it, ms | ratio |", "|---|--:|--:|--:|--:|"]
    for name in predictors:
        cells = [cell for times in (alone, whole) for cell in compared(times[name], times[AsTrained.name])]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    size = "x".join(map(str, first.trained.preprocess.size))
    boxes = np.mean([answered(first, image).to_dict()[0]["count"] for image in images])
    rows += ["", f"{first.trained.architecture}, {first.trained.params:,} parameters, {size} pixels, batch 1; "]
    rows[-1] += f"{len(images)} photographs, {boxes:.1f} boxes each; medians of {args.rounds} rounds"
    publish("A detector, one image at a time", rows, args.output)


if __name__ == "__main__":
    main()

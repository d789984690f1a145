"""Folded house networks beside timm's, in one process: images a second, eager and exported to ONNX Runtime.

The contestants take turns, round after round, so that a machine whose speed drifts slows all of them; a figure is the
median of its rounds, a ratio the median of the ratios within each round.

Run: python benchmarks/speed.py [--models msresnet50 timm/resnet50 ...] [--output benchmarks/results/speed.md]
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msresnet.models.factory import create_classifier
from msresnet.nn.folding import fold
from msresnet.runtime import environment

MODELS = ("msresnet50", "timm/resnet50", "timm/res2net50_26w_4s")
Run = Callable[[], Any]


def network(name: str) -> nn.Module:
    """Ours folded and channels-last, timm's as it gives them: each as its users would run it."""
    torch.manual_seed(0)
    if not name.startswith("timm/"):
        folded = fold(create_classifier(name).eval())
        return folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
    return load_timm().create_model(name.removeprefix("timm/")).eval()  # type: ignore[no-any-return]


@cache
def load_timm() -> Any:
    """Load timm, which asks torchvision for two operators that a CPU build of torch lacks; their names are enough."""
    library = torch.library.Library("torchvision", "DEF")
    for schema in ("nms(Tensor a, Tensor b, float c) -> Tensor", "qnms(Tensor a, Tensor b, float c) -> Tensor"):
        library.define(schema)
    KEPT.append(library)
    import timm

    return timm


KEPT: list[torch.library.Library] = []
"""A library's definitions live as long as its object."""


def eager(model: nn.Module, images: Tensor) -> Run:
    """One forward pass in float32."""
    strides = next(p for p in model.parameters() if p.ndim == 4)
    last = strides.is_contiguous(memory_format=torch.channels_last) and strides.shape[1] > 1
    x = images.contiguous(memory_format=torch.channels_last) if last else images

    def run() -> None:
        with torch.inference_mode():
            model(x)

    return run


def exported(model: nn.Module, images: Tensor) -> Run:
    """One run of ONNX Runtime on the exported network."""
    import onnxruntime

    program = torch.onnx.export(model.to(memory_format=torch.contiguous_format), (images,), dynamo=True, verbose=False)  # type: ignore[call-overload]
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    data = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, feed)


def measure(runs: dict[str, Run], batch: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Images a second of each contestant in each round."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds + 1):  # the first is to warm up
        for name, run in runs.items():
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < seconds or count < 2:
                run()
                count += 1
            if index:
                found[name].append(batch * count / (time.perf_counter() - start))
    return found


def table(names: list[str], batches: list[int], rounds: int, seconds: float) -> list[str]:
    """The rows of the result, as Markdown."""
    rows = [f"| | batch | {' | '.join(names)} | {' | '.join(f'{names[0]} / {n}' for n in names[1:])} |"]
    rows.append("|---|--:|" + "--:|" * (2 * len(names) - 1))
    for way, make in (("eager", eager), ("ONNX Runtime", exported)):
        models = {name: network(name) for name in names}
        for batch in batches:
            images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
            found = measure({name: make(models[name], images) for name in names}, batch, rounds, seconds)
            speeds = [f"{statistics.median(found[name]):.1f}" for name in names]
            first = found[names[0]]
            ratios = [statistics.median(a / b for a, b in zip(first, found[n], strict=True)) for n in names[1:]]
            rows.append(f"| {way} | {batch} | {' | '.join(speeds)} | {' | '.join(f'{r:.2f}' for r in ratios)} |")
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure and print, and write what was printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each contestant in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    rows = table(args.models, args.batches, args.rounds, args.seconds)
    machine = environment()
    words = shlex.join(["python", "benchmarks/speed.py", *sys.argv[1:]])
    text = "\n".join(
        [
            "# Images a second at 224 pixels",
            "",
            *rows,
            "",
            f"{machine['processor']} ({machine['cpu_capability']}), {args.threads} threads, torch {machine['torch']}, "
            f"float32; medians of {args.rounds} rounds",
            f"`{words}`",
            "",
        ]
    )
    if args.output:
        args.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

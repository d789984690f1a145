"""Our network in 8 bits beside timm's Res2Net-50: in eager float32, and as its users take it to 8 bits in OpenVINO.

By hand means OpenVINO's own way: `openvino.convert_model` of timm's network, and NNCF's `quantize` with its defaults,
calibrated on as many images as ours. Both networks have random weights, on which speed does not depend. The contestants
take turns, round after round, in one process; a figure is the median of its rounds, each the median of its calls, and a
ratio the median of the ratios within each round.

Run: python -m benchmarks.int8_by_hand [--model msresnet50] [--rounds 7] [--output FILE], with NNCF installed
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from benchmarks.detector_speed import median
from benchmarks.oracles import timm
from benchmarks.tables import publish, use_threads
from torch import Tensor, nn

from msresnet.deploy.benchmark.contestants import _quantised, untrained
from msresnet.infer.backends.graph import onnx_model
from msresnet.infer.backends.openvino import OpenVino
from msresnet.infer.config import Running

Call = Callable[[Any], Any]
PEER, SIDE, BATCHES, CALIBRATION = "res2net50_26w_4s", 224, (1, 16), 64


def by_hand(network: nn.Module) -> Any:
    """A network as a model of OpenVINO in 8 bits."""
    import nncf

    rng = np.random.default_rng(0)
    images = [rng.normal(0, 1, (1, 3, SIDE, SIDE)).astype(np.float32) for _ in range(CALIBRATION)]
    converted = openvino.convert_model(network, example_input=torch.from_numpy(images[0]))
    return nncf.quantize(converted, nncf.Dataset(images), subset_size=CALIBRATION)


def compiled(model: Any, batch: int, threads: int) -> Call:
    """Such a model, compiled for the one shape of its input; it takes float32 (B, 3, H, W)."""
    model.reshape([batch, 3, SIDE, SIDE])
    settings = {"INFERENCE_NUM_THREADS": str(threads), "NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda given: request.infer([given])


def eager(network: nn.Module) -> Call:
    """A network as PyTorch's users run one; it takes float32 (B, 3, H, W)."""

    def call(given: Any) -> Tensor:
        with torch.inference_mode():
            return network(torch.from_numpy(given))  # type: ignore[no-any-return]

    return call


def ours(name: str) -> bytes:
    """Our network as an ONNX model in 8 bits."""
    bundle = untrained(name, SIDE)
    made: bytes = _quantised(bundle, onnx_model(bundle), None).SerializeToString()
    return made


def main() -> None:
    """Measure and print, and write what was printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="msresnet50")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each contestant in a round and a batch")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, help="a file for the table")
    args = parser.parse_args()
    use_threads(args.threads)
    threads, mine = torch.get_num_threads(), f"{args.model}, OpenVINO int8"
    network = timm().create_model(PEER).eval()
    theirs, model, rng = by_hand(network), ours(args.model), np.random.default_rng(0)
    cells: dict[str, list[str]] = {}
    for batch in BATCHES:
        pixels = rng.integers(0, 256, (batch, 3, SIDE, SIDE), dtype=np.uint8)
        noise = rng.normal(0, 1, pixels.shape).astype(np.float32)
        alone = (1, 3, SIDE, SIDE) if batch == 1 else None  # as `Running(batch_size=...)` chooses
        calls: dict[str, tuple[Call, Any]] = {
            mine: (OpenVino(model, "int8", args.model, Running(threads=threads, batch_size=batch), alone), pixels),
            f"timm's {PEER}, OpenVINO int8 by hand": (compiled(theirs, batch, threads), noise),
            f"timm's {PEER}, eager float32": (eager(network), noise),
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(args.rounds):
            for name, (call, given) in calls.items():
                times[name].append(median(call, [given], args.seconds))
        for name, spent in times.items():
            ratios = [other / mine_ for other, mine_ in zip(spent, times[mine], strict=True)]
            cells.setdefault(name, []).extend(
                (f"{1000 * statistics.median(spent):.1f}", f"{statistics.median(ratios):.2f}")
            )
    rows = ["| | ms, batch 1 | ratio | ms, batch 16 | ratio |", "|---|--:|--:|--:|--:|"]
    rows += [f"| {name} | {' | '.join(found)} |" for name, found in cells.items()]
    rows += ["", f"{SIDE} pixels; the ratio is how many times as fast {args.model} is; medians of {args.rounds} rounds"]
    publish("In 8 bits, beside timm's network", rows, args.output)


if __name__ == "__main__":
    main()

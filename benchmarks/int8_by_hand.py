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
import tempfile
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

from msresnet.deploy.benchmark.contestants import CALIBRATION, in_int8, untrained
from msresnet.infer.backends.graph import onnx_model
from msresnet.infer.backends.opened import open_predictor
from msresnet.infer.config import Running

Call = Callable[[Any], Any]
PEER, SIDE, BATCHES = "res2net50_26w_4s", 224, (1, 16)


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


def ours(name: str, path: Path) -> str:
    """Our network in 8 bits, as a file that anything here opens."""
    bundle = untrained(name, SIDE)
    path.write_bytes(in_int8(bundle, onnx_model(bundle), None).SerializeToString())
    return str(path)


def measured(calls: dict[str, tuple[Call, Any]], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds of each contestant's call in each round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, (call, given) in calls.items():
            times[name].append(median(call, [given], seconds))
    return times


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
    network, rng = timm().create_model(PEER).eval(), np.random.default_rng(0)
    cells: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        theirs, file = by_hand(network), ours(args.model, Path(folder) / "model.onnx")
        for batch in BATCHES:
            pixels = rng.integers(0, 256, (batch, 3, SIDE, SIDE), dtype=np.uint8)
            noise = rng.normal(0, 1, pixels.shape).astype(np.float32)
            how = Running(backend="openvino", threads=threads, batch_size=batch)
            calls: dict[str, tuple[Call, Any]] = {
                mine: (open_predictor(file, how).backend, pixels),
                f"timm's {PEER}, OpenVINO int8 by hand": (compiled(theirs, batch, threads), noise),
                f"timm's {PEER}, eager float32": (eager(network), noise),
            }
            times = measured(calls, args.rounds, args.seconds)
            for name, spent in times.items():
                ratio = statistics.median(a / b for a, b in zip(spent, times[mine], strict=True))
                cells.setdefault(name, []).extend((f"{1000 * statistics.median(spent):.1f}", f"{ratio:.2f}"))
    rows = ["| | ms, batch 1 | ratio | ms, batch 16 | ratio |", "|---|--:|--:|--:|--:|"]
    rows += [f"| {name} | {' | '.join(found)} |" for name, found in cells.items()]
    rows += ["", f"{SIDE} pixels; the ratio is how many times as fast {args.model} is; medians of {args.rounds} rounds"]
    publish("In 8 bits, beside timm's network", rows, args.output)


if __name__ == "__main__":
    main()

"""One contestant in a process of its own, so that its start and its memory are its own.

It opens its model, answers once, says so, and then measures when it is told to: a line of JSON in, a line out.

    python -m msresnet.deploy.benchmark.worker '{"path": "model.onnx", "backend": "openvino"}'
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.errors import MsresnetError
from msresnet.infer.config import Running

Answer = Callable[[npt.NDArray[np.uint8]], Any]
Shape = tuple[int, int, int]
WARM_UP = 2


def open_model(asked: dict[str, Any]) -> tuple[Answer, Shape, dict[str, Any]]:
    """What answers, the shape (C, H, W) that it takes, and what is known of it."""
    if "peer" in asked:
        from msresnet.deploy.benchmark.peers import open_peer

        return open_peer(asked["peer"], asked["size"], asked["device"], asked["threads"])
    how = running(asked)
    if "network" in asked:
        from msresnet.deploy.benchmark.contestants import untrained
        from msresnet.infer.backends.opened import run_bundle

        predictor = run_bundle(untrained(asked["network"], asked["size"]), how)
    else:
        from msresnet.infer.backends.opened import open_predictor

        predictor = open_predictor(asked["path"], how)
    trained, backend = predictor.trained, predictor.backend
    known = {"precision": backend.precision, "device": backend.device, "params": trained.params, "macs": trained.macs}
    return backend, (trained.preprocess.channels, *trained.preprocess.size), known


def running(asked: dict[str, Any]) -> Running:
    """How a model is run, of what its process was asked for; single images as those get them who ask for no more."""
    names = ("backend", "precision", "device", "threads")
    return Running(**{name: asked[name] for name in names if name in asked}, batch_size=1)


def measure(answer: Answer, images: npt.NDArray[np.uint8], seconds: float) -> list[float]:
    """The seconds of each call, for about so long, and of two at least."""
    spent: list[float] = []
    end = time.perf_counter() + seconds
    while len(spent) < WARM_UP or time.perf_counter() < end:
        start = time.perf_counter()
        answer(images)
        spent.append(time.perf_counter() - start)
    return spent


def most_memory() -> int:
    """The most bytes that this process held at once."""
    if sys.platform == "linux":  # what getrusage says there includes the parent's memory before this program began
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Serve the lines on standard input. An error that is not ours ends the process; its line stands last on stderr."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is not an answer
    try:
        for found in answers(json.loads(sys.argv[1])):
            print(json.dumps(found), file=out, flush=True)
    except MsresnetError as error:
        print(json.dumps({"error": str(error)}), file=out, flush=True)


def answers(asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is known of a model, once it has answered; then what each order on standard input finds."""
    answer, shape, known = open_model(asked)
    answer(np.zeros((1, *shape), np.uint8))
    yield known
    generator = np.random.default_rng(0)
    inputs: dict[int, npt.NDArray[np.uint8]] = {}
    for line in sys.stdin:
        order = json.loads(line)
        batch = order["batch"]
        if batch not in inputs:
            inputs[batch] = generator.integers(0, 256, (batch, *shape), dtype=np.uint8)
            measure(answer, inputs[batch], 0)
        yield {"seconds": measure(answer, inputs[batch], order["seconds"]), "memory": most_memory()}


if __name__ == "__main__":
    main()

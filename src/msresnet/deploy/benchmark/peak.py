"""What this machine's arithmetic reaches at most: large 3x3 convolutions one after the other, in each precision.

A network's share of it says how much there is left to gain, whatever the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from msresnet.errors import ResourceError

SHAPES = ((4, 28), (16, 14), (16, 7))
"""Images and their sides; which of them is fastest depends on the processor's caches."""
CHANNELS, DEPTH, REPEATS = 512, 4, 5
"""Convolutions in a row: what goes in and comes out is float32, and its conversion should not count."""
LARGEST = 5.0
"""Where numbers end in int8."""


def peaks(precisions: set[str], threads: int) -> dict[str, float]:
    """Operations a second (a multiply and an add are two) by precision, as far as OpenVINO and onnx are installed."""
    try:
        import onnx  # noqa: F401

        from msresnet.infer.backends.openvino import HINTS, load_core

        core = load_core()
    except (ImportError, ResourceError):
        return {}
    generator = np.random.default_rng(0)
    # What comes out of a convolution is then as large as what went in, so that one scale does for all.
    weights = generator.normal(0, 1 / np.sqrt(9 * CHANNELS), (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    found = {}
    for precision in sorted(precisions & {"fp32", "bf16", "int8"}):
        settings = {"INFERENCE_PRECISION_HINT": HINTS[precision], "INFERENCE_NUM_THREADS": str(threads)}
        rates = []
        for count, side in SHAPES:
            images = generator.normal(size=(count, CHANNELS, side, side)).astype(np.float32)
            contents = _convolutions(precision == "int8", images.shape, weights).SerializeToString()
            request = core.compile_model(core.read_model(contents), "CPU", settings).create_infer_request()
            seconds = _seconds(lambda r=request, i=images: r.infer([i]))  # type: ignore[misc]
            rates.append(2 * count * CHANNELS**2 * side**2 * 9 * DEPTH / seconds)
        found[precision] = max(rates)
    return found


def _seconds(call: Callable[[], Any]) -> float:
    """The least of some runs: what disturbs makes them only longer."""
    call()
    spent = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return min(spent)


def _convolutions(quantised: bool, shape: tuple[int, ...], weights: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
    """An ONNX model of 3x3 convolutions in a row, in int8 between quantising and dequantising where that is asked."""
    from onnx import TensorProto, helper, numpy_helper

    constants, nodes = [numpy_helper.from_array(weights, "w")], []
    if quantised:
        scale = np.array(np.abs(weights).max() / 127, np.float32)
        whole = np.clip(np.rint(weights / scale), -127, 127).astype(np.int8)
        values = {"w8": whole, "s": scale, "z": np.array(0, np.int8)}
        values |= {"a": np.array(LARGEST / 127, np.float32), "zu": np.array(128, np.uint8)}
        constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
        nodes = [helper.make_node("DequantizeLinear", ["w8", "s", "z"], ["w"])]
    for index in range(DEPTH):
        given, result = f"x{index}", f"x{index + 1}"
        if quantised:
            nodes.append(helper.make_node("QuantizeLinear", [given, "a", "zu"], [given + "q"]))
            nodes.append(helper.make_node("DequantizeLinear", [given + "q", "a", "zu"], [given + "d"]))
            given += "d"
        nodes.append(helper.make_node("Conv", [given, "w"], [result], pads=[1, 1, 1, 1]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x0", f"x{DEPTH}")]
    graph = helper.make_graph(nodes, "convolutions", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

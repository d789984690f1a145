"""What this machine's arithmetic reaches at most: a large 3x3 convolution, in each precision, measured here.

A network's share of it says how much there is left to gain, whatever the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from msresnet.errors import ResourceError

IMAGES, CHANNELS, SIDE, REPEATS = 4, 512, 28, 7
OPERATIONS = 2 * IMAGES * CHANNELS**2 * SIDE**2 * 9


def peaks(precisions: set[str], threads: int) -> dict[str, float]:
    """Operations a second (a multiply and an add are two) by precision, as far as OpenVINO and onnx are installed."""
    try:
        import onnx  # noqa: F401

        from msresnet.infer.backends.openvino import HINTS, load_core

        core = load_core()
    except (ImportError, ResourceError):
        return {}
    generator = np.random.default_rng(0)
    images = generator.normal(size=(IMAGES, CHANNELS, SIDE, SIDE)).astype(np.float32)
    weights = generator.normal(size=(CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    found = {}
    for precision in sorted(precisions & {"fp32", "bf16", "int8"}):
        settings = {"INFERENCE_PRECISION_HINT": HINTS[precision], "INFERENCE_NUM_THREADS": str(threads)}
        contents = _convolution(precision == "int8", weights).SerializeToString()
        compiled = core.compile_model(core.read_model(contents), "CPU", settings)
        request = compiled.create_infer_request()
        found[precision] = OPERATIONS / _seconds(lambda r=request: r.infer([images]))  # type: ignore[misc]
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


def _convolution(quantised: bool, weights: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
    """An ONNX model of one 3x3 convolution, in int8 between quantising and dequantising where that is asked."""
    from onnx import TensorProto, helper, numpy_helper

    constants = [numpy_helper.from_array(weights, "w")]
    nodes = []
    given, kept = "x", "w"
    if quantised:
        scale = np.array(np.abs(weights).max() / 127, np.float32)
        whole = np.clip(np.rint(weights / scale), -127, 127).astype(np.int8)
        values = {"w8": whole, "s": scale, "z": np.array(0, np.int8), "zu": np.array(128, np.uint8)}
        constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "zu"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "s", "zu"], ["xd"]),
            helper.make_node("DequantizeLinear", ["w8", "s", "z"], ["wd"]),
        ]
        given, kept = "xd", "wd"
    nodes.append(helper.make_node("Conv", [given, kept], ["y"], pads=[1, 1, 1, 1]))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [IMAGES, CHANNELS, SIDE, SIDE]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "convolution", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

"""Static quantisation to 8 bits, in ONNX with QuantizeLinear and DequantizeLinear: one file for every runtime.

Decisions:

- Activations are unsigned: what multiplies them on x86 takes unsigned with signed numbers, and a ReLU is then the lower
  bound of the range, at no cost.
- Weights are signed, with a scale for each output channel. They have 7 bits unless asked otherwise: without VNNI, two
  products of 8 bits are added into 16, which overflow.
- Only what feeds another convolution or matrix product is quantised. Normalising pixels, and what makes answers of the
  last maps, stay in float; so does all between a convolution and the next where groups are normalised: maps that
  nothing takes in 8 bits are not brought there and back.

N calibration images.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from msresnet.infer.backend import INPUT
from msresnet.infer.backends.artefact import missing

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Ready = npt.NDArray[np.uint8]
Edge = tuple[str, str, str]
LAYERS = ("Conv", "Gemm", "MatMul")
"""What has weights to quantise."""
PASSING = (
    "Relu", "Add", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Split", "Slice", "Resize", "Pad", "Clip",
)  # fmt: skip
"""What takes part between layers, so that maps stay in 8 bits from one to the next."""
BATCH = 8
FULL = 8


@dataclass(frozen=True)
class Float:
    """A float network ready to be quantised, and how large its activations get.

    Args:
        file: the network.
        ranges: where the ranges are kept, so that images are looked at once.
        layers: names of the layers that can be quantised, in order.
        others: names of what passes maps on between them.
        edges: (node, tensor, node) by name: what hands which tensor to whom.
    """

    file: Path
    ranges: Path
    layers: tuple[str, ...]
    others: tuple[str, ...]
    edges: frozenset[Edge]


@contextmanager
def calibrated(proto: ModelProto, images: Ready) -> Iterator[Float]:
    """Look at images (N, C, H, W) uint8 once. Raises ResourceError without the packages."""
    try:
        import onnx
        import onnxruntime.quantization  # noqa: F401 - it is needed later
    except ImportError as error:
        raise missing("onnx and onnxruntime", error) from error
    with tempfile.TemporaryDirectory(prefix="msresnet-") as place, _quiet():
        folder = Path(place)
        onnx.save_model(proto, folder / "float.onnx")
        inner = _inner(proto)
        layers = tuple(node.name for node in inner if node.op_type in LAYERS)
        others = tuple(node.name for node in inner if node.name not in layers)
        found = Float(folder / "float.onnx", folder / "ranges.json", layers, others, frozenset(_edges(proto)))
        _quantise(found, folder / "all.onnx", (), FULL, _Reader(images))
        yield found


def quantised(found: Float, kept: Collection[str], bits: int) -> ModelProto:
    """The network in 8 bits, but for the nodes that are kept in float; without a layer left, all of it is float."""
    import onnx

    if not set(found.layers) - set(kept):
        return onnx.load_model(found.file)
    place = found.file.with_name("quantised.onnx")
    with _quiet():
        _quantise(found, place, kept, bits, None)
    proto = onnx.load_model(place)
    _drop_detours(proto, found.edges)
    return proto


class _Reader:
    """Calibration images in batches, as ONNX Runtime asks for them."""

    def __init__(self, images: Ready) -> None:
        self.batches = iter([images[start : start + BATCH] for start in range(0, len(images), BATCH)])

    def get_next(self) -> dict[str, Any] | None:
        """One batch."""
        batch = next(self.batches, None)
        return None if batch is None else {INPUT: batch}


def _quantise(found: Float, place: Path, kept: Collection[str], bits: int, reader: _Reader | None) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    quantize_static(
        str(found.file),
        str(place),
        reader,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=[*LAYERS, *PASSING],
        nodes_to_quantize=[name for name in (*found.layers, *found.others) if name not in kept],
        per_channel=True,
        reduce_range=bits < FULL,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        # Biases are small, and as integers they are only an input that some runtimes do not take.
        extra_options={"QuantizeBias": False, "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        calibration_cache_path=str(found.ranges),
    )


def _edges(proto: ModelProto) -> Iterator[Edge]:
    makers = {name: node.name for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        yield from ((makers[name], name, node.name) for name in node.input if name in makers)


def _drop_detours(proto: ModelProto, edges: frozenset[Edge]) -> None:
    """Take out pairs of QuantizeLinear and DequantizeLinear behind which nothing can compute in 8 bits.

    Only where the float network has the same edge: else the lower bound of the range stands for a ReLU between.
    """
    nodes, outputs = list(proto.graph.node), {one.name for one in proto.graph.output}
    makers = {name: node for node in nodes for name in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for back in nodes:
        there = makers.get(back.input[0]) if back.op_type == "DequantizeLinear" else None
        # Weights have none before them.
        if there is None or len(readers[there.output[0]]) > 1 or back.output[0] in outputs:
            continue
        tensor, after = there.input[0], readers.get(back.output[0], [])
        before = makers[tensor].name if tensor in makers else ""
        if any(node.op_type in (*LAYERS, *PASSING) or (before, tensor, node.name) not in edges for node in after):
            continue
        for node in after:
            for place, name in enumerate(node.input):
                if name == back.output[0]:
                    node.input[place] = tensor
        proto.graph.node.remove(there)
        proto.graph.node.remove(back)
    used = {name for node in proto.graph.node for name in node.input}
    for tensor in [one for one in proto.graph.initializer if one.name not in used]:
        proto.graph.initializer.remove(tensor)


def _inner(proto: ModelProto) -> list[NodeProto]:
    """The nodes between the first layers and the last ones, with those; in the graph's order.

    A layer that nothing follows but arithmetic stays in float, unless it is a matrix product: its outputs are answers.
    So does what has no map in 8 bits to pass on, as the sum at the end of a normalisation.
    """
    nodes = list(proto.graph.node)
    makers = {name: node for node in nodes for name in node.output}
    after: set[str] = set()  # names of nodes that are layers or come after one
    for node in nodes:
        if node.op_type in LAYERS or any(name in makers and makers[name].name in after for name in node.input):
            after.add(node.name)
    before: set[str] = set()  # names of nodes that another layer comes after
    for node in reversed(nodes):
        if node.op_type in LAYERS or node.name in before:
            before |= {makers[name].name for name in node.input if name in makers}
    maps: set[str] = set()  # names of tensors in 8 bits
    inner: list[NodeProto] = []
    for node in nodes:
        passing = node.op_type in PASSING and any(name in maps for name in node.input)
        if (node.op_type in LAYERS or passing) and node.name in after and node.name in before:
            inner.append(node)
            maps |= set(node.output)
    return inner + [node for node in nodes if node.op_type in ("Gemm", "MatMul") and node.name not in before]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without ONNX Runtime's advice on the root logger."""
    logger = logging.getLogger()
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before

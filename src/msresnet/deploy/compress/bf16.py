"""Weights in bfloat16, half the bytes; the arithmetic follows where the processor has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.infer.backend import Backend, Exits, Outputs, Pixels
from msresnet.infer.backends.artefact import missing
from msresnet.nn.folding import fold
from msresnet.runtime import choose_precision

if TYPE_CHECKING:
    from onnx import ModelProto

FEWEST = 64
"""Smaller tensors stay as they are: scales and biases, whose bits count."""


def bf16_model(proto: ModelProto) -> ModelProto:
    """The same network with its weights in bfloat16, each widened to float32 where it is used.

    Raises ResourceError without the package.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise missing("onnx", error) from error
    smaller = onnx.ModelProto()
    smaller.CopyFrom(proto)
    graph = smaller.graph
    wide = [t for t in graph.initializer if t.data_type == TensorProto.FLOAT and np.prod(t.dims) >= FEWEST]
    casts = []
    for tensor in wide:
        values, narrow = numpy_helper.to_array(tensor), f"{tensor.name}_bf16"
        casts.append(
            helper.make_node("Cast", [narrow], [tensor.name], name=f"{tensor.name}_wide", to=TensorProto.FLOAT)
        )
        graph.initializer.remove(tensor)
        raw = rounded(values).tobytes()
        graph.initializer.append(helper.make_tensor(narrow, TensorProto.BFLOAT16, values.shape, raw, raw=True))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return smaller


def rounded(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """float32 to the nearest bfloat16, ties to even, as its 16 bits."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


class Rounded(Backend):
    """A bundle's folded network in torch, convolutions in bfloat16, on any processor: for answers, not for speed."""

    name, precision = "torch", "bf16"

    def __init__(self, bundle: Bundle) -> None:
        self.network = fold(bundle.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.preprocess = bundle.preprocess
        self.threads, self.reason = torch.get_num_threads(), "rounded to bfloat16 by torch"

    @torch.inference_mode()
    def __call__(self, images: Pixels) -> tuple[Outputs, Exits | None]:
        """Images (B, C, H, W) uint8 -> outputs (B, ...)."""
        with torch.autocast("cpu", torch.bfloat16):
            outputs: Tensor = self.network(self.preprocess.tensor(torch.as_tensor(images)))
        return outputs.float().numpy(), None


def has_bf16() -> tuple[bool, str]:
    """Whether this processor computes in bfloat16, in words too."""
    precision, why = choose_precision("auto", torch.device("cpu"))
    if precision == "bf16":
        return True, why
    return False, f"{why}, so that its speed here says nothing; OpenVINO then computes in float32 with these weights"

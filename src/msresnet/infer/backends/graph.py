"""A bundle's network as an ONNX graph: folded, from uint8 pixels at its size to its outputs, with what it carries.

Normalising is part of the graph, so that whoever runs it hands over pixels. Batch, height and width are free where the
network takes any size.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from msresnet.bundle import Bundle
from msresnet.data.preprocess import Preprocess
from msresnet.errors import ModelError, first_line
from msresnet.infer.backend import INPUT, OUTPUT
from msresnet.infer.backends.artefact import missing, stamp
from msresnet.infer.backends.group_norm import group_norm
from msresnet.nn.folding import fold
from msresnet.trained import exported_config

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
TRANSLATED: dict[Any, Any] = {torch.ops.aten.group_norm.default: group_norm}
"""What goes into ONNX in another way than torch's own, by torch's name."""


class FromPixels(nn.Module):
    """A network that takes uint8 pixels."""

    def __init__(self, network: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.network = network
        # (x / 255 - mean) / std as one product and one sum, in float64 until the end.
        mean, std = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (preprocess.mean, preprocess.std))
        self.scale, self.shift = nn.Buffer((1 / (255 * std)).float()), nn.Buffer((-mean / std).float())

    def forward(self, images: Tensor) -> Any:
        """Images (B, C, H, W) uint8 -> outputs."""
        return self.network(images.float() * self.scale + self.shift)


def program_of(bundle: Bundle) -> torch.export.ExportedProgram:
    """The folded network as torch.export sees it, with free sizes where it takes them. Raises ModelError."""
    network = FromPixels(fold(bundle.model), bundle.preprocess).eval()
    sample = torch.zeros(2, bundle.preprocess.channels, *bundle.preprocess.size, dtype=torch.uint8)
    auto = torch.export.Dim.DYNAMIC
    attempts: list[dict[int, Any]] = [{0: auto, 2: auto, 3: auto}, {0: auto}]
    failure: Exception | None = None
    for free in attempts:
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # about torch's own future
                return torch.export.export(network, (sample,), dynamic_shapes=(free,))
        except Exception as error:  # torch raises many kinds for a graph that it cannot follow
            failure = error
    assert failure is not None
    why = f"{type(failure).__name__}: {first_line(failure)}"
    raise ModelError(f"torch cannot export {bundle.architecture}", why=why) from failure


def dims_of(program: torch.export.ExportedProgram) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of an image and of its outputs, without the batch; -1 where a side is free."""
    given = next(node.meta["val"] for node in program.graph.nodes if node.name == INPUT)
    (answered,) = next(node.args[0] for node in program.graph.nodes if node.op == "output")
    shapes = (given.shape[1:], answered.meta["val"].shape[1:])
    first, second = (tuple(side if isinstance(side, int) else -1 for side in shape) for shape in shapes)
    return first, second


def onnx_model(bundle: Bundle, program: torch.export.ExportedProgram | None = None) -> ModelProto:
    """The network as an ONNX model in float32 that carries the bundle's config; `program` is what `program_of` gave.

    Raises ModelError where it does not go into ONNX, ResourceError without the packages.
    """
    try:
        import onnx  # noqa: F401 - the exporter needs both
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise missing("onnx and onnxscript", error) from error
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            found = torch.onnx.export(
                program_of(bundle) if program is None else program,
                (),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                custom_translation_table=TRANSLATED,
                verbose=False,
                optimize=True,
            )
    except torch.onnx.OnnxExporterError as error:
        why = first_line(error)
        raise ModelError(f"{bundle.architecture} does not go into ONNX", why=why) from error
    finally:
        quiet.setLevel(level)
    assert found is not None
    return stamp(_without_traces(found.model_proto), exported_config(bundle, "fp32"))


def _without_traces(proto: ModelProto) -> ModelProto:
    """The same object without what torch notes of where each node came from: half of a small file, with local paths."""
    graph = proto.graph
    for noted in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del noted.metadata_props[:]
    return proto

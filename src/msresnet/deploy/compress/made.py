"""A result of compression before it is written: at work in every runtime that is here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msresnet.bundle import Bundle
from msresnet.deploy.compress.config import PACKED, To
from msresnet.deploy.compress.table import Comparison
from msresnet.deploy.package import TRITON
from msresnet.hub import CARD, CONFIG, WEIGHTS
from msresnet.infer.backend import Backend
from msresnet.infer.backends.artefact import VERSION
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.backends.graph import onnx_model, program_of
from msresnet.infer.backends.onnxruntime import OnnxRuntime
from msresnet.infer.backends.openvino import OpenVino
from msresnet.infer.config import Engine, Running
from msresnet.infer.predictor import Predictor
from msresnet.train.observer import Observer

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch.export import ExportedProgram

Scores = dict[str, Any]


class Watcher(Observer, Protocol):
    """Who is told what happens: an observer of training that takes lines too."""

    def notes(self, texts: list[str]) -> None:
        """Some lines."""

    def compared(self, found: Comparison) -> None:
        """Both models side by side."""


@dataclass(frozen=True)
class Made:
    """A result that is not written yet.

    Args:
        predictors: the result at work.
        size: bytes of its weights' file.
        alike: whether its answers are the same in all of them.
        write: puts it into a folder, with its scores.
    """

    predictors: list[Predictor]
    size: int
    alike: bool
    write: Callable[[Path, Scores], None]


def files_of(to: To) -> tuple[str, ...]:
    """What the folder of a result holds."""
    return (TRITON, CARD, VERSION) if to in PACKED else (WEIGHTS, CONFIG, CARD)


def engines() -> tuple[Engine, ...]:
    """The runtimes for exported networks that are installed, ONNX Runtime first."""
    found: tuple[Engine, ...] = ()
    if find_spec("onnx") is not None and find_spec("onnxscript") is not None:
        found += ("onnxruntime",) if find_spec("onnxruntime") is not None else ()
        found += ("openvino",) if find_spec("openvino") is not None else ()
    return found


class Given:
    """A bundle, and the graphs that are made of it once."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @cached_property
    def program(self) -> ExportedProgram:
        """As torch exports it. Raises ModelError."""
        return program_of(self.bundle)

    @cached_property
    def proto(self) -> ModelProto:
        """As an ONNX model in float. Raises ModelError, ResourceError."""
        return onnx_model(self.bundle, self.program)

    def at_work(self, names: tuple[Engine, ...], device: str) -> list[Predictor]:
        """In some runtimes: torch on a device, the others on the CPU."""
        exported = [name for name in names if name != "torch"]
        native = [predictor_of(self.bundle, device)] if "torch" in names else []
        others = backends(self.proto, "fp32", exported) if exported else []
        return [*native, *(Predictor(self.bundle, backend) for backend in others)]

    @property
    def size(self) -> int:
        """Bytes of its tensors, as they are written."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.bundle.model.state_dict().values())


def backends(network: ModelProto, precision: str, names: Sequence[Engine]) -> list[Backend]:
    """A network in some runtimes, on the CPU."""
    contents, how = network.SerializeToString(), Running(device="cpu")
    kinds: dict[Engine, type[OnnxRuntime | OpenVino]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}
    return [kinds[name](contents, precision, "the network", how) for name in names]

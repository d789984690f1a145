"""A result of compression before it is written: at work in every runtime that is here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from msresnet.bundle import CARD, CONFIG, WEIGHTS, Bundle
from msresnet.deploy.compress.config import PACKED, To
from msresnet.deploy.compress.table import Comparison
from msresnet.deploy.package import TRITON
from msresnet.infer.backends.artefact import VERSION
from msresnet.infer.backends.opened import run_bundle
from msresnet.infer.config import Engine, Running
from msresnet.infer.predictor import Predictor
from msresnet.train.observer import Observer

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


def at_work(bundle: Bundle, names: tuple[Engine, ...], device: str) -> list[Predictor]:
    """A bundle in some runtimes; torch on a device, the others on the CPU."""
    return [run_bundle(bundle, Running(backend=n, device=device if n == "torch" else "cpu")) for n in names]


def bytes_of(bundle: Bundle) -> int:
    """Bytes of a bundle's tensors, as they are written."""
    return sum(tensor.numel() * tensor.element_size() for tensor in bundle.model.state_dict().values())

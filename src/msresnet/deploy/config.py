"""What a user can say about export. No torch here: `--help` reads this file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from msresnet.data.options import DataOptions
from msresnet.errors import at_least
from msresnet.run_folder import LATEST

Form = Literal["onnx", "openvino", "torch"]
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True, kw_only=True)
class ExportConfig(DataOptions):
    """Write a trained model for other runtimes and servers, and prove that it still gives the same answers."""

    model: str = LATEST
    """A run's folder, any other bundle, or hf:user/repo."""
    format: Form = "onnx"
    """onnx (ONNX Runtime, OpenVINO, Triton and most others), openvino (its own files), or torch (a torch.export
    program, for torch in C++ and Python)."""
    nms: bool = False
    """Of a detector, in ONNX: write detections.onnx as well, with non-maximum suppression inside, for programs that
    have none: boxes, scores, classes and image of each box that is left."""
    output: str | None = None
    """The folder; Triton and OpenVINO Model Server load it as it is, under its name. Default: exported/NAME, after the
    model's folder."""
    data: str | None = None
    """Images to compare the answers on, in any form that `train` takes. Default: the run's own."""
    images: int = 64
    """On how many images the exported model is compared with the original."""
    max_batch: int = 64
    """The largest batch that Triton may put together."""

    def __post_init__(self) -> None:
        at_least({"images": (self.images, 1), "max-batch": (self.max_batch, 1)})

"""Other implementations to compare with. They are never imported by the package itself."""

from __future__ import annotations

import warnings
from functools import cache
from types import ModuleType

import pytest
import torch


@cache
def timm() -> ModuleType:
    """timm, or a skip. Its torchvision asks for operators that a CPU build of torch lacks; their names are enough."""
    if torch.version.cuda is None:  # beside a CUDA build, torchvision brings the operators itself
        library = torch.library.Library("torchvision", "DEF")
        for schema in SCHEMAS:
            library.define(schema)
        _kept.append(library)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: ModuleType = pytest.importorskip("timm")
        return module


SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[torch.library.Library] = []
"""A library's definitions live as long as its object."""

"""timm, which the benchmarks compare with."""

from __future__ import annotations

import warnings
from functools import cache
from types import ModuleType

import torch


@cache
def timm() -> ModuleType:
    """Load timm. Its torchvision asks for operators that a CPU build of torch lacks; their names are enough."""
    if torch.version.cuda is None:  # beside a CUDA build, torchvision brings the operators itself
        library = torch.library.Library("torchvision", "DEF")
        for schema in ("nms(Tensor a, Tensor b, float c) -> Tensor", "qnms(Tensor a, Tensor b, float c) -> Tensor"):
            library.define(schema)
        _kept.append(library)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm as module
        import timm.optim

    return module


_kept: list[torch.library.Library] = []
"""A library's definitions live as long as its object."""

"""Networks of other libraries, as their users run them: eager, in float32; where they are installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.errors import ResourceError, UsageError

Known = dict[str, Any]
Opened = tuple[Callable[[npt.NDArray[np.uint8]], Any], tuple[int, int, int], Known]
LIBRARIES = ("timm", "torchvision", "keras")


def is_peer(name: str) -> bool:
    """Whether a name is that of another library's network."""
    return name.partition(":")[0] in LIBRARIES and ":" in name


def open_peer(name: str, size: int, device: str, threads: int | None) -> Opened:
    """What answers uint8 (B, 3, size, size), its shape, and what is known of it. Raises UsageError, ResourceError."""
    library, _, network = name.partition(":")
    try:
        if library != "keras":
            _name_operators()
        module = importlib.import_module(library)
    except (ImportError, RuntimeError) as error:  # torchvision raises the latter beside another build of torch
        why = " ".join(str(error).split())[:200]
        raise ResourceError(f"{name} needs {library}", why=why, hint=f"pip install {library}") from error
    return _keras(module, network, size) if library == "keras" else _torch(module, name, size, device, threads)


def _name_operators() -> None:
    """Let torchvision be imported beside a CPU build of torch, which lacks its operators; networks need none."""
    import torch

    if torch.version.cuda is None and not _KEPT:
        library = torch.library.Library("torchvision", "DEF")
        for schema in OPERATORS:
            library.define(schema)
        _KEPT.append(library)


OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_KEPT: list[Any] = []
"""Definitions live as long as their library's object."""


def _torch(module: Any, name: str, size: int, device: str, threads: int | None) -> Opened:
    import torch

    from msresnet.runtime import choose_device

    library, _, network = name.partition(":")
    where = choose_device(device)[0]

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        made = module.create_model(network) if library == "timm" else module.models.get_model(network)
    except (RuntimeError, ValueError) as error:
        what, hint = f"{library} has no network {network!r}", f"{library}:resnet18"
        raise UsageError(what, why=str(error)[:200], hint=hint) from error
    made.eval().to(where)

    def answer(images: npt.NDArray[np.uint8]) -> Any:
        with torch.inference_mode():
            found = made(torch.from_numpy(images).to(where).float().div_(255))
            if where.type == "cuda":
                torch.cuda.synchronize(where)
            return found

    params = sum(p.numel() for p in made.parameters())
    return answer, (3, size, size), {"precision": "fp32", "device": str(where), "params": params, "macs": 0}


def _keras(module: Any, network: str, size: int) -> Opened:
    made = getattr(module.applications, network, None)
    if made is None:
        raise UsageError(f"keras.applications has no {network!r}", hint="keras:ResNet50")
    model = made(weights=None, input_shape=(size, size, 3))

    def answer(images: npt.NDArray[np.uint8]) -> Any:
        return model.predict_on_batch(images.transpose(0, 2, 3, 1).astype(np.float32) / 255)

    return answer, (3, size, size), {"precision": "fp32", "device": "cpu", "params": model.count_params(), "macs": 0}

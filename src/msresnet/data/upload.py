"""Tensors of the CPU on the device that computes with them."""

from __future__ import annotations

from threading import Lock

import torch
from torch import Tensor

UPLOADING = Lock()
"""Held by whoever brings a batch to a GPU: no thread may take memory there while another records a CUDA graph."""


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device, without waiting for what a GPU is still computing."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # from other memory, a copy holds up who asks for it


def upload(tensor: Tensor, images: Tensor) -> Tensor:
    """Some numbers where the images are, fractions in the images' own type."""
    return sent(tensor.to(images.dtype) if tensor.is_floating_point() else tensor, images.device)

"""Weights divided among the processes (FSDP, arXiv 2304.11277), and whole again where they leave the training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(model: nn.Module, device: torch.device, world: int) -> None:
    """Divide a network's parameters among all processes, in place: child by child, then what is left.

    Children are gathered when they are computed and let go after it. BN statistics stay whole on every process.
    """
    mesh = init_device_mesh(device.type, (world,))
    for child in model.children():
        if any(True for _ in child.parameters()) and not isinstance(child, nn.ModuleList):
            fully_shard(child, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is divided, gathered on every process (all of them must ask); any other one as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`whole` for all tensors of a state."""
    return {name: whole(tensor) for name, tensor in state.items()}


def own(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def laid_as(tensor: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor, divided or ordered in memory as another one of its shape is."""
    if isinstance(pattern, DTensor):
        return distribute_tensor(tensor.to(pattern.device), pattern.device_mesh, pattern.placements)
    return torch.empty_like(pattern, dtype=tensor.dtype).copy_(tensor)


def load_whole(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a whole state into a network that may be divided. Raises KeyError, RuntimeError as torch does."""
    like = model.state_dict()
    model.load_state_dict(
        {n: laid_as(t, like[n]) if n in like and like[n].shape == t.shape else t for n, t in state.items()}
    )

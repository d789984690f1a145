"""The processes that train together, on accelerate. Alone, everything here is the identity.

Every process holds all data and draws the same order; of each batch it takes its part, so that the number of processes
changes little but the speed. What only one can decide (time, signals, a full disk) is agreed on, since a process that
stops by itself leaves the others waiting.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, distributed, nn

from msresnet.errors import MsresnetError, PeerLostError, first_line
from msresnet.runtime import Precision

T = TypeVar("T")
LINGER = 0.2
"""Seconds in which gloo's threads finish what they hold."""
PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others, a slow validation or a broken link included."""


class Processes:
    """This process and its peers.

    Args:
        device: where this process computes.
        precision: of the network's arithmetic in training.

    Attributes:
        rank: the number of this process; the first writes and reports.
        world: how many there are.
        device: where this process computes.
    """

    def __init__(self, device: torch.device, precision: Precision) -> None:
        # accelerate keeps its choices for the whole process; another fit in the same process may choose otherwise.
        for shared in (AcceleratorState, GradientState, PartialState):
            shared._reset_state()
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
        # It finds the launcher, the peers and their devices. A step goes without its wrappers: the optimiser's looks
        # for an optional package on the disk each time.
        accelerator = Accelerator(
            mixed_precision="no",  # whatever its launcher was told
            cpu=device.type == "cpu",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )
        self.precision = precision
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        found: torch.device = accelerator.device
        # With its number: other threads have another current device.
        self.device = torch.device("cuda", torch.cuda.current_device()) if found.type == "cuda" else found

    def autocast(self) -> AbstractContextManager[object]:
        """Within this, networks compute in the training's precision; what they give may be in it, too."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def wrapped(self, model: nn.Module) -> nn.Module:
        """A network on this process's device whose gradients become the mean of all processes'."""
        if self.world == 1:
            return model
        places = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=places)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return bool(self.rank == 0)

    def agree(self, values: Sequence[float]) -> list[list[float]]:
        """One row of numbers from each process, on all of them."""
        if self.world == 1:
            return [list(values)]
        mine = torch.tensor(values, dtype=torch.float64, device=self.device)
        rows = [torch.empty_like(mine) for _ in range(self.world)]
        distributed.all_gather(rows, mine)
        return torch.stack(rows).tolist()

    def on_main(self, action: Callable[[], T]) -> T:
        """Do something on the first process only; all get what it returned, or its failure if it is one of ours."""
        if self.world == 1:
            return action()
        box: list[Any] = [None, None]
        if self.first:
            try:
                box[0] = action()
            except MsresnetError as failure:
                box[1] = failure
        distributed.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise box[1]
        return box[0]  # type: ignore[no-any-return]

    def gather(self, outputs: Tensor, total: int) -> Tensor:
        """Rows of process r (rows r, r + world, ... of a whole of `total`) from all processes -> (total, ...)."""
        if self.world == 1:
            return outputs
        most = -(-total // self.world)
        padded = outputs.new_zeros(most, *outputs.shape[1:])
        padded[: len(outputs)] = outputs
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        distributed.all_gather(parts, padded)
        return torch.stack(parts, 1).flatten(0, 1)[:total]

    def share_buffers(self, model: nn.Module) -> None:
        """Give all processes the buffers (BN statistics) of the first."""
        if self.world > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)

    def close(self) -> None:
        """Leave the group, so that the interpreter ends without complaint."""
        if distributed.is_available() and distributed.is_initialized():
            # gloo's thread takes Python's lock to let go of the last tensors, and its destructor waits for the thread
            # while it holds the lock: now and then neither would go on.
            time.sleep(LINGER)
            distributed.destroy_process_group()


@contextmanager
def peers_named(world: int) -> Iterator[None]:
    """Turn the failure of a collective operation into a PeerLostError."""
    try:
        yield
    except RuntimeError as error:
        if world == 1 or not _is_of_peers(error):
            raise
        raise PeerLostError(
            "another process of this training is gone, or cannot be reached",
            where=f"process {os.environ.get('RANK', '?')} of {world}",
            why=first_line(error),
            hint="look at the log of the process that ended first, then continue with --resume",
        ) from error


def _is_of_peers(error: RuntimeError) -> bool:
    words = (
        "gloo",
        "nccl",
        "connection",
        "peer",
        "timed out",
        "process group",
        "recvbytes",
        "sendbytes",
        "broken pipe",
    )
    return isinstance(error, distributed.DistError) or any(word in str(error).lower() for word in words)


def on_main(action: Callable[[], T], device: torch.device) -> T:
    """`Processes.on_main` before there is a training."""
    if world_size() == 1:
        return action()
    with peers_named(world_size()):
        return Processes(device, "fp32").on_main(action)


def world_size() -> int:
    """How many processes a launcher (torchrun, accelerate, SLURM through them) started for this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among them."""
    return int(os.environ.get("RANK", "0"))

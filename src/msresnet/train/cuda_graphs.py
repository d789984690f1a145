"""The network's part of a step on a GPU, recorded once for each shape of batch and then replayed.

A GPU is done with a small network's kernel before Python has launched the next one. A CUDA graph launches all of them
at once, forwards and backwards (torch.cuda.make_graphed_callables); augmentation, loss and optimiser stay as they are.

B batch, C channels, H and W pixels.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from msresnet.data.upload import UPLOADING
from msresnet.errors import first_line

MOST = 16
"""Shapes that are recorded; a training has one for each of its sizes, the search for a batch size some more."""


class Recorded(nn.Module):
    """A network in training, by replays.

    A recording holds as long as the same parameters learn and each layer stays in its mode; whoever changes that wraps
    the network again. What cannot be recorded runs as it is.

    Args:
        model: on a GPU; called with images (B, C, H, W) and `exits=True`, it gives the answers of all exits.

    Attributes:
        failure: why nothing more is recorded, '' while all is well.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        gc.collect()  # recordings refer to themselves: those of a wrapper that was dropped hold memory until then
        self.model, self.failure = model, ""
        self.replays: dict[tuple[int, ...], Callable[..., object]] = {}
        # One store of memory for the maps of all: a step is over before the next one, of whatever shape, begins.
        self.pool = torch.cuda.graph_pool_handle()
        # Gradients come from the stream that was recorded, and torch waits for it, as it should.
        warnings.filterwarnings("ignore", message="The AccumulateGrad node's stream does not match")

    def forward(self, images: Tensor, *, exits: bool) -> Sequence[Tensor]:
        """Images (B, C, H, W) -> the answers of all exits; they are overwritten by the next call."""
        shape = tuple(images.shape)
        if shape not in self.replays:
            if len(self.replays) >= MOST:
                self.failure = f"batches of more than {MOST} shapes; the first ones are recorded"
            self.replays[shape] = self._recorded(images)
        return self.replays[shape](images)  # type: ignore[return-value]  # torch says object of all recordings

    def _recorded(self, images: Tensor) -> Callable[..., object]:
        """The network for batches of one shape, recorded if that is possible; it is as it was before."""
        if self.failure:
            return _Answers(self.model)
        held = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        dice = torch.cuda.get_rng_state(images.device)
        # The usual cache of converted weights would be part of the recording, and never converted again.
        autocast = torch.autocast(
            "cuda", torch.get_autocast_dtype("cuda"), enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False
        )
        try:
            with UPLOADING, autocast:
                found: Callable[..., object] = torch.cuda.make_graphed_callables(
                    _Answers(self.model), (images.clone(),), allow_unused_input=True, pool=self.pool
                )
        except RuntimeError as error:  # a network that waits for the GPU, or too little memory
            self.failure = first_line(error)
            torch.cuda.empty_cache()
            found = _Answers(self.model)
        finally:  # batch statistics and random numbers of the trials
            with torch.no_grad():
                for buffer, before in held:
                    buffer.copy_(before)
            torch.cuda.set_rng_state(dice, images.device)
        return found


class _Answers(nn.Module):
    """A network that gives a tuple, as recordings want it; each recording takes over one of these."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (B, C, H, W) -> the answers of all exits."""
        return tuple(self.model(images, exits=True))

"""Which images an epoch learns from, and in which order. N images, B batch."""

from __future__ import annotations

import torch
from torch import Tensor

from msresnet.data.order import balanced_order, epoch_order, mix_seed
from msresnet.train.config import TrainConfig

ALL_AGAIN = 0.9
"""Share of the training after which every image is learnt from again."""
SKIPPING = 2
"""Beside seed and epoch, what makes the draw of skipped images another one than those of order and sizes."""


class Selection:
    """The order of each epoch: all images, all classes equally often, or all but many of those that are well known.

    An image is well known when its loss, as last seen, is below the mean of all. `config.skip_easy` of those are left
    out, others in each epoch, so the time goes to what is not learnt yet (arXiv 2303.04947, without its weights: the
    hard images are to count more; arXiv 1910.00762). The first epoch has no losses to go by, and the last tenth of the
    training, when the learning rate is low, learns from all, so that nothing is forgotten.

    Args:
        targets: class index of each image (N,).
        config: says which.
    """

    def __init__(self, targets: Tensor, config: TrainConfig) -> None:
        self.targets, self.config = targets, config
        self.losses = torch.full((len(targets),), torch.inf)
        self.current: Tensor | None = None

    def order(self, epoch: int, progress: float, *, begun: bool) -> Tensor:
        """Indices of an epoch that begins at this share of the training; of one that has begun, those it began with."""
        if self.current is None or not begun:
            self.current = self._drawn(epoch, progress)
        return self.current

    def learnt(self, indices: Tensor, losses: Tensor) -> None:
        """Note the losses (B,) of some images (B,)."""
        self.losses[indices] = losses.float().cpu()

    def _drawn(self, epoch: int, progress: float) -> Tensor:
        seed, share = self.config.seed, self.config.skip_easy
        if self.config.balance == "sample":
            return balanced_order(self.targets, seed, epoch)
        order = epoch_order(len(self.targets), seed, epoch)
        known = self.losses.isfinite()
        if not share or progress >= ALL_AGAIN or not known.any():
            return order
        generator = torch.Generator().manual_seed(mix_seed(seed, epoch, 0, SKIPPING))
        skipped = (self.losses < self.losses[known].mean()) & (torch.rand(len(order), generator=generator) < share)
        return order[~skipped[order]]

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint needs to go on in the middle of an epoch; nothing where the order is a matter of seeds."""
        if not self.config.skip_easy or self.current is None:
            return {}
        return {"losses": self.losses, "order": self.current}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `tensors`. Raises ValueError for losses of another number of images."""
        if not tensors:
            return
        if tensors["losses"].shape != self.losses.shape:
            raise ValueError(f"losses of {len(tensors['losses'])} images for {len(self.losses)}")
        self.losses, self.current = tensors["losses"].clone(), tensors["order"].clone()

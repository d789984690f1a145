"""What a network costs: parameters and multiply-accumulates for one image."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from msresnet.models.base import ImageModel
from msresnet.nn.folding import fold


def exit_macs(model: ImageModel, size: tuple[int, int] | None = None) -> list[int]:
    """Multiply-accumulates of the folded network up to and with each exit, those before it included."""
    height, width = size or model.config.img_size
    was_training = model.training
    folded = fold(model.eval())
    model.train(was_training)
    state = [torch.zeros(1, model.in_chans, height, width, device=next(model.parameters()).device)]
    totals = []
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for index in range(model.num_exits):
            state, _ = folded.advance(state, index)
            totals.append(int(counter.get_total_flops() // 2))
    return totals


def count_macs(model: ImageModel, size: tuple[int, int] | None = None) -> int:
    """Multiply-accumulates of the folded network for one image of (H, W) pixels (default: the size it is meant for)."""
    height, width = size or model.config.img_size
    reference = next(model.parameters())
    was_training = model.training
    folded = fold(model.eval())
    model.train(was_training)
    image = torch.zeros(1, model.in_chans, height, width, device=reference.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        folded(image)
    return int(counter.get_total_flops() // 2)

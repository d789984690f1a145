"""Networks whose every number matters: BN with statistics and weights that are not identities."""

from __future__ import annotations

import torch
from torch import nn


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Fill BN's weights and statistics, and zero-initialised gates, with random numbers; evaluation mode.

    Scales are at most 1: with larger ones the activations of 152 layers grow to 1e9, and attention on such numbers
    turns the rounding of float32 into other answers.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for tensor, low, high in (
                (module.weight, 0.25, 1.0),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 1.5),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    for name, parameter in model.named_parameters():
        if name.endswith("scale"):
            parameter.data.uniform_(0.2, 0.8, generator=generator)
    return model.eval()


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / b.abs().max())

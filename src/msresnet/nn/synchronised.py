"""Batch normalisation whose statistics are those of all processes together, on any device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BN over the images of all processes: in training, means and variances are theirs together.

    PyTorch's own is for GPUs alone. The mean goes round before the squares do, so that nothing is lost to cancellation.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the base class's name
        """(B, C, H, W) -> the same shape."""
        if not self.training or not distributed.is_initialized():
            return super().forward(input)
        x = input if input.dtype == torch.float64 else input.float()
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = _total(torch.cat((x.sum((0, 2, 3)), count)))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = x - mean.view(1, -1, 1, 1)
        variance = _total(centred.square().sum((0, 2, 3))) / total
        self._follow(mean.detach(), variance.detach(), total)
        normalised = centred * (variance + self.eps).rsqrt().view(1, -1, 1, 1)
        if self.affine:
            normalised = normalised * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return normalised.to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor, total: Tensor) -> None:
        """Move the running statistics, as BN does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        factor = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, factor)
        self.running_var.lerp_(variance * total / (total - 1), factor)


class _Total(torch.autograd.Function):
    """The sum over all processes; each one's gradient reaches every summand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


def _total(x: Tensor) -> Tensor:
    return _Total.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def synchronise(model: nn.Module) -> None:
    """Replace all BN of a network, in place; names, weights and statistics stay."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d) and not isinstance(child, SyncBatchNorm2d):
                setattr(parent, name, _shared(child))


def _shared(norm: nn.BatchNorm2d) -> SyncBatchNorm2d:
    new = SyncBatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    new.load_state_dict(norm.state_dict())
    new.train(norm.training)
    for name, parameter in norm.named_parameters():
        new.get_parameter(name).requires_grad_(parameter.requires_grad)
    return new

"""Muon: steps whose singular values are all about one (K. Jordan et al., 2024, kellerjordan.github.io/posts/muon).

The momentum of a weight matrix is orthogonalised by a few Newton-Schulz iterations; a convolution (out, in, h, w)
counts as the matrix (out, in h w). The step is then scaled to the length that AdamW's has, so that both share one
learning rate and one weight decay (arXiv 2502.16982, section 2.2). What is not a matrix inside the network (biases, BN,
the classifier) is trained by AdamW.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: as steep at zero as keeps singular values up to one near one."""
ITERATIONS = 5
ADAM_LENGTH = 0.2
"""The root mean square of a typical step of AdamW, in learning rates."""


def orthogonalise(matrices: Tensor) -> Tensor:
    """(N, R, C) -> the same shape, each matrix with its singular values moved to between about 0.7 and 1.2."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(ITERATIONS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)  # a x + (b g + c g g) x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for groups with 'orthogonal' set, AdamW for the others.

    Args:
        groups: each with 'params', 'weight_decay' and 'orthogonal'.
        lr: of both.
        momentum: Nesterov momentum of the first, first beta of the second.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float = 0.95) -> None:
        groups = [{**g, **({"momentum": momentum} if g["orthogonal"] else {"betas": (momentum, 0.99)})} for g in groups]
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; returns what a closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                (self._orthogonal if group["orthogonal"] else self._adam)(params, group)
        return loss

    def _orthogonal(self, params: list[Tensor], group: dict[str, Any]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum"] for p in params]
        gradients = [p.grad for p in params if p.grad is not None]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        steps = torch._foreach_lerp(gradients, buffers, group["momentum"])
        alike: dict[torch.Size, list[int]] = {}
        for i, p in enumerate(params):
            alike.setdefault(p.shape, []).append(i)
        for shape, places in alike.items():  # equal shapes in one batched product
            flat = torch.stack([steps[i].reshape(shape[0], -1) for i in places])
            length = ADAM_LENGTH * max(flat.shape[1:]) ** 0.5
            for i, moved in zip(places, orthogonalise(flat), strict=True):
                params[i].add_(moved.reshape(shape), alpha=-group["lr"] * length)

    def _adam(self, params: list[Tensor], group: dict[str, Any]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p].update(step=torch.zeros(()), mean=torch.zeros_like(p), square=torch.zeros_like(p))
        states = [self.state[p] for p in params]
        gradients = [p.grad for p in params if p.grad is not None]
        beta1, beta2 = group["betas"]
        means, squares, steps = ([s[key] for s in states] for key in ("mean", "square", "step"))
        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        count = float(steps[0])
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, (1 - beta2**count) ** 0.5)
        torch._foreach_add_(roots, 1e-8)
        torch._foreach_addcdiv_(params, means, roots, -group["lr"] / (1 - beta1**count))

"""Optimisers, schedules and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from msresnet.train.config import TrainConfig
from msresnet.train.layers import classifiers, layer_depths
from msresnet.train.muon import Muon
from msresnet.train.sharding import laid_as, own, whole

DEFAULT_DECAY = {"adamw": 0.05, "sgd": 5e-4, "muon": 0.05}
NARROW = 1_000_000
"""Parameters below which a network counts as narrow."""
MOMENTUM = 0.9


def default_lr(optimizer: str, batch_size: int, parameters: int) -> float:
    """The highest learning rate: for SGD linear in the batch size (arXiv 1706.02677), for the others with its root.

    Narrow networks bear larger steps of AdamW than wide ones (arXiv 2203.03466); measured on MNIST and CIFAR-10. Muon's
    steps are as long as AdamW's, so its learning rates are too.
    """
    ratio = batch_size / 128
    if optimizer == "sgd":
        return 0.3 * ratio
    return (8e-3 if parameters < NARROW else 2e-3) * math.sqrt(ratio)


def build_optimizer(model: nn.Module, config: TrainConfig, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW, SGD with Nesterov momentum, or Muon; no decay on biases, BN and gates (one dimension).

    With `config.layer_decay`, a layer's learning rate is that of the next one times the factor (arXiv 1801.06146,
    section 3.2); the last layer, the classifier, has the full one.
    """
    groups = _groups(model, weight_decay, config)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr, momentum=MOMENTUM, nesterov=True, fused=True)
    if config.optimizer == "muon":
        return Muon(groups, lr, momentum=MOMENTUM)
    return torch.optim.AdamW(groups, lr, betas=(MOMENTUM, 0.99), fused=True)


def _groups(model: nn.Module, weight_decay: float, config: TrainConfig) -> list[dict[str, Any]]:
    """Parameters that share a decay and a scale of the learning rate; for Muon the classifier apart."""
    layer_decay, muon = config.layer_decay, config.optimizer == "muon"
    depths = layer_depths(model) if layer_decay < 1 else {}
    deepest = max(depths.values(), default=0)
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    heads = {id(p) for layer in classifiers(model) for p in layer.parameters()} if muon else set()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = layer_decay ** (deepest - depths[name]) if depths else 1.0
            key = (parameter.ndim > 1, parameter.ndim > 1 and id(parameter) not in heads, scale)
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": params, "weight_decay": weight_decay * decays, "scale": scale, "orthogonal": hidden}
        for (decays, hidden, scale), params in groups.items()
    ]


class Pace(NamedTuple):
    """What a schedule says at one moment: a factor of the learning rate, and the momentum (None: as it is)."""

    factor: float
    momentum: float | None = None


def pace(schedule: str, progress: float, warmup: float) -> Pace:
    """The pace after a share `progress` (0 to 1) of the training.

    'cosine' rises linearly over the share `warmup`, then falls along a half cosine (arXiv 1608.03983), 'linear' along a
    line. 'one-cycle' rises for 30 %, then falls, while the momentum goes from 0.95 to 0.85 and back (arXiv 1708.07120).
    """
    if schedule == "one-cycle":
        rise = 0.3
        if progress < rise:
            part = progress / rise
            return Pace(0.04 + 0.96 * _half_cosine(1 - part), 0.95 - 0.1 * part)
        part = (progress - rise) / (1 - rise)
        return Pace(max(1e-4, _half_cosine(part)), 0.85 + 0.1 * part)
    if progress < warmup:
        return Pace(max(1e-3, progress / warmup))
    part = (progress - warmup) / (1 - warmup)
    return Pace(max(1e-3, 1 - part if schedule == "linear" else _half_cosine(part)))


def _half_cosine(part: float) -> float:
    """From 1 at 0 to 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, part)))


def set_pace(optimizer: torch.optim.Optimizer, lr: float, now: Pace) -> None:
    """Apply a pace to all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr * now.factor * group["scale"]
        if now.momentum is None:
            continue
        if "betas" in group:
            group["betas"] = (now.momentum, group["betas"][1])
        else:
            group["momentum"] = now.momentum


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients as one vector, as torch's `get_total_norm` without its search for devices."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


AT_ONCE, EVERY = 20, 4
"""Steps after each of which weights are averaged, and later from one averaging to the next: it walks through all of
them, and by then the average is of more than EVERY steps."""


class AveragedWeights:
    """An exponential moving average of a network's weights and BN statistics, by name.

    The decay for each step is reached gradually, min(decay, (1 + n) / (10 + n)) after n steps, so that short runs
    average as well. From AT_ONCE steps on, every EVERYth is averaged, with the decay of so many.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.state = {name: t.detach().clone() for name, t in model.state_dict().items()}
        source = {name: t.detach() for name, t in model.state_dict().items()}
        floating = [name for name, t in self.state.items() if t.is_floating_point()]
        self.averaged, self.source = [own(self.state[n]) for n in floating], [own(source[n]) for n in floating]
        self.copied = [(self.state[n], source[n]) for n in self.state if n not in set(floating)]

    @torch.no_grad()
    def update(self) -> None:
        """After a step: go towards the network's present weights."""
        self.steps += 1
        every = 1 if self.steps <= AT_ONCE else EVERY
        if self.steps % every:
            return
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) ** every
        torch._foreach_lerp_(self.averaged, self.source, 1 - decay)
        for mine, theirs in self.copied:
            mine.copy_(theirs)

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from whole tensors. Raises KeyError for names that do not fit."""
        if state.keys() != self.state.keys():
            raise KeyError(f"averaged weights of other names: {sorted(state.keys() ^ self.state.keys())[:5]}")
        for name, tensor in state.items():
            own(self.state[name]).copy_(own(laid_as(tensor, self.state[name])))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as named tensors: '<parameter>.<entry>'."""
    state = optimizer.state_dict()["state"]
    return {
        f"{i}.{key}": whole(value)
        for i, entries in state.items()
        for key, value in entries.items()
        if value is not None
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore what `optimizer_tensors` gave."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        like = parameters[int(index)]
        # Fused optimisers walk memory in order, so the state must lie as the weights do (channels-last).
        laid = laid_as(tensor, like) if tensor.shape == like.shape else tensor
        state.setdefault(int(index), {})[key] = laid
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

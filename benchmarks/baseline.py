"""A network of timm in a plain PyTorch loop, as well tuned as practice knows: what msresnet has to be better than.

Batches in memory, channels-last, crops and mirror images, SGD with Nesterov momentum, no decay on BN and biases, a
warm-up and a half cosine over the measured time, label smoothing, averaged weights; bfloat16 by autocast where the
hardware computes in it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from benchmarks.images import Images, mirrored, random_crops
from benchmarks.oracles import timm
from benchmarks.tables import Run
from torch import Tensor, nn

from msresnet.runtime import choose_precision

EVALUATION_BATCH = 1_000


@dataclass(frozen=True)
class Settings:
    """How the loop trains.

    Args:
        lr: highest learning rate for a batch of 128; it goes with the batch size.
        average: decay of the averaged weights for a step, reached gradually.
    """

    seconds: float
    batch_size: int = 128
    lr: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.15
    label_smoothing: float = 0.1
    crop: int = 4
    average: float = 0.995


def network(name: str, classes: int) -> nn.Module:
    """A timm network; a ResNet gets the usual stem for small images, 3x3 of stride 1 without pooling."""
    model: nn.Module = timm().create_model(name, num_classes=classes)
    if name.startswith("resnet"):
        model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    return model


def pace(progress: float, warmup: float) -> float:
    """Factor of the learning rate: up along a line, down along half a cosine."""
    if progress < warmup:
        return max(0.02, progress / warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def batches(images: Images, settings: Settings, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised, changed (B, C, H, W) and targets (B,) without end."""
    device, total = images.train.device, len(images.train)
    size = min(settings.batch_size, total)
    while True:
        order = torch.randperm(total, generator=generator).to(device)
        for start in range(0, total - size + 1, size):
            chosen = order[start : start + size]
            flips = (torch.rand(size, generator=generator) < 0.5).to(device)
            x = mirrored(images.preprocess.tensor(images.train[chosen]), flips)
            yield random_crops(x, settings.crop, generator), images.train_targets[chosen]


def optimizer_for(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """SGD, fused."""
    wide = [p for p in model.parameters() if p.ndim > 1]
    narrow = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": wide, "weight_decay": settings.weight_decay}, {"params": narrow, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, settings.lr, momentum=settings.momentum, nesterov=True, fused=True)


class Averaged:
    """An exponential moving average of a network, statistics included."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        pairs = zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
        floating = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]
        self.mine, self.theirs = [m for m, _ in floating], [t for _, t in floating]

    @torch.no_grad()
    def update(self) -> None:
        """Take a step towards the network's weights."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.mine, self.theirs, 1 - decay)


def measure(images: Images, seed: int, name: str, settings: Settings) -> Run:
    """Train for the given seconds, and measure the averaged weights once."""
    device = images.train.device
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    half = choose_precision("auto", device)[0] == "bf16"
    model = network(name, len(images.classes)).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    optimizer, averaged = optimizer_for(model, settings), Averaged(model, settings.average)
    steps, start = 0, time.perf_counter()
    for x, targets in batches(images, settings, generator):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        done = (time.perf_counter() - start) / settings.seconds
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * settings.batch_size / 128 * pace(done, settings.warmup)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            outputs = model(x)
        loss = F.cross_entropy(outputs.float(), targets, label_smoothing=settings.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        averaged.update()
        steps += 1
    seconds = time.perf_counter() - start
    params = sum(p.numel() for p in model.parameters())
    right = answers(averaged.model, images, half).numpy()
    return Run(float(right.mean()), params, steps * len(targets), seconds, right=right)


@torch.no_grad()
def answers(model: nn.Module, images: Images, half: bool) -> Tensor:
    """Which test images are right: (N,) booleans."""
    right = []
    for start in range(0, len(images.test), EVALUATION_BATCH):
        x = images.preprocess.tensor(images.test[start : start + EVALUATION_BATCH])
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            outputs = model(x.contiguous(memory_format=torch.channels_last))
        right.append(outputs.argmax(1) == images.test_targets[start : start + EVALUATION_BATCH])
    return torch.cat(right).cpu()

"""The published speed recipe for CIFAR-10, airbench94 (Keller Jordan, arXiv 2404.00498), written from the paper.

The paper: 94.01 % of the test set after 9.9 epochs of CIFAR-10 itself, with multi-crop evaluation; data
that was compressed again gives less. With `--seconds` the schedule follows the measured time instead of the steps.
On a GPU weights are float16, as published; on a CPU all is float32, or bfloat16 by autocast where it computes in it.

Run: python -m benchmarks.airbench --data cifar10-jpeg.tar.gz [--seconds 600 | --epochs 9.9] [--seeds 5]

B batch, N images, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
import torch.nn.functional as F
from benchmarks.images import Images, mirrored, random_crops, read
from benchmarks.tables import Run, accuracy_table, publish, use_threads
from torch import Tensor, nn

from msresnet.runtime import choose_device, choose_precision

WIDTHS = (64, 256, 256)
WHITENED, WHITEN_EPSILON = 5_000, 5e-4
OUTPUT_SCALE = 1 / 9
BN_MOMENTUM, BN_EPSILON = 0.4, 1e-12
"""torch's momentum is one less the paper's 0.6."""
LOOK_EVERY = 5
EVALUATION_BATCH = 2_000


@dataclass(frozen=True)
class Recipe:
    """The paper's settings.

    Learning rate and weight decay are for a kilostep: 1024 examples at the momentum's amplification. So they stay as
    they are when batch size or momentum change.

    Args:
        seconds: time to train; None trains so many epochs.
        bias_scale: factor of the learning rate for BN's biases.
        bias_share: share of the training in which the first layer's bias learns (3 of 9.9 epochs).
    """

    epochs: float = 9.9
    seconds: float | None = None
    batch_size: int = 1024
    lr: float = 11.5
    momentum: float = 0.85
    weight_decay: float = 0.0153
    bias_scale: float = 64.0
    bias_share: float = 3 / 9.9
    label_smoothing: float = 0.2
    translate: int = 2


class Network(nn.Module):
    """2x2 whitening convolution, three blocks, maximum, a scaled linear map: (B, 3, 32, 32) -> (B, K).

    Args:
        filters: the whitening filters (24, 3, 2, 2); they do not learn.
    """

    def __init__(self, filters: Tensor, num_classes: int) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(filters.shape[1], len(filters), 2)
        self.whiten.weight = nn.Parameter(filters, requires_grad=False)
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]
        ins = (len(filters), *WIDTHS)
        self.blocks = nn.Sequential(*(block(a, b) for a, b in zip(ins, WIDTHS, strict=False)))
        self.head = nn.Linear(WIDTHS[-1], num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, K)."""
        x = self.blocks(F.gelu(self.whiten(x)))
        return self.head(x.amax((2, 3))) * OUTPUT_SCALE  # type: ignore[no-any-return]


def block(ins: int, outs: int) -> nn.Sequential:
    """Two 3x3 convolutions that begin as identities as far as their inputs reach, halving the resolution."""
    first, second = (nn.Conv2d(n, outs, 3, padding=1, bias=False) for n in (ins, outs))
    for layer in (first, second):
        nn.init.dirac_(layer.weight.data[: layer.in_channels])
    norms = [nn.BatchNorm2d(outs, eps=BN_EPSILON, momentum=BN_MOMENTUM) for _ in range(2)]
    for norm in norms:
        norm.weight.requires_grad_(False)
    return nn.Sequential(first, nn.MaxPool2d(2), norms[0], nn.GELU(), second, norms[1], nn.GELU())


def whitening(images: Tensor) -> Tensor:
    """Filters (24, C, 2, 2) that give 2x2 patches of (N, C, H, W) unit covariance: eigenvectors and their negatives."""
    patches = F.unfold(images.float(), 2)  # (N, C * 4, places)
    covariance = (patches @ patches.mT).sum(0) / (len(patches) * patches.shape[2])
    values, vectors = torch.linalg.eigh(covariance)
    filters = (vectors / (values + WHITEN_EPSILON).sqrt()).T.reshape(-1, images.shape[1], 2, 2)
    return torch.cat([filters, -filters])


class Lookahead:
    """Slow weights that follow at every fifth step, faster and faster less, and are put in place of the fast ones."""

    def __init__(self, net: nn.Module) -> None:
        self.fast = [t for t in net.state_dict().values() if t.is_floating_point()]
        self.slow = [t.clone() for t in self.fast]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Keep the share `decay` of the slow weights; 1 brings them back unchanged."""
        for slow, fast in zip(self.slow, self.fast, strict=True):
            slow.lerp_(fast, 1 - decay)
            fast.copy_(slow)


def pace(progress: float) -> float:
    """Factor of the learning rate: 0.2 to 1 over the first 23 %, then down to 0.07."""
    if progress < 0.23:
        return 0.2 + 0.8 * progress / 0.23
    return 1 - 0.93 * min(1.0, (progress - 0.23) / 0.77)


def optimizer_for(net: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """Nesterov's SGD for the sum of a batch's losses."""
    kilostep = 1024 * (1 + 1 / (1 - recipe.momentum))
    lr, decay = recipe.lr / kilostep, recipe.weight_decay * recipe.batch_size / kilostep
    biases = [m.bias for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    ids = {id(p) for p in biases}
    others = [p for p in net.parameters() if p.requires_grad and id(p) not in ids]
    groups = []
    for parameters, rate in ((biases, lr * recipe.bias_scale), (others, lr)):
        # torch multiplies the decay by the rate; here both are set apart.
        groups.append({"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay / rate})
    return torch.optim.SGD(groups, lr, momentum=recipe.momentum, nesterov=True, fused=True)


def batches(images: Images, recipe: Recipe, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised (B, C, H, W) and targets (B,) without end: each image is mirrored in every other epoch."""
    device, total = images.train.device, len(images.train)
    size = min(recipe.batch_size, total)
    first = (torch.rand(total, generator=generator) < 0.5).to(device)
    for epoch in count():
        order = torch.randperm(total, generator=generator).to(device)
        for start in range(0, total - size + 1, size):
            chosen = order[start : start + size]
            x = mirrored(images.preprocess.tensor(images.train[chosen]), first[chosen] ^ (epoch % 2 == 1))
            yield random_crops(x, recipe.translate, generator), images.train_targets[chosen]


def build(images: Images, dtype: torch.dtype, generator: torch.Generator) -> Network:
    """A network before its first step. The images lie class by class, so those to whiten by are drawn."""
    some = torch.randperm(len(images.train), generator=generator)[:WHITENED].to(images.train.device)
    net = Network(whitening(images.preprocess.tensor(images.train[some])).cpu(), len(images.classes))
    net.to(images.train.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if dtype is torch.float16:
        net.half()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.float()
    return net


def train(images: Images, seed: int, recipe: Recipe, dtype: torch.dtype) -> tuple[Network, int, float]:
    """(network, images seen, seconds). Where the images are, there is trained."""
    device = images.train.device
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    start = time.perf_counter()
    net = build(images, dtype, generator)
    optimizer, lookahead = optimizer_for(net, recipe), Lookahead(net)
    size = min(recipe.batch_size, len(images.train))
    progress = _progress(recipe, len(images.train) // size, start, device)
    net.train()
    steps = 0
    for x, targets in batches(images, recipe, generator):
        done = progress(steps)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * pace(done)
        net.whiten.bias.requires_grad_(done < recipe.bias_share)  # type: ignore[union-attr]
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
            outputs = net(x.to(dtype) if dtype is torch.float16 else x)
        loss = F.cross_entropy(outputs.float(), targets, label_smoothing=recipe.label_smoothing, reduction="sum")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        steps += 1
        if steps % LOOK_EVERY == 0:
            lookahead.update(0.95**LOOK_EVERY * done**3)
    lookahead.update(1.0)
    _wait(device)
    return net, steps * size, time.perf_counter() - start


def _progress(recipe: Recipe, steps_an_epoch: int, start: float, device: torch.device) -> Callable[[int], float]:
    """What gives the share of the training that is done after so many steps."""
    limit = recipe.seconds
    if limit is None:
        total = max(1, round(recipe.epochs * steps_an_epoch))
        return lambda steps: steps / total

    def elapsed(steps: int) -> float:
        _wait(device)
        return (time.perf_counter() - start) / limit

    return elapsed


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def answers(net: Network, images: Images, dtype: torch.dtype) -> Tensor:
    """Which test images are right, as they are and by the paper's multi-crop evaluation: (2, N) booleans."""
    net.eval()
    right = []
    for start in range(0, len(images.test), EVALUATION_BATCH):
        x = images.preprocess.tensor(images.test[start : start + EVALUATION_BATCH])
        x = x.to(torch.float16 if dtype is torch.float16 else torch.float32, memory_format=torch.channels_last)
        targets = images.test_targets[start : start + EVALUATION_BATCH]
        with torch.autocast(x.device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
            logits = torch.stack([net(x), multi_crop(net, x)])
        right.append(logits.argmax(2) == targets)
    return torch.cat(right, 1).cpu()


def multi_crop(net: nn.Module, images: Tensor) -> Tensor:
    """Mean logits (B, K): half for the image, a quarter for each diagonal move by a pixel; all mirrored too."""
    height, width = images.shape[2:]
    padded = F.pad(images, (1,) * 4, mode="reflect")
    views = ((0.5, images), (0.25, padded[:, :, :height, :width]), (0.25, padded[:, :, -height:, -width:]))
    total = torch.zeros(())
    for weight, view in views:
        total = total.to(images.device) + weight * 0.5 * (net(view) + net(view.flip(3)))
    return total


def choose_dtype(device: torch.device) -> torch.dtype:
    """float16 on a GPU, else what msresnet itself computes in."""
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if choose_precision("auto", device)[0] == "bf16" else torch.float32


def measure(images: Images, seed: int, recipe: Recipe) -> dict[str, Run]:
    """Train and measure once: plain, and with multi-crop evaluation."""
    dtype = choose_dtype(images.train.device)
    net, seen, seconds = train(images, seed, recipe, dtype)
    params = sum(p.numel() for p in net.parameters())
    name = f"airbench94, batch {recipe.batch_size}"
    names = (name, f"{name}, multi-crop evaluation")
    found = zip(names, answers(net, images, dtype).numpy(), strict=True)
    return {n: Run(float(right.mean()), params, seen, seconds, right=right) for n, right in found}


def main() -> None:
    """Train several seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10 as msresnet takes it, or a .tar.gz of that folder")
    parser.add_argument("--seconds", type=float, help="time for each training, instead of epochs")
    parser.add_argument("--epochs", type=float, default=9.9)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, help="a file for the table")
    args = parser.parse_args()
    use_threads(args.threads)
    images = read(args.data).to(choose_device(args.device)[0])
    recipe = Recipe(args.epochs, args.seconds, args.batch_size)
    results: dict[str, list[Run]] = {}
    for seed in range(args.seeds):
        for name, run in measure(images, seed, recipe).items():
            results.setdefault(name, []).append(run)
            print(f"seed {seed}: {name}: {100 * run.accuracy:.2f} % in {run.seconds:.1f} s", flush=True)
    publish("airbench94", accuracy_table(results), args.output)


if __name__ == "__main__":
    main()

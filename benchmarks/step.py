"""What a training step costs: our loop beside a bare one with the same operations, and beside timm's networks.

First: msresnet's training and a bare PyTorch loop take turns, step by step, over the same network, augmentation,
optimiser and averaging. Second: training images a second of ours, as a user gets it and without augmentation and
averaging, of timm's network as timm trains it by default (float32, contiguous, its optimiser factory), and of timm's
network in the best loop by hand (channels-last, bf16 where the hardware computes in it, fused optimiser). The loops
around timm only normalise; their images lie on the device before they begin, nothing waits for a loss, and cuDNN looks
for its fastest convolutions, as timm has it do. Ours copies each batch, and looks at each loss.

Run: python -m benchmarks.step [--parts overhead speed] [--optimizers adamw sgd] [--output benchmarks/results/step.md]
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from benchmarks.oracles import timm
from benchmarks.tables import publish, use_threads
from torch import Tensor, nn

from msresnet.data.augment import augment, mix
from msresnet.data.draws import Draws
from msresnet.data.sample import ArraySource
from msresnet.data.splits import Splits
from msresnet.models.factory import create_classifier
from msresnet.train.config import TrainConfig
from msresnet.train.fit import fit
from msresnet.train.observer import Silent
from msresnet.train.optimiser import AveragedWeights
from msresnet.train.plan import Plan, make_plan

CLASSES, BATCHES = 10, 50
Step = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """A network and the batches it learns from: images (B, channels, side, side)."""

    model: str
    channels: int
    side: int
    batch: int

    def __str__(self) -> str:
        return f"{self.model}, {self.side} px, batch {self.batch}"


OVERHEAD = (Case("msresnet_micro", 1, 28, 32), Case("msresnet_micro", 1, 28, 128), Case("resnet18", 3, 64, 32))
SPEED = (Case("resnet18", 3, 64, 64), Case("res2net50_26w_4s", 3, 128, 32))


def noise(case: Case, batches: int) -> ArraySource:
    """Labelled noise for so many batches."""
    rng = np.random.default_rng(0)
    count = case.batch * batches
    pixels = rng.integers(0, 256, (count, case.channels, case.side, case.side), dtype=np.uint8)
    targets = (np.arange(count) % CLASSES).astype(np.int64)
    return ArraySource(pixels, targets, [str(c) for c in range(CLASSES)])


def config_for(case: Case, epochs: int, **more: Any) -> TrainConfig:
    """A training of msresnet with its defaults."""
    return TrainConfig(model=case.model, batch_size=case.batch, epochs=epochs, workers=0, **more)


def batches_of(source: ArraySource, size: int, device: torch.device) -> Callable[[], tuple[Tensor, Tensor]]:
    """Gives one batch after the other, of a set that lies on the device: uint8 (B, C, H, W) and targets (B,)."""
    images, targets = torch.from_numpy(source.images).to(device), torch.from_numpy(source.targets).to(device)
    turns = cycle(torch.randperm(len(targets)).to(device).split(size))

    def following() -> tuple[Tensor, Tensor]:
        indices = next(turns)
        return images[indices], targets[indices]

    return following


def bare(plan: Plan, source: ArraySource, size: int) -> Step:
    """The operations of msresnet's step in a loop by hand, without its checks and its schedule."""
    model: nn.Module = create_classifier(plan.model, **plan.arguments).to(plan.device)
    model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = fused("adamw", model, plan)
    average, following = AveragedWeights(model, plan.config.ema), batches_of(source, size, plan.device)
    numbers = iter(range(1 << 30))

    def step() -> None:
        images, targets = following()
        draws = Draws(next(numbers), size)
        x = augment(images.float().div_(255), plan.augment, draws)
        x, soft = mix(plan.preprocess.normalise(x), plan.task.encode(targets), plan.augment, draws)
        with torch.autocast(plan.device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
            logits = model(x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), soft, label_smoothing=0.05)
        descend(loss, optimizer)
        loss.item()  # ours is looked at, too
        average.update()

    return step


def around_timm(case: Case, plan: Plan, source: ArraySource, optimizer_name: str, *, by_hand: bool) -> Step:
    """A step of timm's network that only normalises: as timm trains by default, or in the best loop by hand."""
    model: nn.Module = timm().create_model(case.model, num_classes=CLASSES, in_chans=case.channels).to(plan.device)
    model.train()
    layout = torch.channels_last if by_hand else torch.contiguous_format
    if by_hand:
        model.to(memory_format=layout)  # type: ignore[call-overload]
        optimizer = fused(optimizer_name, model, plan)
    else:
        create = timm().optim.create_optimizer_v2
        optimizer = create(model, opt=optimizer_name, lr=plan.lr, weight_decay=plan.weight_decay)
    following = batches_of(source, case.batch, plan.device)

    def step() -> None:
        images, targets = following()
        with torch.autocast(plan.device.type, torch.bfloat16, enabled=by_hand and plan.precision == "bf16"):
            logits = model(plan.preprocess.tensor(images).contiguous(memory_format=layout))
        descend(F.cross_entropy(logits.float(), targets), optimizer)

    return step


def fused(name: str, model: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """A fused optimiser of torch; no decay on parameters of one dimension."""
    wide = [p for p in model.parameters() if p.ndim > 1]
    narrow = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": wide, "weight_decay": plan.weight_decay}, {"params": narrow, "weight_decay": 0.0}]
    if name == "sgd":
        return torch.optim.SGD(groups, plan.lr, momentum=0.9, nesterov=True, fused=True)
    return torch.optim.AdamW(groups, plan.lr, betas=(0.9, 0.99), fused=True)


def descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One step."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def now() -> float:
    """Seconds, after all that a GPU was asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Turns(Silent):
    """Watches a training: after each of its steps another loop takes one, and both are timed."""

    def __init__(self, other: Step) -> None:
        self.other, self.pairs, self.left = other, list[tuple[float, float]](), 0.0

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """The training has just taken a step."""
        came = now()
        self.other()
        end = now()
        # The end of an epoch, and all that goes before the first step, are not part of a step.
        if step > 1:
            self.pairs.append((came - self.left, end - came))
        self.left = now()


class Stopwatch(Silent):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Note the time."""
        self.ends.append(now())


def overhead(cases: list[Case], steps: int, warmup: int, graphs: str) -> list[str]:
    """Our training beside the bare loop, as Markdown; the difference is the median of those between neighbours."""
    lines = ["| | msresnet, ms | bare loop, ms | difference, ms | |", "|---|--:|--:|--:|--:|"]
    for case in cases:
        config = config_for(case, -(-(steps + warmup) // (BATCHES - 1)), cuda_graphs=graphs)
        source = noise(case, BATCHES)
        turns = Turns(bare(make_plan(config, Splits(source)), source, case.batch))
        fit(config, Splits(source), observer=turns)
        pairs = turns.pairs[warmup:]
        first, second = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
        more = 1e3 * statistics.median(a - b for a, b in pairs)
        lines.append(f"| {case} | {first:.2f} | {second:.2f} | {more:+.2f} | {100 * more / second:+.1f} % |")
        print(lines[-1], flush=True)
    return lines


def our_rate(case: Case, source: ArraySource, more: dict[str, Any]) -> float:
    """Images a second of msresnet's training, from its first step's end to its last's."""
    watch = Stopwatch()
    fit(config_for(case, 1, **more), Splits(source), observer=watch)
    return case.batch * (len(watch.ends) - 1) / (watch.ends[-1] - watch.ends[0])


def rate(case: Case, step: Step, count: int) -> float:
    """Images a second of another loop, measured in the same way."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        step()
        start = now()
        for _ in range(count - 1):
            step()
        return case.batch * (count - 1) / (now() - start)


def speed(cases: list[Case], optimizers: list[str], rounds: int, steps: int) -> list[str]:
    """Training images a second, as Markdown; each ratio is the median of those within a round."""
    names = ("msresnet", "msresnet, no augmentation, no averaging", "timm, its defaults", "timm, best loop by hand")
    columns = " | ".join((*names, *(f"msresnet / {name}" for name in names[2:])))
    lines = [f"| | | {columns} |", "|---|---|" + "--:|" * (len(names) + 2)]
    for case in cases:
        source = noise(case, steps)
        for optimizer in optimizers:
            plan = make_plan(config_for(case, 1, optimizer=optimizer), Splits(source))
            lean = {"optimizer": optimizer, "augment": "none", "ema": 0.0}
            others = [around_timm(case, plan, source, optimizer, by_hand=hand) for hand in (False, True)]
            found = []
            for _ in range(rounds + 1):  # the first is to warm up
                mine = [our_rate(case, source, more) for more in ({"optimizer": optimizer}, lean)]
                found.append([*mine, *(rate(case, step, steps) for step in others)])
            figures = [f"{statistics.median(column):.1f}" for column in zip(*found[1:], strict=True)]
            ratios = [f"{statistics.median(row[0] / row[i] for row in found[1:]):.2f}" for i in (2, 3)]
            lines.append(f"| {case} | {optimizer}, {plan.precision} | {' | '.join((*figures, *ratios))} |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measure and print, and write what was printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["overhead", "speed"], default=["overhead", "speed"])
    parser.add_argument("--models", nargs="+", help="only cases of these networks")
    parser.add_argument("--batch", type=int, help="images in a step of the second part; GPUs want more than CPUs")
    parser.add_argument("--optimizers", nargs="+", choices=["adamw", "sgd"], default=["adamw"])
    parser.add_argument("--steps", type=int, default=300, help="of each loop in the first part")
    parser.add_argument("--warmup", type=int, default=20, help="steps that are not counted")
    # Without graphs, which the bare loop has not, what is measured is the loop around the same operations.
    parser.add_argument("--cuda-graphs", choices=["auto", "off"], default="off", help="of ours in the first part")
    parser.add_argument("--rounds", type=int, default=5, help="of the second part")
    parser.add_argument("--round-steps", type=int, default=10, help="of each contestant in a round")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, help="a file for the tables")
    args = parser.parse_args()
    use_threads(args.threads)
    warnings.filterwarnings("ignore")
    body: list[str] = []
    if "overhead" in args.parts:
        cases = [c for c in OVERHEAD if args.models is None or c.model in args.models]
        body += ["## The loop's own cost", "", *overhead(cases, args.steps, args.warmup, args.cuda_graphs), ""]
    if "speed" in args.parts:
        chosen = (c for c in SPEED if args.models is None or c.model in args.models)
        cases = [replace(c, batch=args.batch or c.batch) for c in chosen]
        body += ["## Training images a second", "", *speed(cases, args.optimizers, args.rounds, args.round_steps), ""]
    publish("Training steps", body[:-1], args.output)


if __name__ == "__main__":
    main()

"""Channel pruning: which channels inside the blocks matter least, and the network without them.

How much a channel matters is the loss's first-order change without it (arXiv 1906.10771, equation 9), squared for each
image and averaged. What it costs is multiply-adds, so channels go in the order of how little they matter for what they
cost, over the whole network, until the asked share of multiply-adds is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import lcm

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from msresnet.bundle import Bundle
from msresnet.data.sets import Samples
from msresnet.errors import UsageError
from msresnet.models.base import ImageModel
from msresnet.models.cost import count_macs
from msresnet.models.factory import create_network, network_arguments
from msresnet.nn.folding import fold
from msresnet.nn.surgery import FORMS, Inside, blocks_of, inside, pruned_state

ARGUMENT = "inner_widths"
"""What a network that can be pruned is told about its blocks."""
GRAIN, FINE_GRAIN, WIDE = 8, 4, 64
"""Widths are multiples of the first, in blocks of fewer channels than the last of the second: as vectors take them."""
LEAST = 8
"""A block keeps at least this part of its channels."""
BATCH = 32
Scores = dict[str, Tensor]
"""For the path of each block that can lose channels, how much each of its gates matters."""


@dataclass(frozen=True)
class Step:
    """Channels of a block that go next.

    Args:
        path: of the block.
        width: channels that are left.
        worth: how much those that go matter, for each multiply-add that they cost.
    """

    path: str
    width: int
    worth: float


def prunable(bundle: Bundle) -> dict[str, Inside]:
    """The blocks that can lose channels. Raises UsageError where there are none."""
    blocks = blocks_of(bundle.model)
    found = {path: each for path, block in blocks.items() if (each := inside(block)) is not None}
    found = {path: each for path, each in found.items() if _widths(each)}
    if not found or ARGUMENT not in network_arguments(bundle.task.head, bundle.architecture):
        what = f"{bundle.architecture} has no channels that can be taken out exactly"
        why = "only blocks whose channels are not all tied together, by attention or by an identity, can lose some"
        raise UsageError(f"--to pruned: {what}", why=why, hint="--to int8, or --to distilled")
    return found


def matters(bundle: Bundle, blocks: Mapping[str, Inside], data: Samples, indices: Tensor) -> Scores:
    """How much each gate of some blocks matters, by some images of a set (indices (M,)); on the CPU."""
    model, task = bundle.model.eval(), bundle.task
    widths = {path: found.width for path, found in blocks.items()}
    scores = {path: torch.zeros(width * len(_given(model, path))) for path, width in widths.items()}
    with ExitStack() as stack, torch.enable_grad():
        for path, width in widths.items():
            for place, name in enumerate(_given(model, path)):
                rows = slice(place * width, (place + 1) * width)
                hook = _adding(scores[path][rows])
                stack.callback(model.get_submodule(f"{path}.{name}").register_forward_pre_hook(hook).remove)
        for batch in data.batches(indices.split(BATCH), torch.device("cpu")):
            images = bundle.preprocess.tensor(batch.images).requires_grad_()
            task.loss_of_exits(model(images, exits=True), task.encode(batch.targets)).mul(len(images)).backward()
            model.zero_grad(set_to_none=True)
    return {path: total / max(1, len(indices)) for path, total in scores.items()}


def _given(model: nn.Module, path: str) -> tuple[str, ...]:
    return FORMS[type(model.get_submodule(path))].given  # type: ignore[index]


def _adding(total: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """A hook that adds, for each channel of what a module is given (B, C, H, W), (gradient times value) squared."""

    def before(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        values = given[0]

        def add(gradient: Tensor) -> None:
            total.add_((gradient * values).sum((2, 3)).square().sum(0).detach())

        values.register_hook(add)

    return before


def _widths(found: Inside) -> list[int]:
    """The widths that a block can have after losing channels, falling."""
    grain = lcm(found.step, GRAIN if found.width >= WIDE else FINE_GRAIN)
    least = max(grain, found.width // LEAST)
    return [width for width in range(found.width // grain * grain, least - 1, -grain) if width < found.width]


def chosen(bundle: Bundle, blocks: Mapping[str, Inside], scores: Scores, keep: float) -> dict[str, int]:
    """The width of each block so that at most `keep` of the multiply-adds are left. Raises UsageError if none are so.

    Blocks are thinned in the order of how little their channels matter for what they cost.
    """
    steps = sorted(_steps(bundle, blocks, scores), key=lambda step: step.worth)
    full = bundle.macs

    def left(count: int) -> float:
        return _cost(bundle, _after(steps[:count], blocks)) / full

    if left(len(steps)) > keep:
        smallest = left(len(steps))
        why = f"only channels inside blocks go, and of each block {LEAST}th parts stay: {smallest:.3f} is the least"
        raise UsageError(f"--keep {keep:g}", why=why, hint=f"--keep {smallest + 0.005:.2f}, or --to distilled")
    low, high = 0, len(steps)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if left(middle) <= keep else (middle + 1, high)
    return _after(steps[:low], blocks)


def _steps(bundle: Bundle, blocks: Mapping[str, Inside], scores: Scores) -> list[Step]:
    """Every step of every block; within a block, later steps are worth no less, so that sorting keeps their order."""
    prices, steps = _prices(bundle.model), []
    for path, found in blocks.items():
        before, worth = found.width, 0.0
        for width in _widths(found):
            kept, more = (float(scores[path][found.kept(scores[path], w)].sum()) for w in (width, before))
            cost = prices[path] * (before - width) / found.width
            worth, before = max(worth, (more - kept) / cost), width
            steps.append(Step(path, width, worth))
    return steps


def _prices(model: ImageModel) -> dict[str, int]:
    """Multiply-adds of each block's convolutions that its inner channels decide."""
    with torch.device("meta"):
        shadow = fold(type(model)(model.spec, model.config).eval())  # type: ignore[call-arg]
        image = torch.empty(1, model.in_chans, *model.config.img_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(image)
    flops = {name.partition(".")[2]: sum(each.values()) for name, each in counter.get_flop_counts().items()}
    return {
        path: sum(flops.get(f"{path}.{name}", 0) for name in ("conv1", "conv2", "conv3")) // 2
        for path in blocks_of(model)
    }


def _after(steps: list[Step], blocks: Mapping[str, Inside]) -> dict[str, int]:
    """The widths of blocks after some steps, each block's in order."""
    return {path: found.width for path, found in blocks.items()} | {step.path: step.width for step in steps}


def _cost(bundle: Bundle, widths: Mapping[str, int]) -> int:
    with torch.device("meta"):
        return count_macs(create_network(bundle.task.head, bundle.architecture, **_arguments(bundle, widths)))


def _arguments(bundle: Bundle, widths: Mapping[str, int]) -> dict[str, object]:
    inner = [widths.get(path, block.spec.width) for path, block in blocks_of(bundle.model).items()]
    return bundle.arguments | {ARGUMENT: inner}


def without(bundle: Bundle, blocks: Mapping[str, Inside], scores: Scores, widths: Mapping[str, int]) -> Bundle:
    """The bundle whose blocks have these widths, by what matters most; it computes as if the rest had been zero."""
    fewer = {path: width for path, width in widths.items() if width < blocks[path].width}
    kept = {path: blocks[path].kept(scores[path], width) for path, width in fewer.items()}
    arguments = _arguments(bundle, widths)
    model = create_network(bundle.task.head, bundle.architecture, **arguments)
    model.load_state_dict(pruned_state(bundle.model, kept))
    return replace(bundle, model=model.eval(), arguments=arguments, scores={})

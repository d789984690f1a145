"""At which scale a model finds its answer: what each branch of each operator contributes to a class.

An operator's output is the sum of its branches' parts. To first order, a part changes the class's logit by the sum
of its values times the logit's gradient; the share of a branch is its sum of absolute products. In evaluation the
images of a batch do not meet, so each has its own gradient in it. B batch, C channels, R branches of all operators.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from msresnet.bundle import Bundle
from msresnet.errors import ModelError, UsageError
from msresnet.explain.attribution import logits_of, ready
from msresnet.nn.grammar import receptive_fields
from msresnet.nn.operators import CascadeConv2d, MultiScaleConv2d, RadixConv2d

OPERATORS = (MultiScaleConv2d, CascadeConv2d, RadixConv2d)


class Place(NamedTuple):
    """A branch of an operator: the operator's path in the network, the branch's name, (height, width) it sees."""

    operator: str
    branch: str
    receptive_field: tuple[int, int]
    """In pixels of the operator's own input."""


class Responses(NamedTuple):
    """Of a batch: the classes explained (B,), each branch's share of its operator and addition to the logit (B, R)."""

    targets: Tensor
    shares: Tensor
    contributions: Tensor


@dataclass(frozen=True)
class ScaleResponse:
    """One branch of one operator: its share of the operator's response (0 to 1), and what it adds to the logit."""

    operator: str
    branch: str
    receptive_field: tuple[int, int]
    """(height, width) in pixels of the operator's own input."""
    share: float
    contribution: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "operator": self.operator,
            "branch": self.branch,
            "receptive_field": list(self.receptive_field),
            "share": round(self.share, 4),
            "contribution": round(self.contribution, 4),
        }


def places(model: nn.Module) -> list[Place]:
    """The branches of a network's multi-scale operators, from the image's side to the answer's (R)."""
    found = []
    for name, operator in _operators(model).items():
        cascade = operator.spec.connect == "cascade"  # there, what a branch sees grows from one to the next
        for branch, field in zip(operator.branches, receptive_fields(operator.spec), strict=True):
            found.append(Place(name, f"{field[0]}x{field[1]}" if cascade else branch.label, field))
    return found


def check_scales(model: nn.Module) -> None:
    """Raise UsageError for a network whose blocks look at one scale only."""
    if not _operators(model):
        why = "its blocks look at one scale only"
        raise UsageError("the network has no operator whose scales can be told apart", why=why, hint="msresnet models")


def scale_responses(
    bundle: Bundle, image: npt.NDArray[np.uint8], target: int, place: int | None = None
) -> list[ScaleResponse]:
    """The response of every branch of every multi-scale operator, from the image's side to the answer's.

    Empty for a network whose blocks look at one scale only.

    Args:
        image: decoded, uint8 (C, H, W), any size.
        target: index of the class.
        place: where a detector says it; None: of the whole image.

    Raises ModelError where the network's output is not finite.
    """
    x = ready(bundle, image)
    found = responses(bundle, x, torch.tensor([target], device=x.device), place)
    rows = [
        ScaleResponse(*place, share, contribution)
        for place, share, contribution in zip(
            places(bundle.model), found.shares[0].tolist(), found.contributions[0].tolist(), strict=True
        )
    ]
    heard = {row.operator for row in rows if row.share}
    return [row for row in rows if row.operator in heard]


def responses(bundle: Bundle, images: Tensor, targets: Tensor | None = None, place: int | None = None) -> Responses:
    """The response of each branch for normalised images (B, C, H, W) and a class of each; None: the answer.

    Operators that the answer does not depend on, such as a stage that a detector's pyramid leaves out, have zeros.
    `place` is as for `scale_responses`.

    Raises ModelError where the network's output is not finite.
    """
    operators = _operators(bundle.model)
    with _recorded(operators) as record, torch.enable_grad():
        images = images.detach().requires_grad_()
        logits = logits_of(bundle, place)(images)
        if not bool(logits.isfinite().all()):
            raise ModelError("the network's output is not finite", hint="train again, at a lower --lr")
        targets = logits.argmax(1) if targets is None else targets
        torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), images)
    shares, contributions = [images.new_zeros(len(images), 0)], [images.new_zeros(len(images), 0)]
    for name, operator in operators.items():
        if name not in record:
            for table in (shares, contributions):
                table.append(images.new_zeros(len(images), len(operator.branches)))
            continue
        given, gradient = record.pop(name)
        with torch.no_grad():
            products = [(gradient[:, channels] * part).flatten(1) for channels, part in operator.parts(given)]
        strengths = torch.stack([p.abs().sum(1) for p in products], 1)
        shares.append(strengths / strengths.sum(1, keepdim=True).clamp_min(1e-30))
        contributions.append(torch.stack([p.sum(1) for p in products], 1))
    return Responses(targets, torch.cat(shares, 1), torch.cat(contributions, 1))


def _operators(model: nn.Module) -> dict[str, Any]:
    return {name: m for name, m in model.named_modules() if isinstance(m, OPERATORS)}


@contextmanager
def _recorded(operators: dict[str, Any]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Within this, a forward and a backward pass leave each operator's input and its output's gradient."""
    inputs: dict[str, Tensor] = {}
    record: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str, module: nn.Module) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            inputs[name] = args[0].detach()
            output.register_hook(lambda gradient: record.__setitem__(name, (inputs[name], gradient)))

        return module.register_forward_hook(hook)

    handles = [watch(name, module) for name, module in operators.items()]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def by_field(responses: list[ScaleResponse]) -> list[tuple[str, float]]:
    """The mean share of each kind of branch over all operators, largest first."""
    totals: dict[str, float] = {}
    for r in responses:
        totals[r.branch] = totals.get(r.branch, 0.0) + r.share
    whole = sum(totals.values()) or 1.0
    return sorted(((name, value / whole) for name, value in totals.items()), key=lambda row: -row[1])

"""At which scale a model finds its answer: what each branch of each operator contributes to a class.

An operator's output is the sum of its branches' parts. To first order, a part changes the class's logit by the sum
of its values times the logit's gradient; the share of a branch is its sum of absolute products. B batch, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from msresnet.bundle import Bundle
from msresnet.explain.attribution import ready
from msresnet.nn.grammar import receptive_fields
from msresnet.nn.operators import CascadeConv2d, MultiScaleConv2d, RadixConv2d

OPERATORS = (MultiScaleConv2d, CascadeConv2d, RadixConv2d)


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


def scale_responses(bundle: Bundle, image: npt.NDArray[np.uint8], target: int) -> list[ScaleResponse]:
    """The response of every branch of every multi-scale operator, from the image's side to the answer's.

    Empty for a network whose blocks look at one scale only.

    Args:
        image: decoded, uint8 (C, H, W), any size.
        target: index of the class.
    """
    operators = {name: m for name, m in bundle.model.named_modules() if isinstance(m, OPERATORS)}
    with _recorded(operators) as record, torch.enable_grad():
        logits = bundle.model(ready(bundle, image).requires_grad_())
        logits[0, target].backward()
    bundle.model.zero_grad(set_to_none=True)
    rows = []
    for name, operator in operators.items():
        given, gradient = record[name]
        with torch.no_grad():
            products = [gradient[:, channels] * part for channels, part in operator.parts(given)]
        strengths = torch.stack([p.abs().sum() for p in products])
        shares = (strengths / strengths.sum().clamp_min(1e-30)).tolist()
        fields = receptive_fields(operator.spec)
        cascade = operator.spec.connect == "cascade"  # there, what a branch sees grows from one to the next
        for branch, field, share, product in zip(operator.branches, fields, shares, products, strict=True):
            label = f"{field[0]}x{field[1]}" if cascade else branch.label
            rows.append(ScaleResponse(name, label, field, share, float(product.sum())))
    return rows


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

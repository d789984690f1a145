"""Bounds on figures, for machines that decide whether a model may pass: `--fail-under top1=0.9,ece=0.05`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

from msresnet.errors import QualityGateError, UsageError, nearest

FLAG, EXAMPLE = "--fail-under", "--fail-under top1=0.9,ece=0.05"
NESTED: dict[str, tuple[str, tuple[str, ...]]] = {
    "object_scale": ("object-scale", ("robustness", "object_scale", "area")),
    "image_size": ("image-sizes", ("robustness", "image_size", "area")),
    "answered": ("abstain-below", ("abstain", "answered")),
    "answered_accuracy": ("abstain-below", ("abstain", "accuracy")),
}
"""Figures that exist only beside a flag, and where they stand in metrics.json. Of all of them more is better."""
COMMON = {"accuracy": "top1", "acc": "top1", "map": "ap", "iou": "miou"}
"""What other programs call figures that have another name here."""


def read_gates(text: str | None) -> dict[str, float]:
    """Bounds by figure from 'top1=0.9,ece=0.05'. Raises UsageError for what does not read so."""
    gates: dict[str, float] = {}
    for part in () if text is None else text.split(","):
        name, _, number = part.strip().partition("=")
        try:
            bound = float(number)
        except ValueError:
            bound = math.nan
        if not name or not 0 <= bound < math.inf:
            raise UsageError(f"{FLAG} {text}", why="a figure and its bound, a number from 0", hint=EXAMPLE)
        if name in gates:
            raise UsageError(f"{FLAG} {text}", why=f"{name} has two bounds", hint=EXAMPLE)
        gates[name] = bound
    return gates


def check_gates(
    gates: Mapping[str, float], better: Mapping[str, Literal["higher", "lower"]], flags: Collection[str]
) -> None:
    """Raise UsageError for a figure that will not be measured, and for a share above 1.

    Args:
        gates: bounds by figure.
        better: the task's figures, and which side of a bound is good.
        flags: those that were given, such as 'object-scale'.
    """
    for name, bound in gates.items():
        if name in NESTED and NESTED[name][0] not in flags:
            raise UsageError(f"{FLAG} {name}={bound:g}, which is not measured", hint=f"--{NESTED[name][0]}")
        if name not in better and name not in NESTED:
            known = [*better, *NESTED]
            meant = COMMON.get(name.lower(), "")
            hint = meant if meant in better else nearest(name, known)
            raise UsageError(f"{FLAG} {name}={bound:g}", why=f"known: {', '.join(known)}", hint=hint)
        if bound > 1 and better.get(name, "higher") == "higher":
            raise UsageError(f"{FLAG} {name}={bound:g}", why="a share has a bound from 0 to 1", hint=EXAMPLE)


def judge(
    gates: Mapping[str, float], better: Mapping[str, Literal["higher", "lower"]], metrics: dict[str, Any]
) -> None:
    """Raise QualityGateError, naming each figure on the wrong side of its bound; on the bound is well."""
    failed = []
    for name, bound in gates.items():
        value = figure(name, metrics)
        lower = better.get(name) == "lower"
        if value is None or not (value <= bound if lower else value >= bound):  # NaN is on no good side
            shown = "none" if value is None else f"{value:.4f}"
            failed.append(f"{name} is {shown}, {'over' if lower else 'under'} {bound:g}")
    if failed:
        raise QualityGateError("; ".join(failed), why=FLAG)


def figure(name: str, metrics: dict[str, Any]) -> float | None:
    """One figure of an evaluation; None where it has no value, as the accuracy of no answers has none."""
    found: Any = metrics
    for key in NESTED[name][1] if name in NESTED else (name,):
        found = found[key]
    return None if found is None else float(found)

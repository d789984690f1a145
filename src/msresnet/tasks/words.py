"""Figures in words: what they are called, shares in per cent, 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence

TITLES = {
    "params": "parameters",
    "macs": "multiply-adds an image",
    "inference_images_per_second": "images a second",
    "top1": "top-1",
    "top5": "top-5",
    "f1": "F1",
    "macro_f1": "mean F1",
    "ece": "calibration error",
    "aurc": "area under risk-coverage",
    "iou": "IoU",
    "miou": "mean IoU",
    "boundary_f": "boundary F",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
    "ar": "AR",
}
"""Figures whose name in metrics.json is not that for people."""


def title(figure: str) -> str:
    """A figure's name for people, from that in metrics.json."""
    return TITLES.get(figure, figure.replace("_", " "))


def percent(share: float | None) -> str:
    """A share in per cent; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.2f} %"


def interval(pair: Sequence[float] | None, unit: str = " %") -> str:
    """The ends of an interval of a share, in per cent; nothing where there is none."""
    return "" if pair is None else f"{100 * pair[0]:.2f} to {100 * pair[1]:.2f}{unit}"


def points(difference: float) -> str:
    """A difference of two shares, with its sign; what rounds to zero is +0.00."""
    return f"{100 * difference:+z.2f}"

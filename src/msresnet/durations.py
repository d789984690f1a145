"""Lengths of time as people type them."""

from __future__ import annotations

import math
import re

UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")


def duration(text: str, *, bare: bool = True) -> float | None:
    """Seconds from '500ms', '0.5s', '2m', '1h30m' or '1d', and with `bare` from '90'; None from anything else."""
    if bare and re.fullmatch(r"\d+(\.\d+)?", text):
        text += "s"
    if not re.fullmatch(f"({PART.pattern})+", text):
        return None
    total = sum(float(number) * UNITS[unit] for number, unit in PART.findall(text))
    return total if math.isfinite(total) else None

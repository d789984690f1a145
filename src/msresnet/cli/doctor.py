"""`msresnet doctor`."""

from __future__ import annotations

import json
from dataclasses import dataclass

from msresnet.cli.layers import parse
from msresnet.cli.main import Common


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Check this installation and machine: versions, devices, precision, folders."""


def main(words: list[str], common: Common) -> int:
    """Print what training here would use, as JSON."""
    parse("doctor", DoctorConfig, words, common)
    from msresnet.files import cache_folder
    from msresnet.runtime import choose_device, choose_precision, environment

    device, why_device = choose_device("auto")
    precision, why_precision = choose_precision("auto", device)
    found = environment() | {
        "device": f"{device} ({why_device})",
        "precision": f"{precision} ({why_precision})",
        "cache": str(cache_folder()),
    }
    print(json.dumps(found, indent=2))
    return 0

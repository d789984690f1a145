"""Where the library `trackers` comes in, which the extra `track` brings. Nothing loads it before it is needed."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Literal

from msresnet.errors import ResourceError

Tracker = Literal["bytetrack", "botsort", "ocsort", "sort", "cbiou"]
LOOKS = 0.9
"""Share of the looks where boxes are ambiguous: HOTA rises from a half to here, by each tracker (docs/decisions.md)."""
_CLASSES = {
    "bytetrack": "ByteTrackTracker",
    "botsort": "BoTSORTTracker",
    "ocsort": "OCSORTTracker",
    "sort": "SORTTracker",
    "cbiou": "CBIoUTracker",
}


def load(name: str) -> ModuleType:
    """A module of the library, or one that it needs. Raises ResourceError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        hint = 'pip install "msresnet[track]"'
        raise ResourceError("tracking needs the library trackers", why=str(error), hint=hint) from error


def create(name: Tracker, **settings: Any) -> Any:
    """One of the library's trackers. Raises ResourceError where it is not installed."""
    return getattr(load("trackers"), _CLASSES[name])(**settings)

"""`msresnet data show|check|pack`."""

from __future__ import annotations

import importlib

from msresnet.cli.main import Common
from msresnet.errors import UsageError, nearest

WORDS = {
    "show": "classes, counts, and a picture of images before and after preprocessing",
    "check": "decode every image and say what is wrong with the data",
    "pack": "decode once into files that are mapped into memory, or into shards that stream",
}


def main(words: list[str], common: Common) -> int:
    """Find the second word and run it. Raises UsageError for another one."""
    if words and words[0] in ("-h", "--help"):
        print(_help())
        return 0
    if not words or words[0] not in WORDS:
        hint = nearest(words[0], WORDS) if words else ""
        what = f"data has no word {words[0]!r}" if words else "data takes a second word"
        raise UsageError(what, why=", ".join(WORDS), hint=f"msresnet data {hint or 'show'}")
    module = importlib.import_module(f"msresnet.cli.data_{words[0]}")
    return int(module.main(words[1:], common))


def _help() -> str:
    rows = "\n".join(f"  {word:<8}{text}" for word, text in WORDS.items())
    return f"usage: msresnet data WORD [OPTIONS]\n\n{rows}\n\nEvery word takes --data, and --help."

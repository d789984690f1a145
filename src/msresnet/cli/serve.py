"""`msresnet serve`."""

from __future__ import annotations

import sys

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.errors import ResourceError
from msresnet.infer.config import which_run
from msresnet.serve.config import ServeConfig


def main(words: list[str], common: Common) -> int:
    """Serve until a signal comes. Raises ResourceError where the extra is missing."""
    parsed = parse("serve", ServeConfig, words, common)
    try:
        from msresnet.serve.server import serve
    except ModuleNotFoundError as error:
        if str(error.name).startswith("msresnet"):
            raise
        why = f"{error.name} is not installed"
        raise ResourceError("serving needs more packages", why=why, hint='pip install "msresnet[serve]"') from error
    if not common.quiet:
        for path in parsed.config.models.values():
            for line in which_run(path):
                print(f"· {line}", file=sys.stderr)
    return serve(parsed.config, common.quiet)

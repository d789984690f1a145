"""Learn to find and to tell apart digits that move, then follow them; `--quick` only shows that it works.

Run it as python docs/examples/follow_digits.py.
"""

from __future__ import annotations

import subprocess
import sys


def main() -> None:
    how = ["--time-limit", "40s", "--model-args", "finest=8"] if "--quick" in sys.argv[1:] else ["--epochs", "2"]
    run("train", "--data", "digit-videos", "--recipe", "detect", *how, "--output", "runs/follow-digits")
    for looks in ("none", "learnt"):  # switches fall where objects are told apart by what they look like
        run("track", "digit-videos", "--model", "runs/follow-digits", "--appearance", looks)


def run(*words: str) -> None:
    """One command, shown as it would be typed."""
    print("msresnet", *words, flush=True)
    subprocess.run([sys.executable, "-m", "msresnet", *words], check=True)


if __name__ == "__main__":
    main()

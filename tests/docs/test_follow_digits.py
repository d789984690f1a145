"""The example that follows digits, in its quick form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "follow_digits.py"


@pytest.mark.slow
def test_it_trains_and_measures_with_and_without_looks(tmp_path: Path) -> None:
    pytest.importorskip("trackers")
    words = [sys.executable, str(EXAMPLE), "--quick"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("HOTA") == 2

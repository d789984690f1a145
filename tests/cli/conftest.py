"""A trained model for all tests here, who change no more than a copy of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from msresnet.cli.main import main
from tiny import train_words


@pytest.fixture(scope="session")
def run(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(train_words(bars, folder / "run", "-q", epochs=3, batch=8)) == 0
    return folder / "run"

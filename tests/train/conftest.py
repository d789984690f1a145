"""Small pictures for all tests here, and the working directory that each test has to itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny import pictures


@pytest.fixture(scope="session")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of small pictures."""
    return pictures(tmp_path_factory.mktemp("data") / "bars")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The working directory."""
    return tmp_path

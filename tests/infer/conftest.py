"""A model, shards, and their answers, for all tests of prediction over shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharding import make_model, make_shards, predict


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return make_shards(tmp_path_factory.mktemp("shards") / "data", 4, 12)


@pytest.fixture(scope="session")
def undisturbed(model: Path, shards: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The answers of one run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed") / "answers"
    assert predict(shards, model, folder) == 0
    return folder

"""An exported model, and a server with it for each file of tests; after each test it is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msresnet.bundle import load_bundle
from msresnet.infer.backends.graph import onnx_model
from serving import GOLDEN, SMALL, Serving, offline, server
from sharding import make_model


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("served") / "m")


@pytest.fixture(scope="session")
def model(bundle: Path) -> Path:
    path = bundle.parent / "m.onnx"
    path.write_bytes(onnx_model(load_bundle(bundle)).SerializeToString())
    return path


@pytest.fixture(scope="session")
def golden(model: Path) -> dict[str, Any]:
    """The answer about one picture."""
    return offline(model, [GOLDEN])[0]


@pytest.fixture(scope="module")
def serving(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with server(tmp_path_factory.mktemp("server"), "--model", str(model), *SMALL) as running:
        yield running


@pytest.fixture
def unharmed(serving: Serving, golden: dict[str, Any]) -> Iterator[Serving]:
    """The server; afterwards it lives, and answers as before."""
    yield serving
    assert serving.get("/v2/health/live").status_code == 200
    assert serving.get("/v2/health/ready").status_code == 200
    assert serving.predict(GOLDEN).json()["result"] == golden

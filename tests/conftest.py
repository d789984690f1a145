"""What all tests share: one thread, a folder of their own, no leftovers of settings, small pictures."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from tiny import pictures

torch.set_num_threads(1)
# A shell starts what goes on in the background with SIGINT ignored, and every process that a test starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
DIED = pytest.StashKey[bool]()
# A busy machine is not a failure, and a failure must come back.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Of a worker of pytest-xdist that died, say with which code: a negative one is a signal."""
    if error is None:
        return
    node.config.stash[DIED] = True
    process, end = node.gateway._io.popen, time.monotonic() + 10
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    print(f"\n{node.gateway.id} ended with {process.poll()}: {error}", flush=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """No run is good in which a worker died, even where it had no test in hand."""
    if session.config.stash.get(DIED, False) and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written into the project; the cache is empty; no setting comes from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MSRESNET_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The working directory."""
    return tmp_path


@pytest.fixture(scope="session")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of small pictures."""
    return pictures(tmp_path_factory.mktemp("data") / "bars")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data beside the project, or a skip."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data beside the project")
    return folder

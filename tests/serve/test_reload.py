"""Models are loaded anew while they are served: what goes wrong is told and counted, and their files stay watched."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from msresnet.errors import ModelError, ResourceError
from msresnet.serve import models, workers
from msresnet.serve.config import ServeConfig
from msresnet.serve.failures import Refusal
from msresnet.serve.metrics import Metrics
from msresnet.serve.models import AGAIN, LONGEST, Models
from msresnet.serve.served import Served, signature
from msresnet.serve.worker import Opening
from msresnet.serve.workers import ThreadWorker

Start = Callable[[Models, str], Awaitable[Served]]
START: Start = Models._start


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks and attempts in quick succession."""
    monkeypatch.setattr(models, "GLANCE", 0.02)
    monkeypatch.setattr(models, "AGAIN", 0.1)


@pytest.fixture
def paths(model: Path, tmp_path: Path, hasty: None) -> list[Path]:
    """Two files of a model."""
    return [Path(shutil.copy(model, tmp_path / name)) for name in ("a.onnx", "b.onnx")]


def touch(path: Path) -> None:
    """The same file, of another time."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))


def loads(served: Models, name: str) -> tuple[float, float]:
    """Good and bad ones."""
    good, bad = (served.metrics.loads.labels(name, word)._value.get() for word in ("yes", "no"))
    return good, bad


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def watched(*paths: Path) -> AsyncIterator[Models]:
    """Models that are served in this process, and whose watch has not ended."""
    words = tuple(f"{path.stem}={path}" for path in paths)
    served = Models(ServeConfig(model=words, workers=0, threads=1, batch_size=1), Metrics())
    await served.load_all()
    watching = asyncio.create_task(served.watch())
    try:
        yield served
        assert not watching.done()
    finally:
        watching.cancel()
        await served.close()


def test_whatever_fails_is_told_and_counted_and_tried_again(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = paths[0]
    errors = [OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), RuntimeError("can't start new thread"), MemoryError()]

    async def start(self: Models, name: str) -> Served:
        if errors and "a" in self._served:
            raise errors.pop(0)
        return await START(self, name)

    async def whole() -> None:
        monkeypatch.setattr(Models, "_start", start)
        async with watched(path) as served:
            touch(path)
            await until(lambda: loads(served, "a") == (2, 3))
            assert served.get("a").loaded.files == signature(str(path))
            touch(path)
            await until(lambda: loads(served, "a") == (3, 3))

    asyncio.run(whole())
    said = capsys.readouterr().err
    assert said.count("error: a is not reloaded, the old one stays: ") == 3
    assert said.count("not enough memory") == 2
    assert "can't start new thread" in said
    assert said.count("· a was reloaded") == 2


def test_who_asks_for_it_is_told_what_failed(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(self: Models, name: str) -> Served:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    async def whole() -> None:
        async with watched(paths[0]) as served:
            before = served.get("a")
            monkeypatch.setattr(Models, "_start", start)
            with pytest.raises(ResourceError, match="not enough memory"):
                await served.reload("a")
            assert loads(served, "a") == (1, 1)
            assert served.get("a") is before
            with pytest.raises(Refusal, match="no such model"):
                await served.reload("b")

    asyncio.run(whole())


def test_what_changes_while_models_are_loaded_is_noticed(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, when the others are loaded, and in a reload, when it is opened."""
    first, second = paths
    changes = [("b", first), ("a", first)]

    async def start(self: Models, name: str) -> Served:
        served = await START(self, name)
        if changes and changes[0][0] == name:
            touch(changes.pop(0)[1])
        return served

    async def whole() -> None:
        monkeypatch.setattr(Models, "_start", start)
        async with watched(first, second) as served:
            await until(lambda: loads(served, "a") == (3, 0))
            assert served.get("a").loaded.files == signature(str(first))
            assert loads(served, "b") == (1, 0)

    asyncio.run(whole())


def test_what_failed_is_tried_at_once_when_it_changes_and_else_ever_later() -> None:
    failed, files, others = models._Failed(), (("m", 1, 1, 1),), (("m", 2, 2, 2),)
    clock, pauses = 0.0, []
    assert failed.may(files, clock)
    for _ in range(9):
        failed.note(files, clock)
        pauses.append(failed.until - clock)
        clock = failed.until
        assert not failed.may(files, clock - 0.001)
        assert failed.may(files, clock)
        assert failed.may(others, clock - 0.001)
    assert pauses == [AGAIN * 2**n for n in range(6)] + [LONGEST] * 3
    failed.note(others, clock)
    assert failed.until == clock + AGAIN


def test_a_folder_that_cannot_be_read_has_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "is_dir", refused)
    assert signature(str(tmp_path)) == ()


def test_a_thread_fails_as_a_process_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(opening: Opening) -> None:
        raise RuntimeError("what nobody foresaw")

    async def whole() -> None:
        monkeypatch.setattr(workers, "open_model", opened)
        worker = ThreadWorker(Opening(path="m"))
        with pytest.raises(ModelError, match="what nobody foresaw"):
            await worker.start()
        await worker.stop()

    asyncio.run(whole())

"""A process that computes, on its own: what hangs is killed, and the next one computes as before."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from msresnet.serve import worker, workers
from msresnet.serve.worker import Opening
from msresnet.serve.workers import ProcessWorker, WorkerDied
from serving import outputs, pixels


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_F15_a_process_that_hangs_is_killed_and_replaced(
    engine: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "SLOWEST_BATCH", 0.5)
    images = pixels(3)

    async def whole() -> None:
        process = ProcessWorker(Opening(path=str(model), backend=engine, threads=1, batch=4))  # type: ignore[arg-type]
        assert process.opening.warm
        await process.start()
        assert not process.opening.warm  # what killed it may have been a large batch
        hangs = process.process
        assert hangs is not None
        server = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, hangs.pid) == min(19, server + worker.BEHIND)  # greater is lower
        os.kill(hangs.pid, signal.SIGSTOP)
        with pytest.raises(WorkerDied):
            await process.compute(images)
        assert await hangs.wait() == -signal.SIGKILL
        monkeypatch.setattr(workers, "SLOWEST_BATCH", 30.0)
        await process.start()
        np.testing.assert_allclose(await process.compute(images), outputs(model, images), atol=1e-5)
        await process.stop()

    asyncio.run(asyncio.wait_for(whole(), 100))


@pytest.mark.parametrize(
    ("seconds", "batch"),
    [
        ({1: 1.0, 2: 1.2, 4: 1.6, 8: 3.15, 16: 6.2, 32: 12.3}, 4),  # 32 are 4 % faster than 4
        ({1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0, 16: 16.0, 32: 32.0}, 1),
        ({1: 1.0, 2: 1.5, 4: 2.5, 8: 4.0, 16: 7.0, 32: 12.0}, 32),
    ],
)
def test_the_smallest_batch_that_is_nearly_fastest_is_found(
    seconds: dict[int, float], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, calls = 0.0, list[int]()

    def compute(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        nonlocal clock
        calls.append(len(images))
        late = 5.0 if calls.count(len(images)) % 2 == 0 else 0.0  # something else was at work
        clock += seconds[len(images)] + late
        return np.zeros((len(images), 1), np.float32)

    monkeypatch.setattr(worker, "TRYING", 1e9)
    monkeypatch.setattr("msresnet.serve.worker.time.perf_counter", lambda: clock)
    found, why = worker._batch(compute, (1, 8, 8), None)
    assert found == batch
    assert why == f"measured: {batch / seconds[batch]:,.0f} images/s at {batch}"


def test_what_was_said_or_measured_is_not_measured_again() -> None:
    calls: list[int] = []

    def compute(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        calls.append(len(images))
        return np.zeros((len(images), 1), np.float32)

    assert worker._batch(compute, (1, 8, 8), 16) == (16, "as asked")
    assert calls == [1]


def test_each_number_of_images_is_computed_once_before_somebody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, clock = list[int](), 0.0

    def compute(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        nonlocal clock
        calls.append(len(images))
        clock += 0.3
        return np.zeros((len(images), 1), np.float32)

    monkeypatch.setattr("msresnet.serve.worker.time.monotonic", lambda: clock)
    worker._warm_up(compute, (1, 8, 8), 4)
    assert calls == [2, 3, 4]
    worker._warm_up(compute, (1, 8, 8), 32)  # of a slow model, as many as there is time for
    assert calls[3:] == [2, 3, 4, 5]


def test_a_number_of_images_that_cannot_be_computed_keeps_no_server_from_starting() -> None:
    def compute(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        calls.append(len(images))
        if len(images) > 2:
            raise MemoryError
        return np.zeros((len(images), 1), np.float32)

    calls: list[int] = []
    worker._warm_up(compute, (1, 8, 8), 8)
    assert calls == [2, 3]

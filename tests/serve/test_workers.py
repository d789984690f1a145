"""A process that computes, on its own: what hangs is killed, and the next one computes as before."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from msresnet.serve import workers
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
        worker = ProcessWorker(Opening(str(model), "auto", engine, "auto", 1, 4))  # type: ignore[arg-type]
        await worker.start()
        hangs = worker.process
        assert hangs is not None
        os.kill(hangs.pid, signal.SIGSTOP)
        with pytest.raises(WorkerDied):
            await worker.compute(images)
        assert await hangs.wait() == -signal.SIGKILL
        monkeypatch.setattr(workers, "SLOWEST_BATCH", 30.0)
        await worker.start()
        np.testing.assert_allclose(await worker.compute(images), outputs(model, images), atol=1e-5)
        await worker.stop()

    asyncio.run(asyncio.wait_for(whole(), 100))

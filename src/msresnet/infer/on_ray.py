"""The same prediction over shards on the machines of a Ray cluster (or on this one): a worker for each GPU or core.

Ray only places the workers and brings a lost one back; what is answered, and how, is as without it. All machines see
the shards and the folder of answers under the same paths, and have msresnet installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msresnet.bundle import Bundle
from msresnet.errors import MsresnetError, ResourceError, first_line
from msresnet.infer.config import PredictConfig
from msresnet.infer.sharded import Outcome, Tally, Worker
from msresnet.infer.shards import Shard
from msresnet.runtime import StopRequest


class RemoteWorker:
    """A worker in a process of Ray's; it is made at the first call, so that what it lacks is an answer like others."""

    def __init__(self, config: PredictConfig) -> None:
        self.config = config
        self.worker: Worker | None = None

    def ready(self) -> None:
        """Return when there is such a process."""

    def do(self, shard: Shard, place: list[Any]) -> Outcome:
        """As `Worker.do`. `place` holds where the model lies in Ray's store, so that it is fetched once."""
        if self.worker is None:
            self.worker = Worker(_ray().get(place[0]), self.config, StopRequest())
        return self.worker.do(shard)


def work_on_ray(
    given: Bundle | Path, config: PredictConfig, shards: Sequence[Shard], note: Callable[[Outcome, Tally], None]
) -> Tally:
    """Answer all shards that nobody else is at.

    Args:
        given, config: as `Worker` takes them.
        shards: with absolute paths.
        note: is told of each shard that was answered or failed.

    Raises ResourceError without Ray, or when its processes are lost for good; what `Worker` raises.
    """
    ray = _ray()
    tally, todo = Tally(), list(reversed(shards))
    with _connected(ray):
        place = [ray.put(given)]
        actors = _actors(ray, len(shards), config)
        # A worker without a place yet (the cluster is busy, or still grows) is given nothing, and not waited for.
        pending = {actor.ready.remote(): actor for actor in actors}
        working = 0
        while todo or working:
            done, _ = ray.wait(list(pending), num_returns=1)
            actor = pending.pop(done[0])
            outcome = _result(ray, done[0])
            if outcome is not None:
                working -= 1
                tally.add(outcome)
                if outcome.state in ("answered", "failed"):
                    note(outcome, tally)
            if todo:
                pending[actor.do.remote(todo.pop(), place)] = actor
                working += 1
    return tally


def _ray() -> Any:
    # Set before Ray is imported: nothing is reported to anybody that the user did not ask for.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ResourceError("--engine ray needs Ray", why=str(error), hint='pip install "msresnet[ray]"') from error
    return ray


@contextmanager
def _connected(ray: Any) -> Iterator[None]:
    """Within this, a cluster: the one of RAY_ADDRESS or of this machine, else one for the time being."""
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError) as error:
            why = first_line(error)
            raise ResourceError("Ray cannot be reached or started", why=why, hint="ray status; RAY_ADDRESS") from error
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def _actors(ray: Any, most: int, config: PredictConfig) -> list[Any]:
    """Workers for all GPUs, else for all cores, but not more than there are shards."""
    there = ray.cluster_resources()
    gpus = 0 if config.device == "cpu" else int(there.get("GPU", 0))
    needs = {"num_cpus": 1, "num_gpus": 1 if gpus else 0, "max_restarts": -1, "max_task_retries": -1}
    remote = ray.remote(**needs)(RemoteWorker)
    return [remote.remote(config) for _ in range(min(most, gpus or max(1, int(there.get("CPU", 1)))))]


def _result(ray: Any, done: Any) -> Outcome | None:
    try:
        found: Outcome | None = ray.get(done)
        return found
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, MsresnetError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        why = first_line(error)
        raise ResourceError("a process of Ray's is lost", why=why, hint="the same command continues") from error

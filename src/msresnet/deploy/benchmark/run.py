"""All contestants in turn, round by round, each in a process of its own: what disturbs hits all alike."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from msresnet.deploy.benchmark.contestants import Contestant
from msresnet.errors import ResourceError

MODULE = "msresnet.deploy.benchmark.worker"


@dataclass
class Measured:
    """What was measured of a contestant.

    Args:
        contestant: who.
        known: what its process says of it: precision, device, params, macs.
        start: seconds from the beginning of its process to its first answer.
        calls: the seconds of every call, by batch, round by round.
        memory: the most bytes that its process held.
        figures: accuracy, where it was measured.
        error: why there is none of this.
    """

    contestant: Contestant
    known: dict[str, Any] = field(default_factory=dict)
    start: float = 0.0
    calls: dict[int, list[list[float]]] = field(default_factory=dict)
    memory: int = 0
    figures: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def rate(self, batch: int) -> float:
        """Images a second: the median over the rounds."""
        return statistics.median(batch * len(calls) / sum(calls) for calls in self.calls[batch])

    def latency(self, batch: int, share: float) -> float:
        """Seconds of a call that this share of all calls did not exceed."""
        return float(np.quantile(np.concatenate(self.calls[batch]), share))

    def reached(self, batch: int, peaks: dict[str, float]) -> float | None:
        """The share of the processor's arithmetic that the network used; None where either is not known."""
        peak = peaks.get(self.known["precision"]) if self.known["device"] == "cpu" else None
        macs = self.known["macs"]
        return 2 * macs * self.rate(batch) / peak if peak and macs else None


class Process:
    """A contestant's process, waiting for orders."""

    def __init__(self, contestant: Contestant) -> None:
        self.measured = Measured(contestant)
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", MODULE, json.dumps(contestant.asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.measured.known = self._answer()
        self.measured.start = time.perf_counter() - begin
        self.measured.error = self.measured.known.get("error", "")

    def measure(self, batch: int, seconds: float) -> None:
        """One round of a batch."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"batch": batch, "seconds": seconds}) + "\n")
        self.process.stdin.flush()
        found = self._answer()
        self.measured.calls.setdefault(batch, []).append(found["seconds"])
        self.measured.memory = max(self.measured.memory, found["memory"])

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            name = f"{self.measured.contestant.model}, {self.measured.contestant.way}"
            code = self.process.wait()
            raise ResourceError(f"the process of {name} ended with {code}", why="too little memory?", hint="-v")
        found: dict[str, Any] = json.loads(line)
        return found


def measure_all(
    chosen: Sequence[Contestant],
    batches: Sequence[int],
    rounds: int,
    seconds: float,
    tell: Callable[[str], object] = lambda line: None,
) -> tuple[list[Measured], list[str]]:
    """Measure contestants; what was found, and who cannot run and why. Raises ResourceError where a process is lost.

    `tell` is given a line for each contestant that is ready, and for each round.
    """
    processes: list[Process] = []
    try:
        for number, contestant in enumerate(chosen, 1):
            processes.append(Process(contestant))  # one by one: what was begun is ended below, whatever happens
            tell(f"{number} of {len(chosen)} ready: {contestant.model}, {contestant.way}")
        able = [process for process in processes if not process.measured.error]
        for number in range(1, rounds + 1):
            for process in able:
                for batch in batches:
                    process.measure(batch, seconds)
            tell(f"round {number} of {rounds}")
    finally:
        for process in processes:
            process.close()
    failed = [process.measured for process in processes if process.measured.error]
    words = [f"{each.contestant.model}, {each.contestant.way}: {each.error}" for each in failed]
    return [process.measured for process in able], words

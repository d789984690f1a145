"""All contestants in turn, round by round, each in a process of its own: what disturbs hits all alike."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from msresnet.deploy.benchmark.contestants import Contestant
from msresnet.errors import ResourceError

MODULE = "msresnet.deploy.benchmark.worker"
MOST_WORDS = 300
"""Characters of a process's last line that are told."""


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
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - to its end
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", MODULE, json.dumps(contestant.asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.measured.known = self._answer()
        self.measured.start = time.perf_counter() - begin

    def measure(self, batch: int, seconds: float) -> None:
        """One round of a batch, unless there was an error before."""
        if self.measured.error:
            return
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # what is gone gives no answer, and that says so
            self.process.stdin.write(json.dumps({"batch": batch, "seconds": seconds}) + "\n")
            self.process.stdin.flush()
        found = self._answer()
        if not self.measured.error:
            self.measured.calls.setdefault(batch, []).append(found["seconds"])
            self.measured.memory = max(self.measured.memory, found["memory"])

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found: dict[str, Any] = json.loads(line) if line.endswith("\n") else {"error": self._end()}
        self.measured.error = found.get("error", "")
        return found

    def _end(self) -> str:
        """How it ended, and its last words."""
        code = self.process.wait()
        if code == -signal.SIGKILL:  # which leaves no time for words
            return str(ResourceError("its process was killed", why="for lack of memory the system kills too"))
        self.errors.seek(0)
        words = self.errors.read().split("\n")
        last = next((line.strip() for line in reversed(words) if line.strip()), "")
        return str(ResourceError(f"its process ended with {code}", why=last[:MOST_WORDS]))


def measure_all(
    chosen: Sequence[Contestant],
    batches: Sequence[int],
    rounds: int,
    seconds: float,
    tell: Callable[[str], object] = lambda line: None,
) -> tuple[list[Measured], list[str]]:
    """Measure contestants; what was found, and who could not run to the end, and why.

    `tell` is given a line for each contestant that is ready, and for each round.
    """
    processes: list[Process] = []
    try:
        for number, contestant in enumerate(chosen, 1):
            processes.append(Process(contestant))  # one by one: what was begun is ended below, whatever happens
            tell(f"{number} of {len(chosen)} ready: {contestant.model}, {contestant.way}")
        for number in range(1, rounds + 1):
            for process in processes:
                for batch in batches:
                    process.measure(batch, seconds)
            tell(f"round {number} of {rounds}")
    finally:
        for process in processes:
            process.close()
    measured = [process.measured for process in processes]
    words = [f"{each.contestant.model}, {each.contestant.way}: {each.error}" for each in measured if each.error]
    return [each for each in measured if not each.error], words

"""The machine: which device and precision, why, and how to stop cleanly."""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch

from msresnet.errors import UsageError, some

ECHO = 5.0
"""Seconds in which a second SIGTERM counts as the first."""
Precision = Literal["fp32", "bf16"]


def choose_device(asked: str) -> tuple[torch.device, str]:
    """The device for 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps', and the reason. Raises UsageError for one not here."""
    if asked == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), f"a GPU is here: {torch.cuda.get_device_name()}"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "an Apple GPU is here"
        return torch.device("cpu"), f"no GPU is here; {some(torch.get_num_threads(), 'thread')}"
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise UsageError(f"unknown device {asked!r}", hint="--device auto, cpu or cuda") from error
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(device.type, False):
        raise UsageError(f"--device {asked}, but there is none", why="torch sees no such device", hint="--device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {asked}, but torch sees {torch.cuda.device_count()} GPUs", hint="--device cuda:0")
    return device, "as asked"


def choose_precision(asked: str, device: torch.device) -> tuple[Precision, str]:
    """bf16 where the hardware computes in it, else fp32, and the reason. Raises UsageError for bf16 without it."""
    fast, reason = _bf16(device)
    if asked == "auto":
        return ("bf16" if fast else "fp32"), reason
    if asked == "fp32":
        return "fp32", "as asked"
    if not fast:
        raise UsageError("--precision bf16 would be slower here, not faster", why=reason, hint="--precision fp32")
    return "bf16", "as asked"


def _bf16(device: torch.device) -> tuple[bool, str]:
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return fast, "the GPU computes in bf16" if fast else "the GPU has no bf16"
    if device.type == "cpu":
        if torch.cpu._is_amx_tile_supported():
            return True, "the CPU has AMX"
        if torch.cpu._is_avx512_bf16_supported():
            return True, "the CPU has AVX512-BF16"
        return False, "the CPU has no bf16 arithmetic"
    return False, "bf16 is not used on this device"


class StopRequest:
    """Remembers that a signal asked to stop; `code` is the exit code to leave with (0: nobody asked).

    With `at_once`, the first signal raises KeyboardInterrupt as well.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.code, self.since, self.at_once = 0, 0.0, at_once

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The first signal asks; the second leaves at once.

        A SIGTERM soon after the first is the same request: launchers and schedulers both pass it on.
        """
        again = number == signal.SIGTERM and time.monotonic() - self.since < ECHO
        if self.code and not again:
            os._exit(128 + number)
        if not self.code:
            self.code, self.since = 128 + number, time.monotonic()
            if self.at_once:
                raise KeyboardInterrupt


@contextmanager
def stop_on_signals(at_once: bool = False) -> Iterator[StopRequest]:
    """Within this, SIGINT and SIGTERM ask instead of killing. Only the main thread can do this; others never stop.

    With `at_once`, both raise KeyboardInterrupt where nothing asks whether to stop.
    """
    request = StopRequest(at_once)
    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        before = [signal.signal(n, request.handle) for n in numbers]
    except ValueError:  # not the main thread
        yield request
        return
    try:
        yield request
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def environment() -> dict[str, Any]:
    """What a result depends on: versions, processor, threads, devices."""
    names = ("torch", "numpy", "pillow", "safetensors", "accelerate", "scikit-learn")
    return {
        "msresnet": version(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names},
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def version() -> str:
    """The installed version of msresnet."""
    return metadata.version("msresnet")


def _processor() -> str:
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next((ln.split(":", 1)[1].strip() for ln in lines if ln.startswith("model name")), platform.machine())
    return platform.processor() or platform.machine()

"""What this process may use of the machine, and bytes in words. No torch here: `--help` reads this file."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def free_memory() -> int:
    """Bytes of memory that can be had without swapping, within the limits of a container."""
    if sys.platform != "linux":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    free = 1024 * int(rows["MemAvailable"].split()[0])
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such group, or "max"
        return free
    return min(free, max(0, limit - used))


def processes_here() -> int:
    """How many processes of a training share this machine's memory, as its launcher says."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def human(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"

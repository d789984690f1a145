"""What this process may use of the machine, and bytes in words. No torch here: `--help` reads this file."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def cores(root: Path = ROOT) -> int:
    """The processor's cores that this process may use, no more than a container or job gives it time on.

    `root` is where the system's own folders are.
    """
    if sys.platform != "linux":
        return os.cpu_count() or 1
    found = len(os.sched_getaffinity(0))
    for group in _groups(root, "cpu"):
        quota, period = _cpu_time(group)
        if quota > 0 and period > 0:  # version 1 says -1 where there is no limit
            found = min(found, math.ceil(quota / period))
    return found


def free_memory(root: Path = ROOT) -> int:
    """Bytes of memory that can be had without swapping, within the limits of a container or job; `root` as above."""
    if sys.platform != "linux":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    free = 1024 * _table(root / "proc/meminfo")["MemAvailable"]
    for group in _groups(root, "memory"):
        limit = _numbers(group / "memory.max", group / "memory.limit_in_bytes")
        used = _numbers(group / "memory.current", group / "memory.usage_in_bytes")
        if limit and used:
            facts = _table(group / "memory.stat")
            # Files that were read and are not in use count as used, though they give way to whoever needs the memory.
            idle = facts.get("total_inactive_file", facts.get("inactive_file", 0))
            free = min(free, max(0, limit[0] - used[0] + idle))
    return free


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the control groups that this process is in, of version 1 and 2, from its own to the outermost.

    A container may see its own group as the outermost, and yet be told of it by the path that it has outside: not all
    the folders exist.
    """
    mounts = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, inner = line.split(":", 2)
        if controller in controllers.split(","):
            bases = [mounts / controller]
        else:
            bases = [] if controllers else [mounts, mounts / "unified"]
        for base in bases:
            own = base / inner.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(base))


def _cpu_time(group: Path) -> tuple[int, int]:
    """Microseconds of all cores together that a group may take in a period, and the period; zeros: no limit."""
    both = _numbers(group / "cpu.max") or [
        number for name in ("quota", "period") for number in _numbers(group / f"cpu.cfs_{name}_us")
    ]
    return (both[0], both[1]) if len(both) == 2 else (0, 0)


def _numbers(*files: Path) -> list[int]:
    """What the first of some files that is there holds; nothing where that is no limit, or there is none."""
    words = next((text for text in map(_text, files) if text), "").split()
    return [] if "max" in words else [int(word) for word in words]


def _table(file: Path) -> dict[str, int]:
    """Names and the numbers behind them, one a line."""
    rows = (line.replace(":", " ").split() for line in _text(file).splitlines())
    return {row[0]: int(row[1]) for row in rows}


def _text(file: Path) -> str:
    """What a file holds; '' for one that cannot be read."""
    try:
        return file.read_text("utf-8", "surrogateescape")
    except OSError:
        return ""


def processes_here() -> int:
    """How many processes of a training share this machine's memory, as its launcher says."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def human(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"

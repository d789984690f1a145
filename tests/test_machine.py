"""What a process may use of a machine, as the files of Linux say it: a made-up tree of them stands for the machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from msresnet.machine import cores, free_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")

GB = 1_000_000_000
CORES, AVAILABLE = 64, 200 * GB
NO_LIMIT = "9223372036854771712"
"""Of memory, as version 1 writes it."""


@pytest.fixture(autouse=True)
def _many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CORES)))


def machine(root: Path, member_of: str, files: Mapping[str, object]) -> Path:
    """A tree with what /proc says of this process, and files below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 250000000 kB\nMemAvailable: {AVAILABLE // 1024} kB\nHugePages: 0\n")
    (root / "proc/self/cgroup").write_text(member_of)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def test_without_groups_the_whole_machine_counts(tmp_path: Path) -> None:
    root = machine(tmp_path, "", {})
    assert cores(root) == CORES
    assert free_memory(root) == AVAILABLE // 1024 * 1024


def test_a_container_of_version_2_with_its_own_view(tmp_path: Path) -> None:
    stat = f"anon 1000\nfile {4 * GB}\ninactive_file {3 * GB}\nactive_file {GB}"
    files = {"memory.max": 8 * GB, "memory.current": 5 * GB, "memory.stat": stat, "cpu.max": "250000 100000"}
    root = machine(tmp_path, "0::/\n", files)
    assert free_memory(root) == 6 * GB
    assert cores(root) == 3


def test_the_narrowest_of_nested_groups_of_version_2_counts(tmp_path: Path) -> None:
    files = {
        "batch.slice/memory.max": 20 * GB,
        "batch.slice/memory.current": 18 * GB,
        "batch.slice/memory.stat": "inactive_file 0",
        "batch.slice/cpu.max": "max 100000",
        "batch.slice/job_7/memory.max": 10 * GB,
        "batch.slice/job_7/memory.current": GB,
        "batch.slice/job_7/memory.stat": "inactive_file 0",
        "batch.slice/job_7/cpu.max": "400000 100000",
        "batch.slice/job_7/step_0/memory.max": "max",
        "batch.slice/job_7/step_0/memory.current": GB,
        "batch.slice/job_8/memory.max": 0,
        "batch.slice/job_8/memory.current": 0,
    }
    root = machine(tmp_path, "0::/batch.slice/job_7/step_0\n", files)
    assert free_memory(root) == 2 * GB
    assert cores(root) == 4


def test_groups_of_version_1_beside_an_empty_version_2(tmp_path: Path) -> None:
    stat = f"inactive_file 0\nhierarchical_memory_limit {6 * GB}\ntotal_inactive_file {GB}"
    files = {
        "memory/memory.limit_in_bytes": NO_LIMIT,
        "memory/memory.usage_in_bytes": 40 * GB,
        "memory/memory.stat": "inactive_file 0\ntotal_inactive_file 0",
        "memory/slurm/job_7/memory.limit_in_bytes": 6 * GB,
        "memory/slurm/job_7/memory.usage_in_bytes": 2 * GB,
        "memory/slurm/job_7/memory.stat": stat,
        "cpu/cpu.cfs_quota_us": -1,
        "cpu/cpu.cfs_period_us": 100_000,
        "cpu/slurm/job_7/cpu.cfs_quota_us": 50_000,
        "cpu/slurm/job_7/cpu.cfs_period_us": 100_000,
        "unified/cgroup.procs": "",
    }
    member = "9:memory:/slurm/job_7\n8:cpu,cpuacct:/slurm/job_7\n1:name=systemd:/x:y\n0::/\n"
    root = machine(tmp_path, member, files)
    assert free_memory(root) == 5 * GB
    assert cores(root) == 1


@pytest.mark.parametrize("inner", ["/docker/4fd2", "/../.."])
def test_a_container_that_is_told_of_its_group_by_the_path_outside(inner: str, tmp_path: Path) -> None:
    first = {"memory.max": 4 * GB, "memory.current": GB, "cpu.max": "100000 100000"}
    second = {
        "memory/memory.limit_in_bytes": 4 * GB,
        "memory/memory.usage_in_bytes": GB,
        "cpu/cpu.cfs_quota_us": 100_000,
        "cpu/cpu.cfs_period_us": 100_000,
    }
    for name, member, files in (
        ("first", f"0::{inner}\n", first),
        ("second", f"5:memory:{inner}\n3:cpu,cpuacct:{inner}\n", second),
    ):
        root = machine(tmp_path / name, member, files)
        assert free_memory(root) == 3 * GB
        assert cores(root) == 1


def test_a_group_that_has_used_up_its_memory_has_none_left(tmp_path: Path) -> None:
    files = {"memory.max": GB, "memory.current": GB + 4096, "memory.stat": "inactive_file 0"}
    assert free_memory(machine(tmp_path, "0::/\n", files)) == 0

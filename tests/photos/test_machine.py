"""How much memory is left to processes, read from made-up files of the kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vladmap.photos.machine import free_memory, usable_cores

GIB = 1 << 30


def kernel(
    folder: Path, groups: str, files: dict[str, str], available: int = 8 * GIB
) -> int | None:
    """free_memory() of a machine with `available` bytes, and control groups with such files."""
    proc, cgroups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    meminfo = f"MemTotal: 1 kB\nMemAvailable: {available // 1024} kB\n"
    (proc / "meminfo").write_text(meminfo)
    (proc / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        (cgroups / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroups / name).write_text(text)
    return free_memory(proc, cgroups)


def test_without_limits_it_is_what_the_kernel_has_available(tmp_path: Path) -> None:
    files = {"memory.max": "max\n", "memory.current": "5\n"}
    assert kernel(tmp_path, "0::/\n", files) == 8 * GIB


def test_the_limit_of_any_group_above_the_process_counts(tmp_path: Path) -> None:
    """Of 4 GiB 3 are used, 1 of them by files that nobody reads: 2 GiB are left."""
    files = {
        "a/memory.max": str(4 * GIB),
        "a/memory.current": str(3 * GIB),
        "a/memory.stat": f"anon 7\ninactive_file {GIB}\n",
        "a/b/memory.max": "max\n",
        "a/b/memory.current": "5\n",
    }
    assert kernel(tmp_path, "0::/a/b\n", files) == 2 * GIB


def test_limits_of_the_older_control_groups_count(tmp_path: Path) -> None:
    files = {
        "memory/a/memory.limit_in_bytes": str(2 * GIB),
        "memory/a/memory.usage_in_bytes": str(GIB),
        "memory/memory.limit_in_bytes": str(2**63 - 4096),
        "memory/memory.usage_in_bytes": str(GIB),
    }
    assert kernel(tmp_path, "9:cpu:/a\n4:memory:/a\n0::/\n", files) == GIB


def test_a_group_that_is_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    files = {"memory.max": str(GIB), "memory.current": str(2 * GIB)}
    assert kernel(tmp_path, "0::/\n", files) == 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_a_process_that_is_bound_to_one_core_uses_one() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)

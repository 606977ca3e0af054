"""How many cores and how much memory of this machine a process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
# Where a control group has no bound, version 1 gives the largest whole number of pages.
_NO_BOUND = 1 << 60


def usable_cores() -> int:
    """Return how many cores this process may run on: those of its affinity, not all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def free_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """Return the bytes of memory that processes may still take; None where nothing tells.

    On Linux that is what the kernel estimates to be available without swapping, or what the limits
    of the control groups leave (those of a container), whichever is less. Elsewhere half of the
    machine's memory.
    """
    known = [*_available(proc), *_left_by_groups(proc, cgroups)]
    if known:
        return max(0, min(known))
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):
        return None


def _available(proc: Path) -> Iterator[int]:
    for line in _lines(proc / "meminfo"):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _left_by_groups(proc: Path, cgroups: Path) -> Iterator[int]:
    """What each limit on this process leaves: its control group's and those of all above it."""
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = cgroups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # In a container the path may be that on the host, which is not there: its root is its own.
        group = root / path.strip("/")
        for folder in (group, *group.parents):
            yield from _left(folder, *names)
            if folder == root:
                break


def _left(folder: Path, limit: str, usage: str, cache: str) -> Iterator[int]:
    bound, used = ("".join(_lines(folder / name)) for name in (limit, usage))
    if not (bound.isdigit() and used.isdigit()) or int(bound) >= _NO_BOUND:
        return
    # Pages of files that nobody uses are given back before anything is killed.
    idle = next(
        (int(line.split()[1]) for line in _lines(folder / "memory.stat") if line.startswith(cache)),
        0,
    )
    yield int(bound) - int(used) + idle


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []

"""What the host allows this process: cores and memory, by the machine, by affinity and by every cgroup above it (v1 and v2)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wansweep.telemetry.host import machine_memory

_NO_LIMIT = 2**60  # v1 writes "none" as the largest page-aligned int64


@dataclass(frozen=True, kw_only=True, slots=True)
class HostLimits:
    """What this process may use.

    Attributes:
        logical_cores: Of the machine.
        usable_cores: The least of affinity and CPU quota; may be a fraction.
        memory_bytes: Of the machine. May grow during a run on a virtual machine with a balloon.
        memory_limit_bytes: The lowest limit of the cgroups above this process; null when none sets one below the machine's memory.
    """

    logical_cores: int
    usable_cores: float
    memory_bytes: int
    memory_limit_bytes: int | None


def host_limits(*, proc: Path = Path("/proc"), sys: Path = Path("/sys/fs/cgroup")) -> HostLimits:
    """What this process may use; the folders are there for tests."""
    logical = os.cpu_count() or 1
    memory_bytes = machine_memory().get("MemTotal", 0)
    quotas: list[float] = []
    limits: list[int] = []
    for folder in _cgroups(proc, sys):
        quotas += _cpu_quota(folder)
        limits += [limit for name in ("memory.max", "memory.limit_in_bytes") if (limit := _number(folder / name)) is not None]
    limit = min((limit for limit in limits if limit < min(_NO_LIMIT, memory_bytes)), default=None)
    return HostLimits(
        logical_cores=logical,
        usable_cores=min([float(len(os.sched_getaffinity(0))), *quotas]),
        memory_bytes=memory_bytes,
        memory_limit_bytes=limit,
    )


def available_memory_bytes(*, proc: Path = Path("/proc"), sys: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Host memory that can be had without swapping: the least of the machine's MemAvailable and what each cgroup above leaves.

    File pages that a cgroup would drop first count as free, as in MemAvailable. Null where /proc/meminfo cannot be read.
    """
    machine = machine_memory(proc).get("MemAvailable")
    if machine is None:
        return None
    left = [room for folder in _cgroups(proc, sys) if (room := _room(folder)) is not None]
    return max(0, min([machine, *left]))


def _room(folder: Path) -> int | None:
    """Bytes that one cgroup has left; null when it sets no limit."""
    v2 = _number(folder / "memory.max")
    limit = v2 if v2 is not None else _number(folder / "memory.limit_in_bytes")
    used = _number(folder / ("memory.current" if v2 is not None else "memory.usage_in_bytes"))
    if limit is None or limit >= _NO_LIMIT or used is None:
        return None
    try:
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        stat = {}
    return limit - used + int(stat.get("inactive_file" if v2 is not None else "total_inactive_file", 0))


def _cgroups(proc: Path, sys: Path) -> Iterator[Path]:
    """This process's cgroup folders, each followed by those above it: a limit anywhere on the way holds."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        mounts = [sys / name for name in (*controllers.split(","), controllers) if name] if controllers else [sys, sys / "unified"]
        # In a container the path is the host's and may not exist below the mount: its parents, down to the mount itself, do.
        for mount in mounts:
            for part in (PurePosixPath(path), *PurePosixPath(path).parents):
                folder = mount / str(part).lstrip("/")
                if folder.is_dir():
                    yield folder


def _cpu_quota(folder: Path) -> list[float]:
    """Cores that the folder grants: none or one figure."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return [] if quota == "max" else [int(quota) / int(period)]
    except (OSError, ValueError):
        pass
    quota_us, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return [quota_us / period_us] if quota_us is not None and period_us and quota_us > 0 else []


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.lstrip("-").isdigit() else None

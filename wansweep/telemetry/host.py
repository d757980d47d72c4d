"""What the host says of a process tree and of itself, read from /proc: counters for stage boundaries and gauges for the sampler.

Linux only, no torch. A counter is read at both ends of a stage and subtracted, so it holds for a stage of any length; nothing here
remembers an interval, unlike psutil.cpu_percent, which gives 0.0 on its first call and leaves children out (measured in a stage
with a busy child: 27 % for a true 69 %). What the machine allows (cores, cgroup limits) is limits.py.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from wansweep.telemetry.samples import Missing, Reading
from wansweep.units import KIB

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
TREE_REFRESH_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeMemory:
    """Memory of a process tree, from /proc/PID/status.

    Attributes:
        rss_bytes: Resident pages, the touched pages of mapped weight files included; a page that two processes share counts twice.
        anonymous_bytes: The part that no file backs, and that therefore cannot be dropped: RssAnon + RssShmem.
        processes: How many there were.
    """

    rss_bytes: int
    anonymous_bytes: int
    processes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Counters:
    """Counters at one moment; the difference of two is what a stage used.

    Attributes:
        t_s: On CLOCK_MONOTONIC.
        cpu_s: CPU seconds of the tree, with children that have ended and were waited for.
        ended_s: The part of ``cpu_s`` that children left who have ended; moves in steps of 10 ms, when one ends.
        cpu_resolution_s: Steps in which the rest moves: nanoseconds for this process alone, 10 ms while there are children.
        read_bytes: Bytes this process made disks deliver, page faults on mapped files included; 0 for what the page cache had.
        read_call_bytes: Bytes that came through read calls, from disk or cache.
        major_faults: Page faults of this process that waited for a disk.
    """

    t_s: float
    cpu_s: float
    ended_s: float
    cpu_resolution_s: float
    read_bytes: int | None
    read_call_bytes: int | None
    major_faults: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stat:
    """One line of /proc/PID/stat, the fields needed here."""

    parent: int
    cpu_s: float
    born: int


class Tree:
    """A process and all its descendants.

    Who belongs to it is looked up by a scan of /proc once a `TREE_REFRESH_S`; between scans only the known are read. A child that was
    born and ended between two scans still counts, through the times its parent inherited when it waited for it.

    Attributes:
        root: Pid of the process at the top.
        without: Pids that are left out, and all below them: the sampler is a child of what it measures.
    """

    def __init__(self, root: int, *, without: Collection[int] = (), refresh_s: float = TREE_REFRESH_S) -> None:
        self.root = root
        self.without = frozenset(without)
        self._refresh_s = refresh_s
        self._scanned_s = -refresh_s
        self._born: dict[int, int] = {}

    def pids(self) -> tuple[int, ...]:
        """The processes of the tree; empty when the root is gone."""
        now_s = time.monotonic()
        if now_s - self._scanned_s >= self._refresh_s:
            self._born, self._scanned_s = _descendants(self.root, self.without), now_s
        return tuple(self._born)

    def cpu_s(self) -> float | None:
        """CPU seconds of the tree since its processes began, in steps of 10 ms; null when the root is gone."""
        stats = self._stats()
        return sum(stat.cpu_s for stat in stats.values()) if self.root in stats else None

    def memory(self) -> TreeMemory | None:
        """Memory of the tree, about 0.05 ms a process; null when the root is gone."""
        rows = [row for pid in self.pids() if (row := _sizes(f"/proc/{pid}/status")) is not None and "VmRSS" in row]
        if not rows:
            return None
        return TreeMemory(
            rss_bytes=sum(row["VmRSS"] for row in rows),
            anonymous_bytes=sum(row.get("RssAnon", 0) + row.get("RssShmem", 0) for row in rows),
            processes=len(rows),
        )

    def pss_bytes(self) -> int | Missing:
        """Resident memory with shared pages divided among their owners, so that processes add up.

        It walks the page tables, 8 ms a resident GiB of 4 KiB pages: for the sampler, not for a stage boundary. One process of the tree
        that does not let it be read makes the whole unreadable.
        """
        total = 0
        for pid in self.pids():
            row = _sizes(f"/proc/{pid}/smaps_rollup")
            if row is not None:
                total += row.get("Pss", 0)
            elif "VmRSS" in (_sizes(f"/proc/{pid}/status") or {}):  # alive, with memory of its own, and closed to us
                return Missing.NO_PERMISSION
        return total if total else Missing.NO_SAMPLE

    def _stats(self, *, without: int | None = None) -> dict[int, _Stat]:
        read = {pid: _stat(pid) for pid in self.pids() if pid != without}
        return {pid: stat for pid, stat in read.items() if stat is not None and stat.born == self._born[pid]}


def counters(tree: Tree) -> Counters:
    """The counters now, of a tree whose root is this very process.

    About 0.03 ms for a process without children, whose own figures need no more than one file of /proc; a scan for new children
    comes on top once a ``refresh_s`` of the tree.
    """
    assert tree.root == os.getpid(), "counters are read by the process they are of"
    others = [stat.cpu_s for pid, stat in tree._stats(without=tree.root).items()]
    times = os.times()
    ended_s = times.children_user + times.children_system
    read_bytes, read_call_bytes = _io()
    return Counters(
        t_s=time.monotonic(),
        cpu_s=time.process_time() + ended_s + sum(others),
        ended_s=ended_s,
        cpu_resolution_s=TICK_S if others else 1e-6,
        read_bytes=read_bytes,
        read_call_bytes=read_call_bytes,
        major_faults=resource.getrusage(resource.RUSAGE_SELF).ru_majflt,
    )


def cpu_pct(before: Counters, after: Counters) -> Reading:
    """CPU use between two readings in percent of one core: 200 is two cores busy.

    Null, ``too_short``, when one step of the counter is more than a twentieth of the window.
    """
    wall_s = after.t_s - before.t_s
    resolution_s = max(before.cpu_resolution_s, after.cpu_resolution_s, 0.0 if before.ended_s == after.ended_s else TICK_S)
    if wall_s <= 0 or resolution_s > wall_s / 20:
        return Reading.missing(Missing.TOO_SHORT)
    if after.cpu_s < before.cpu_s:  # a child ended that nobody waited for, and took its seconds with it
        return Reading.missing(Missing.ERROR)
    return Reading(value=100 * (after.cpu_s - before.cpu_s) / wall_s)


def machine_memory(proc: Path = Path("/proc")) -> dict[str, int]:
    """The machine's memory as /proc/meminfo has it, in bytes: MemTotal, MemAvailable, SwapTotal, SwapFree and the rest."""
    return _sizes(str(proc / "meminfo")) or {}


def _read(path: str) -> bytes | None:
    """A /proc file; null when it is gone or closed to us. By os.read, at half the price of Path.read_bytes."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, 1 << 16)
    except OSError:  # its process ended just now
        return None
    finally:
        os.close(fd)


def _sizes(path: str) -> dict[str, int] | None:
    """The ``Name: 123 kB`` lines of a /proc file in bytes; null when it cannot be read."""
    text = _read(path)
    if not text:
        return None
    rows = (line.split() for line in text.decode("ascii", "replace").splitlines() if line.endswith(" kB"))
    return {row[0].rstrip(":"): int(row[1]) * KIB for row in rows if len(row) == 3}


def _stat(pid: int) -> _Stat | None:
    """Counted from the last bracket, because a process may have blanks and brackets in its name."""
    fields = (_read(f"/proc/{pid}/stat") or b"").rpartition(b")")[2].split()
    if len(fields) < 20:
        return None
    return _Stat(parent=int(fields[1]), cpu_s=sum(map(int, fields[11:15])) * TICK_S, born=int(fields[19]))


def _descendants(root: int, without: frozenset[int]) -> dict[int, int]:
    """The tree's processes and when each was born, by which a reused pid is told from its former owner."""
    stats = {int(name): stat for name in os.listdir("/proc") if name.isdigit() and (stat := _stat(int(name))) is not None}  # noqa: PTH208
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        children.setdefault(stat.parent, []).append(pid)
    found: dict[int, int] = {}
    todo = [root] if root in stats else []
    while todo:
        pid = todo.pop()
        found[pid] = stats[pid].born
        todo += set(children.get(pid, ())) - without
    return found


def _io() -> tuple[int | None, int | None]:
    text = _read("/proc/self/io")
    if not text:  # closed to us in some containers
        return None, None
    fields = dict(line.split(b": ") for line in text.splitlines())
    return int(fields[b"read_bytes"]), int(fields[b"rchar"])

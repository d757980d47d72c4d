"""Counters read at the edges of stages: CPU seconds, bytes from disk, allocator peaks, energy. They suit a stage of any length.

What is sampled (SM activity, clocks, PSS) comes from the sampler process and is joined afterwards (`telemetry.attribute`).
"""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass, field

from wansweep.record import Figure
from wansweep.telemetry import torch_probe
from wansweep.telemetry.host import Counters, Tree, counters, cpu_pct
from wansweep.telemetry.join import increase
from wansweep.telemetry.nvml import EnergyCounter
from wansweep.telemetry.samples import Missing, Reading
from wansweep.telemetry.torch_probe import TorchMemory

# What torch_probe.memory peaks at; levels are merged by their maximum.
_PEAKS = ("peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes", "pinned_bytes")
# A scan of /proc for new children costs more than all else at an edge.
_TREE_REFRESH_S = 5.0
# One stage's end is the next one's begin: a reading that is no older serves both. Halves what measuring costs.
_SAME_EDGE_S = 0.002
# Memory of the process tree is read at the end of longer stages only; 40 us would be much of a stage that places nothing.
_MEMORY_FROM_S = 0.005


@dataclass(kw_only=True)
class _Level:
    """One open stage: its counters at its begin, and the highest peaks seen in it and in the stages inside it."""

    before: Counters
    energy: Reading
    peaks: dict[str, int] = field(default_factory=dict)
    why: Missing | None = None

    def see(self, memory: TorchMemory) -> None:
        self.why = memory.why
        for name in _PEAKS:
            if (value := getattr(memory, name)) is not None:
                self.raise_to(name, value)

    def raise_to(self, name: str, value: int) -> None:
        self.peaks[name] = max(value, self.peaks.get(name, 0))


class Probe:
    """Reads counters at begin and end of nested stages of this process.

    The allocator has one set of peaks, which every edge resets, so each level keeps the highest of its own and hands it to the level above.
    """

    def __init__(self, energy: EnergyCounter | None = None) -> None:
        self._tree = Tree(os.getpid(), refresh_s=_TREE_REFRESH_S)
        self._energy = energy
        self._open: list[_Level] = []
        self._last: tuple[Counters, Reading] | None = None

    def begin(self) -> None:
        """A stage begins."""
        if self._last is not None and time.monotonic() - self._last[0].t_s < _SAME_EDGE_S:
            before, energy = self._last
        else:
            before, energy = counters(self._tree), self._read_energy()
            memory = torch_probe.memory()
            if self._open:
                self._open[-1].see(memory)
            torch_probe.reset_peaks()
        self._open.append(_Level(before=before, energy=energy))

    def end(self) -> dict[str, Figure]:
        """The innermost stage ends; its figures by column name."""
        after, energy, memory = counters(self._tree), self._read_energy(), torch_probe.memory()
        self._last = (after, energy)
        level = self._open.pop()
        level.see(memory)
        if self._open:
            for name, value in level.peaks.items():
                self._open[-1].raise_to(name, value)
        torch_probe.reset_peaks()
        wall_s = after.t_s - level.before.t_s
        return {
            "cpu_s": Figure(value=after.cpu_s - level.before.cpu_s),
            "cpu_pct": _figure(cpu_pct(level.before, after)),
            "read_bytes": _difference(level.before.read_bytes, after.read_bytes),
            "host_rss_bytes": self._memory() if wall_s >= _MEMORY_FROM_S else Figure(value=None, why=Missing.TOO_SHORT),
            "energy_j": _figure(increase(level.energy, energy, metric="energy_j", wall_s=wall_s)),
            **{name: _peak(level, name) for name in _PEAKS},
        }

    def _memory(self) -> Figure:
        tree = self._tree.memory()
        return Figure(value=tree.rss_bytes) if tree else Figure(value=None, why=Missing.NO_SAMPLE)

    def _read_energy(self) -> Reading:
        return self._energy.read_j() if self._energy else Reading.missing(Missing.UNSUPPORTED)


def _figure(reading: Reading) -> Figure:
    return Figure(**dataclasses.asdict(reading))


def _peak(level: _Level, name: str) -> Figure:
    value = level.peaks.get(name)
    return Figure(value=value, why=None if value is not None else level.why or Missing.UNSUPPORTED)


def _difference(before: int | None, after: int | None) -> Figure:
    if before is None or after is None:
        return Figure(value=None, why=Missing.NO_PERMISSION)
    return Figure(value=after - before)

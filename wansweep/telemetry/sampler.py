"""The sampler process: ``python -m wansweep.telemetry.sampler --gpus UUID,... --pid PID,... --out FILE``.

A process and never a thread: beside a stage that holds the GIL in one C call a thread took 1 of 63 samples, a process 48 of 48
(measured). It imports no torch, whose CUDA context would take half a GiB of what it measures. It ends when its parent ends, by three
ways: stdin reaches its end, the parent is no longer the parent, the kernel's parent-death signal. The signal alone would not do: it
also comes when merely the *thread* that started us ends, so it is only a reason to look.
A trial starts one by sampling.Sampling.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from wansweep.telemetry.gpu_reader import GpuReader
from wansweep.telemetry.host import Tree, machine_memory
from wansweep.telemetry.nvml import library
from wansweep.telemetry.samples import GPU_QUANTITIES, HOST, Missing, Sample, host_device
from wansweep.telemetry.trace import Cost, Start, TraceWriter

HOST_PERIOD_S = 0.2
PSS_SHARE = 0.05  # of the time at most, because reading it walks the page tables of the process under measurement
READY = "ready"
_PR_SET_PDEATHSIG = 1


class HostReader:
    """Reads the process trees under measurement, and the machine's memory."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._trees = tuple(Tree(pid, without=(os.getpid(),)) for pid in pids)
        self._due_s = 0.0
        self._pss_due_s = dict.fromkeys(pids, 0.0)

    def read(self, *, all_now: bool = False) -> list[Sample]:
        """Everything that is due: all each 200 ms, PSS as often as it costs no more than a twentieth of the time.

        Args:
            all_now: Whatever is due: the first and the last reading, between which counters hold.
        """
        now_s = time.monotonic()
        if now_s < self._due_s and not all_now:
            return []
        self._due_s = now_s + HOST_PERIOD_S
        memory = machine_memory()
        samples = [
            _sample(now_s, HOST, "host_available_bytes", memory.get("MemAvailable")),
            _sample(now_s, HOST, "swap_used_bytes", memory.get("SwapTotal", 0) - memory.get("SwapFree", 0)),
        ]
        for tree in self._trees:
            samples += self._read(tree, all_now=all_now)
        return samples

    def _read(self, tree: Tree, *, all_now: bool) -> list[Sample]:
        tree.pids()  # a scan of /proc, when one is due, comes before the time is taken
        device, now_s, cpu_s, memory = host_device(tree.root), time.monotonic(), tree.cpu_s(), tree.memory()
        samples = [
            _sample(now_s, device, "host_cpu_s", cpu_s),
            _sample(now_s, device, "host_rss_bytes", memory.rss_bytes if memory else None),
            _sample(now_s, device, "host_anonymous_bytes", memory.anonymous_bytes if memory else None),
        ]
        if now_s >= self._pss_due_s[tree.root] or all_now:
            before_s = time.thread_time()
            samples.append(_sample(now_s, device, "host_pss_bytes", tree.pss_bytes()))
            self._pss_due_s[tree.root] = now_s + (time.thread_time() - before_s) / PSS_SHARE
        return samples


class Rounds:
    """The loop's account of itself."""

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.start_s = self.last_s = time.monotonic()
        self.ticks = self.late = 0
        self.nvml_reads = 0
        self.nvml_sum_s = self.nvml_max_s = 0.0
        self._offset_s = _wall_minus_monotonic_s()

    def tick(self) -> None:
        """A round begins."""
        now_s = time.monotonic()
        self.late += now_s - self.last_s > 2 * self.period_s
        self.last_s, self.ticks = now_s, self.ticks + 1

    def nvml(self, spent_s: float) -> None:
        """One GPU was read."""
        self.nvml_reads += 1
        self.nvml_sum_s += spent_s
        self.nvml_max_s = max(self.nvml_max_s, spent_s)

    def cost(self, readers: Sequence[GpuReader], writer: TraceWriter) -> Cost:
        """The account, at the end."""
        driver_reads = sum(reader.driver_reads for reader in readers)
        return Cost(
            wall_s=time.monotonic() - self.start_s,
            cpu_s=time.process_time(),
            ticks=self.ticks,
            late_ticks=self.late,
            nvml_mean_s=self.nvml_sum_s / self.nvml_reads if self.nvml_reads else None,
            nvml_max_s=self.nvml_max_s if self.nvml_reads else None,
            driver_mean_s=sum(reader.driver_s for reader in readers) / driver_reads if driver_reads else None,
            clock_step_s=_wall_minus_monotonic_s() - self._offset_s,
            lost_samples=writer.lost_samples,
            error=writer.error,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Samples until told to stop; prints a line when it begins and its `Cost` when it ends, both as JSON."""
    options = _options(arguments)
    parent = os.getppid()
    stop = _Stop(parent)
    with ExitStack() as open_things:
        nvml = open_things.enter_context(library())
        writer = open_things.enter_context(TraceWriter(options.out))
        readers = [] if nvml else [GpuReader(uuid) for uuid in options.gpus]
        host = HostReader(options.pid)
        writer.start(Start(t_s=time.monotonic(), wall_minus_monotonic_s=_wall_minus_monotonic_s(), period_s=options.period, nvml=nvml))
        if nvml:
            now_s = time.monotonic()
            writer.add(_sample(now_s, uuid, quantity.name, nvml) for uuid in options.gpus for quantity in GPU_QUANTITIES)
        rounds = Rounds(options.period)
        _round(rounds, readers, host, writer, all_now=True)
        _say({READY: writer.error})
        while not stop.wait(options.period):
            _round(rounds, readers, host, writer)
        _round(rounds, readers, host, writer, all_now=True)
        cost = rounds.cost(readers, writer)
        for reader in readers:
            reader.close()
        writer.end(cost)
        _say(dataclasses.asdict(dataclasses.replace(cost, error=writer.error)))
    return 0


def _round(rounds: Rounds, readers: Sequence[GpuReader], host: HostReader, writer: TraceWriter, *, all_now: bool = False) -> None:
    rounds.tick()
    for reader in readers:
        start_s = time.monotonic()
        samples = reader.read(all_now=all_now)
        rounds.nvml(time.monotonic() - start_s)
        writer.add(samples)
    writer.add(host.read(all_now=all_now))
    # The heartbeat: where it is missing, so is everything else, and the length says what the round cost.
    now_s = time.monotonic()
    writer.add([_sample(now_s, HOST, "sampler_tick_s", now_s - rounds.last_s)])


class _Stop:
    """Whether to go on: not without a parent, not after the end of stdin, not after a polite signal."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._told = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._tell)
        signal.signal(signal.SIGHUP, self._look)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGHUP), 0, 0, 0)

    def wait(self, seconds: float) -> bool:
        """Sleeps one period, or less when it is over; whether it is over."""
        readable, _, _ = select.select([0], [], [], seconds)
        return bool(readable and not os.read(0, 1 << 12)) or self._told or os.getppid() != self._parent

    def _tell(self, number: int, frame: FrameType | None) -> None:
        self._told = True

    def _look(self, number: int, frame: FrameType | None) -> None:
        self._told = self._told or os.getppid() != self._parent


def _sample(t_s: float, device: str, metric: str, value: float | Missing | None) -> Sample:
    if value is None:
        value = Missing.NO_SAMPLE  # the process is gone, or /proc has no such line
    if isinstance(value, Missing):
        return Sample(t_s=t_s, device=device, metric=metric, value=None, why=value)
    return Sample(t_s=t_s, device=device, metric=metric, value=float(value))


def _wall_minus_monotonic_s() -> float:
    """The narrowest of three tries: between two reads of a clock the process may be put aside."""
    tries = []
    for _ in range(3):
        before, wall, after = time.monotonic(), time.time(), time.monotonic()
        tries.append((after - before, wall - (before + after) / 2))
    return min(tries)[1]


def _say(message: object) -> None:
    """To the parent, who may be gone."""
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter complains of the same once more at its end


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m wansweep.telemetry.sampler", description="Samples GPUs and process trees into a file.")
    parser.add_argument("--gpus", type=lambda text: [uuid for uuid in text.split(",") if uuid], default=[], help="UUIDs, by commas")
    parser.add_argument("--pid", type=lambda text: [int(pid) for pid in text.split(",") if pid], default=[], help="roots of process trees")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, appended")
    parser.add_argument("--of", help="the trial, for who reads it in a list of processes")
    parser.add_argument("--period", type=float, default=0.1, help="seconds between readings of a GPU")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

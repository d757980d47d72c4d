"""When things happened on the device, on the host's monotonic clock.

A CPU has finished when it returns, so its clock is perf_counter. A GPU works behind the host: either the host waits for it at every
mark (`sync`, simplest to trust, and it forbids overlap), or it leaves events in the compute stream that are read after the run
(`events`), one wait at each end. A wait at every mark would also undo the overlap that offload streams are for (CUDA semantics notes of
PyTorch).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from wansweep.record import Timing
from wansweep.sweep import GpuTiming


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A moment.

    Attributes:
        host_s: perf_counter when the host was there.
        event: What was left in the stream; null where the host's time is the device's.
    """

    host_s: float
    event: Any | None = None


class Clock(Protocol):
    """Leaves marks, and tells afterwards when each was."""

    timing: Timing

    def mark(self) -> Mark:
        """A mark now."""

    def settle(self) -> None:
        """Wait for the device; from here on `at_s` knows the device's times."""

    def at_s(self, mark: Mark) -> float:
        """When the mark was, on perf_counter's scale: before `settle` as the host saw it."""


class HostClock:
    """Marks are perf_counter, after waiting for the device where there is one."""

    def __init__(self, timing: Timing = Timing.PERF_COUNTER, wait: Callable[[], None] | None = None) -> None:
        self.timing = timing
        self._wait = wait

    def mark(self) -> Mark:
        """A mark when everything issued so far has finished."""
        if self._wait is not None:
            self._wait()
        return Mark(host_s=time.perf_counter())

    def settle(self) -> None:
        """Nothing is outstanding."""

    def at_s(self, mark: Mark) -> float:
        """The host's time."""
        return mark.host_s


class EventClock:
    """Marks are CUDA events on the compute stream, read after the run.

    Args:
        new_event: Makes an event that times.
        wait: Waits for the device.
    """

    timing = Timing.EVENTS

    def __init__(self, *, new_event: Callable[[], Any], wait: Callable[[], None]) -> None:
        self._new_event = new_event
        self._wait = wait
        self._settled = False
        self._anchor = self._anchored()

    def _anchored(self) -> Mark:
        """An event whose host time is known: the stream is empty when it is recorded."""
        self._wait()
        event = self._new_event()
        event.record()
        self._wait()
        return Mark(host_s=time.perf_counter(), event=event)

    def mark(self) -> Mark:
        """An event in the stream; costs the host some microseconds and the device nothing."""
        event = self._new_event()
        event.record()
        return Mark(host_s=time.perf_counter(), event=event)

    def settle(self) -> None:
        """The run's one wait at its end."""
        self._wait()
        self._settled = True

    def at_s(self, mark: Mark) -> float:
        """The device's time once settled; elapsed_time is in ms."""
        if not self._settled or mark.event is None:
            return mark.host_s
        assert self._anchor.event is not None
        return self._anchor.host_s + float(self._anchor.event.elapsed_time(mark.event)) / 1e3


def clock_for(device: torch.device, timing: GpuTiming) -> Clock:
    """The clock of a device: perf_counter on a CPU, as the procedure says on a GPU."""
    if device.type != "cuda":
        return HostClock()
    match timing:
        case GpuTiming.SYNC:
            return HostClock(Timing.SYNC, torch.cuda.synchronize)
        case GpuTiming.EVENTS:
            return EventClock(new_event=partial(torch.cuda.Event, enable_timing=True), wait=torch.cuda.synchronize)

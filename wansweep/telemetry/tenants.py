"""Who is on a GPU: its compute processes by pid, and the memory in use. Looked at before and after a trial, whose own it must be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pynvml

from wansweep.telemetry import nvml
from wansweep.telemetry.nvml import ask
from wansweep.telemetry.samples import Missing
from wansweep.units import GIB

# A driver's own bookkeeping moves by some MiB; a CUDA context alone takes more than this.
LEFT_OVER_BYTES = 128 * 1024**2


@dataclass(frozen=True, kw_only=True, slots=True)
class Tenants:
    """A GPU at one moment.

    Attributes:
        used_bytes: In use by anybody; null when NVML does not say.
        processes: Pid to the memory that it holds; null where NVML does not say how much, as inside most containers.
    """

    used_bytes: int | None
    processes: Mapping[int, int | None]


def tenants(uuids: Sequence[str]) -> dict[str, Tenants]:
    """Each GPU's tenants now; those that do not answer are left out. NVML is opened and closed, and no CUDA context is made."""
    if not uuids:
        return {}
    with nvml.library() as failed:
        found = {} if failed else {uuid: _tenants(uuid) for uuid in uuids}
    return {uuid: there for uuid, there in found.items() if there is not None}


def before(there: Mapping[str, Tenants], *, own: Collection[int]) -> list[str]:
    """A line for each process that was on a GPU before the trial's own had anything on it."""
    return [
        f"{uuid}: pid {pid} was there before the trial{_holding(held)}"
        for uuid, now in there.items()
        for pid, held in now.processes.items()
        if pid not in own
    ]


def after(then: Mapping[str, Tenants], now: Mapping[str, Tenants]) -> list[str]:
    """A line for each process that has come since and is still there when the trial is over, and for memory that nobody gave back."""
    lines = []
    for uuid, left in now.items():
        first = then.get(uuid)
        if first is None:
            continue
        lines += [f"{uuid}: pid {pid} is there after it{_holding(held)}" for pid, held in left.processes.items() if pid not in first.processes]
        if first.used_bytes is not None and left.used_bytes is not None and (more := left.used_bytes - first.used_bytes) > LEFT_OVER_BYTES:
            lines.append(f"{uuid}: {more / GIB:.2f} GiB more in use after the trial than before it")
    return lines


def _tenants(uuid: str) -> Tenants | None:
    device = nvml.handle(uuid)
    if isinstance(device, Missing):
        return None
    running = ask(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(device))
    memory = ask(lambda: pynvml.nvmlDeviceGetMemoryInfo(device))
    if isinstance(running, Missing):
        running = []
    return Tenants(
        used_bytes=None if isinstance(memory, Missing) else int(memory.used),
        processes={int(one.pid): None if one.usedGpuMemory is None else int(one.usedGpuMemory) for one in running},
    )


def _holding(held: int | None) -> str:
    return "" if held is None else f" and holds {held / GIB:.2f} GiB"

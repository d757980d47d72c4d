"""What of the host's memory and cores trials may have, and what may be pinned."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from wansweep.case import Model
from wansweep.doctor.finding import Finding, State
from wansweep.doctor.storage import WEIGHTS_BYTES
from wansweep.telemetry.host import machine_memory
from wansweep.telemetry.limits import HostLimits, host_limits
from wansweep.trial.ability import Ability
from wansweep.units import GIB

# Of a started cluster's object store (schedule/cluster.py) and of NCCL between the ranks of a node.
SHM_BYTES = 1 * GIB


def memory(gpus: int, abilities: list[Ability], *, limits: HostLimits | None = None, shm: Path = Path("/dev/shm")) -> Iterator[Finding]:
    """Host memory, cores, shared and pinned memory.

    Args:
        gpus: How many the machine has.
        abilities: What was tried; pinning is among it.
        limits: Of this process; null asks.
        shm: Where shared memory is mounted.
    """
    limits = limits or host_limits()
    yield _host(limits, gpus)
    yield _cores(limits, gpus)
    yield _shared(shm, gpus)
    yield _pinned(gpus, abilities)
    swap = machine_memory()
    if (used := swap.get("SwapTotal", 0) - swap.get("SwapFree", 0)) > GIB:
        detail = f"{used / GIB:.1f} GiB are swapped out: weights that wait on the host may come back from a disk"
        yield Finding(area="memory", what="swap", state=State.WARN, detail=detail, fix="sudo swapoff -a && sudo swapon -a")


def _host(limits: HostLimits, gpus: int) -> Finding:
    usable = min(limits.memory_bytes, limits.memory_limit_bytes or limits.memory_bytes)
    by = f"of the machine's {limits.memory_bytes / GIB:.0f}, by its cgroup" if limits.memory_limit_bytes else "of the machine"
    short = [model for model, need in WEIGHTS_BYTES.items() if need > usable]
    detail = f"{usable / GIB:.0f} GiB {by}, {machine_memory().get('MemAvailable', 0) / GIB:.0f} GiB available now"
    if short:
        detail += f"; less than the weights of {', '.join(short)}, which offload keeps on the host"
    if not short:
        return Finding(area="memory", what="host memory", state=State.OK, detail=detail)
    if gpus == 0:
        return Finding(area="memory", what="host memory", state=State.NOT_HERE, detail=detail, fix="miniatures (weights=tiny) need 2 GiB")
    fix = f"raise the container's limit (docker run --memory 96g), or run with offload=none where {Model.T2V_A14B} fits the GPU"
    return Finding(area="memory", what="host memory", state=State.WARN, detail=detail, fix=fix)


def _cores(limits: HostLimits, gpus: int) -> Finding:
    detail = f"{limits.usable_cores:g} usable of {limits.logical_cores}"
    if limits.usable_cores < max(1, gpus) + 1:
        fix = "a rank wants a core of its own, and the sampler one more: docker run --cpus, or more cores of the scheduler"
        return Finding(area="memory", what="cores", state=State.WARN, detail=f"{detail}, for {gpus} GPUs and the sampler", fix=fix)
    return Finding(area="memory", what="cores", state=State.OK, detail=detail)


def _shared(shm: Path, gpus: int) -> Finding:
    if not shm.is_dir() or not os.access(shm, os.W_OK):
        detail = f"{shm} is not there or cannot be written: Ray falls back to a disk"
        return Finding(area="memory", what="shared memory", state=State.WARN, detail=detail, fix="docker run --shm-size=2g")
    free = shutil.disk_usage(shm).free
    if free < SHM_BYTES:
        who = "Ray and NCCL" if gpus > 1 else "Ray"
        detail = f"{free / GIB:.2f} GiB free in {shm}; {who} want {SHM_BYTES / GIB:.0f}"
        return Finding(area="memory", what="shared memory", state=State.WARN, detail=detail, fix="docker run --shm-size=2g")
    return Finding(area="memory", what="shared memory", state=State.OK, detail=f"{free / GIB:.1f} GiB free in {shm}")


def _pinned(gpus: int, abilities: list[Ability]) -> Finding:
    """Whether pages can be locked: CUDA does it through its driver, InfiniBand by the process's own limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    limit = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft / 2**20:.0f} MiB"
    detail = f"memlock {limit}"
    if gpus == 0:
        return Finding(area="memory", what="pinned memory", state=State.NOT_HERE, detail=f"{detail}; pinning is for copies to a GPU")
    tried = next((ability for ability in abilities if ability.lever == "offload=expert_pinned"), None)
    if tried is None or not tried.runs:
        why = tried.why if tried else "it was not tried"
        fix = "offload=expert and group offload without a stream need no pinned memory; a container may need: docker run --ulimit memlock=-1"
        return Finding(area="memory", what="pinned memory", state=State.WARN, detail=f"{detail}; {why}", fix=fix)
    if soft != resource.RLIM_INFINITY and Path("/sys/class/infiniband").is_dir():
        fix = "docker run --ulimit memlock=-1, or '* - memlock unlimited' in /etc/security/limits.conf"
        return Finding(area="memory", what="pinned memory", state=State.WARN, detail=f"{detail}: too little for InfiniBand", fix=fix)
    return Finding(area="memory", what="pinned memory", state=State.OK, detail=f"{detail}; CUDA pins memory")

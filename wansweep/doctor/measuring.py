"""Which figures the sampler can read here: half a second of it, on every GPU and on this process."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from wansweep.doctor.finding import Finding, State
from wansweep.telemetry.nvml import Gpu
from wansweep.telemetry.samples import HOST, Missing, Sample, host_device
from wansweep.telemetry.sampling import Sampling
from wansweep.units import GIB

# Two GPM intervals and two drains of the driver's own buffer.
SAMPLED_S = 1.2
# What a figure of the report is made from, and what stands in where a card has none.
FIGURES = {
    "sm_active_pct": "cards before Hopper have no GPM: gpu_busy_pct stands beside, under its own name",
    "gpu_busy_pct": "nothing stands in for it",
    "dram_active_pct": "nothing stands in for it",
    "energy_j": "nothing stands in for it",
    "power_w": "power_1s_w, a mean over a second",
    "sm_clock_mhz": "nothing stands in for it",
    "throttle_power_s": "throttle_reasons, as flags",
    "device_used_bytes": "torch's own peaks, which do not see other processes",
    "temperature_c": "nothing stands in for it",
}
# The kernel module's own switch (nvidia.ko NVreg_RestrictProfilingToAdminUsers), or the capability that lifts it in a container.
_PERMISSION = (
    "echo 'options nvidia NVreg_RestrictProfilingToAdminUsers=0' | sudo tee /etc/modprobe.d/wansweep.conf, then reboot; "
    "in a container: docker run --cap-add SYS_ADMIN"
)
BUSY_BYTES = 1 * GIB


def measuring(found: Sequence[Gpu]) -> Iterator[Finding]:
    """Runs a sampler, and says of each figure on how many GPUs it was read and why not on the others."""
    with tempfile.TemporaryDirectory(prefix="wansweep-doctor-") as folder:
        with Sampling(out=Path(folder) / "samples.jsonl", gpus=[gpu.uuid for gpu in found], pids=[os.getpid()]) as sampling:
            time.sleep(SAMPLED_S)
        trace = sampling.trace
    if trace.errors:
        fix = "python -m wansweep.telemetry.sampler --out samples.jsonl tells more"
        yield Finding(area="metrics", what="sampler", state=State.WARN, detail="; ".join(trace.errors), fix=fix)
    else:
        cost = trace.cost
        share = f"{100 * cost.cpu_s / cost.wall_s:.0f} % of a core" if cost and cost.wall_s else "cost unknown"
        yield Finding(area="metrics", what="sampler", state=State.OK, detail=f"runs; {share}")
    yield _host(trace.samples)
    if not found:
        detail = f"no GPU: {', '.join(FIGURES)} will be n/a"
        yield Finding(area="metrics", what="GPU figures", state=State.NOT_HERE, detail=detail)
        return
    for metric, instead in FIGURES.items():
        yield _figure(metric, instead, found, trace.samples)
    yield from _others(found, trace.samples)


def _host(samples: Sequence[Sample]) -> Finding:
    """Memory of processes, and the machine's."""
    last = {sample.metric: sample for sample in samples if sample.device in (HOST, host_device(os.getpid()))}
    lacking = {name: sample.why for name, sample in last.items() if sample.value is None}
    if "host_rss_bytes" not in last:
        fix = "mount /proc into the container"
        return Finding(area="metrics", what="host figures", state=State.WARN, detail="/proc says nothing of this process", fix=fix)
    if lacking:
        detail = ", ".join(f"{name}: {why}" for name, why in lacking.items())
        fix = "shared pages are then counted once a rank; smaps_rollup of one's own processes must be readable (hidepid, seccomp)"
        return Finding(area="metrics", what="host figures", state=State.WARN, detail=detail, fix=fix)
    return Finding(area="metrics", what="host figures", state=State.OK, detail="CPU, RSS and PSS of process trees are readable")


def _figure(metric: str, instead: str, found: Sequence[Gpu], samples: Sequence[Sample]) -> Finding:
    whys: dict[str, Missing | None] = {}
    for gpu in found:
        mine = [sample for sample in samples if sample.device == gpu.uuid and sample.metric == metric]
        read = any(sample.value is not None for sample in mine)
        whys[gpu.uuid] = None if read else mine[-1].why if mine else Missing.NO_SAMPLE
    lacking = {uuid: why for uuid, why in whys.items() if why is not None}
    if not lacking:
        return Finding(area="metrics", what=metric, state=State.OK, detail=f"read on {len(found)} of {len(found)} GPUs")
    detail = f"not read on {len(lacking)} of {len(found)} GPUs: {', '.join(sorted(map(str, set(lacking.values()))))}"
    if Missing.NO_PERMISSION in lacking.values():
        return Finding(area="metrics", what=metric, state=State.WARN, detail=detail, fix=_PERMISSION)
    if set(lacking.values()) == {Missing.UNSUPPORTED}:
        return Finding(area="metrics", what=metric, state=State.NOT_HERE, detail=detail, fix=f"in its place: {instead}")
    fix = f"n/a in reports until it answers (nvidia-smi -q shows the driver's view); in its place: {instead}"
    return Finding(area="metrics", what=metric, state=State.WARN, detail=detail, fix=fix)


def _others(found: Sequence[Gpu], samples: Sequence[Sample]) -> Iterator[Finding]:
    """GPUs that somebody else is using: their memory and their time are in our figures."""
    for index, gpu in enumerate(found):
        last = {sample.metric: sample.value for sample in samples if sample.device == gpu.uuid and sample.value is not None}
        if (used := last.get("device_used_bytes", 0.0)) > BUSY_BYTES:
            detail = (
                f"{used / GIB:.1f} GiB in use, SMs {last.get('sm_active_pct', last.get('gpu_busy_pct', 0.0)):.0f} % active, by other processes"
            )
            fix = f"see who it is: nvidia-smi -i {index} --query-compute-apps=pid,process_name,used_memory --format=csv"
            yield Finding(area="metrics", what=f"GPU {index} idle", state=State.WARN, detail=detail, fix=fix)

"""The sweep as a whole: GPU-hours, wall time on so many GPUs in the order that the scheduler takes, cost, and what gives way first.

The scheduler's own packer is run on predicted lengths, whatever the sweep's size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wansweep.plan.job import Job
from wansweep.plan.packing import simulate, weights_group
from wansweep.plan.planner import PlannedCase, Verdict, trial_s
from wansweep.sweep import Hardware, Procedure

GPUS_A_NODE = 8
# Trials that Tune starts a second with 16 placement groups pending (16 cases in 22.9 s, ray 2.60; schedule/cluster.py).
STARTS_PER_S = 16 / 22.9


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What a sweep takes.

    Attributes:
        trials: That run and whose length is predicted.
        unknown: That run and whose length is not.
        gpu_hours: Of the predicted trials.
        wall_s: On the hardware's GPUs.
        bound_s: No order can be shorter.
        utilisation: Share of the GPUs' time that trials have, until the last one ends.
        cost: In the price's currency; null without a price.
        node_host_bytes: Host memory of a full node at worst.
        first: What gives way first as the cluster grows.
    """

    trials: int
    unknown: int
    gpu_hours: float
    wall_s: float
    bound_s: float
    utilisation: float
    cost: float | None
    node_host_bytes: int
    first: str


def outlook(
    rows: Sequence[PlannedCase], hardware: Hardware, *, procedure: Procedure, exclusive: bool, more: Mapping[str, int] | None = None
) -> Outlook | None:
    """The sweep on that hardware, of which a trial has a node for itself or shares it; null where no length is predicted.

    ``more`` has the repeats of cases, by id, that have others than the procedure's.
    """
    of_case, repeats = more or {}, procedure.repeats
    running = [row for row in rows if row.verdict is Verdict.RUN]
    known = [(row, seconds) for row in running if (seconds := trial_s(row, procedure)) is not None]
    if not known:
        return None
    jobs = [
        Job(
            key=f"{row.case.id}-{trial}",
            ranks=row.case.gpus,
            slots=float(row.case.gpus),
            seconds=seconds,
            group=weights_group(row.case),
            peak_bytes=row.predicted_peak_bytes or 0,
        )
        for row, seconds in known
        for trial in range(of_case.get(row.case.id, repeats))
    ]
    nodes = _nodes(hardware.gpus)
    work_s = sum(job.slots * job.seconds for job in jobs)
    schedule = simulate(jobs, nodes, exclusive=exclusive)
    wall_s, bound_s = schedule.makespan_s, schedule.bound_s
    # As many of its kind as a node holds beside each other; one, where a trial has the node for itself.
    beside = 1 if exclusive else min(GPUS_A_NODE, hardware.gpus)
    host = max((row.predicted_host_bytes or 0) * (beside // row.case.gpus or 1) for row, _ in known)
    return Outlook(
        trials=len(jobs),
        unknown=sum(of_case.get(row.case.id, repeats) for row in running) - len(jobs),
        gpu_hours=work_s / 3600,
        wall_s=wall_s,
        bound_s=bound_s,
        utilisation=work_s / (hardware.gpus * wall_s),
        cost=None if hardware.price_per_gpu_hour is None else hardware.gpus * wall_s / 3600 * hardware.price_per_gpu_hour,
        node_host_bytes=host,
        first=_first(jobs, wall_s, bound_s, alone_s=work_s / hardware.gpus if exclusive else None),
    )


def _nodes(gpus: int) -> dict[str, float]:
    """Nodes of eight, and one of what is left."""
    full, rest = divmod(gpus, GPUS_A_NODE)
    return {f"node{index:04}": float(count) for index, count in enumerate([GPUS_A_NODE] * full + [rest] * (rest > 0))}


def _first(jobs: Sequence[Job], wall_s: float, bound_s: float, *, alone_s: float | None) -> str:
    """The nearest limit: trial starts, the longest trial, that each has a node for itself (what the work takes where not), or none of these."""
    starts = len(jobs) / wall_s
    longest_s = max(job.seconds for job in jobs)
    if starts > STARTS_PER_S and len(jobs) > 16:
        return f"trial starts: {starts:.1f} a second are wanted, {STARTS_PER_S:.1f} were measured; run several sweeps, or longer cases"
    if longest_s > 0.9 * wall_s:
        return f"the longest trial ({longest_s:.0f} s of {wall_s:.0f} s): more GPUs do not shorten the sweep"
    if alone_s is not None and wall_s > 1.1 * alone_s:
        return "one trial a node (cluster.exclusive=true): GPUs beside smaller cases are idle; cluster.exclusive=false shares nodes"
    if wall_s > 1.1 * bound_s:
        return "packing: cases of several GPUs leave some idle; a number of GPUs that they divide wastes less"
    return "the GPUs: twice as many would take half the time"

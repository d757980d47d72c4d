"""A trial in this very process, without Ray: for a notebook or a debugger. Its record says `warm` from the second on."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from wansweep.case import Case
from wansweep.errors import CaseError
from wansweep.record import RankFacts, Record, SamplerFacts, Stage, StageKind
from wansweep.sweep import ModelSource, Procedure
from wansweep.telemetry.attribute import attribute
from wansweep.telemetry.limits import host_limits
from wansweep.telemetry.sampling import Sampling
from wansweep.telemetry.trace import Trace
from wansweep.trial.runner import introduce, run_rank
from wansweep.trial.stages import read_journal
from wansweep.trial.task import Ending, Seat, Task


def run_here(case: Case, *, source: ModelSource, procedure: Procedure, warm: bool) -> Record:
    """Run the case once on the first GPU, or the CPU, and return its record; it always ends in one.

    What a process cannot take back, such as attention backends and hooks of parallel ranks, is set anew for each case; a case that ends this
    process ends its caller too, which is why sweeps give every trial processes of its own.

    Args:
        case: Of one rank.
        source: Facts of its model.
        procedure: How to measure; ``timeout_s`` and ``isolation`` need a second process and mean nothing here.
        warm: Whether a case has run in this process before.

    Raises:
        CaseError: The case wants more ranks than one.
    """
    if case.gpus != 1:
        raise CaseError(f"{case.label}: gpus={case.gpus}: one process is one rank; run it as a sweep: wansweep +sweep=NAME")
    cores = host_limits().usable_cores
    facts, started_utc, origin_s = introduce(0, cores), datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="wansweep-here-") as scratch:
        task = Task(case=case, source=source, origin_s=origin_s, scratch=Path(scratch), procedure=replace(procedure, drift=False))
        gpus = [facts.device_uuid] if facts.device_uuid else []
        with Sampling(out=task.samples, gpus=gpus, pids=[os.getpid()], period_s=procedure.sample_period_s) as sampling:
            ending = run_rank(task, Seat(rank=0, world=1, rendezvous="", cores=cores))
        return _record(task, facts, ending, sampling.trace, started_utc=started_utc, warm=warm)


def _record(task: Task, facts: RankFacts, ending: Ending, trace: Trace, *, started_utc: str, warm: bool) -> Record:
    gpus = {0: facts.device_uuid} if facts.device_uuid else {}
    stages = attribute(read_journal(task.journal(0)), trace.samples, origin_s=task.origin_s, gpus=gpus, pids={0: os.getpid()})
    cost = trace.cost
    return Record(
        case=task.case,
        case_id=task.case.id,
        label=task.case.label,
        trial=0,
        outcome=ending.outcome,
        reason=ending.reason,
        resolved=ending.resolved,
        stages=stages,
        started_utc=started_utc,
        startup_s=min((stage.start_s for stage in stages), default=None),
        wall_s=time.perf_counter() - task.origin_s,
        warm=warm,
        node=socket.gethostname(),
        timing=ending.timing,
        warmup_s=ending.warmup_s,
        weights_cached=ending.weights_cached,
        ranks=(facts,),
        shortage=ending.shortage and replace(ending.shortage, stage=_open(stages)),
        sampler=SamplerFacts(
            cpu_s=cost.cpu_s if cost else None,
            wall_s=cost.wall_s if cost else None,
            nvml_s=cost.nvml_mean_s if cost else None,
            errors=trace.errors,
        ),
    )


def _open(stages: Sequence[Stage]) -> str | None:
    begun = [stage.name for stage in stages if stage.duration_s is None and stage.kind is not StageKind.TOTAL_EXECUTION]
    return begun[-1] if begun else None

"""What a running trial is doing: its stage and step, and the newest readings of each rank. Knows no Ray.

A controller gathers it from what lies on its node, the ranks' journals and the sampler's trace, and sends it with its reports; the dashboard's
metrics, the live table and `wansweep watch` show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from wansweep.record import Stage, StageKind
from wansweep.telemetry.samples import host_device
from wansweep.telemetry.tail import newest
from wansweep.trial.stages import read_journal
from wansweep.trial.task import Task

# Of a rank's GPU, and of its process tree; a figure that is not sampled is not there.
GPU_READINGS = ("device_used_bytes", "sm_active_pct", "gpu_busy_pct", "power_w")
HOST_READINGS = ("host_rss_bytes",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """A running trial at one moment.

    Attributes:
        label: Of its case.
        trial: Which repeat.
        doing: Rank 0's innermost open stage, or what it does instead.
        kind: The stage's kind; null between stages.
        steps: Of the case.
        step: The denoising step that is under way or was last; null before the first.
        step_s: How long the last whole step computed; null before there is one.
        readings: Rank to its newest readings by name.
    """

    label: str
    trial: int
    doing: str
    kind: StageKind | None
    steps: int
    step: int | None
    step_s: float | None
    readings: dict[int, dict[str, float]] = field(default_factory=dict)


PROGRESS = TypeAdapter(Progress)


def gather(task: Task, *, trial: int, gpus: Mapping[int, str | None], pids: Mapping[int, int]) -> Progress:
    """What the trial's files say now.

    Args:
        task: Names the files.
        trial: Which repeat.
        gpus: Rank to its GPU.
        pids: Rank to its process.
    """
    journal = task.journal(0)
    stages = read_journal(journal)
    opened = _open(stages)
    steps = [stage for stage in stages if stage.kind is StageKind.STEP_INFERENCE]
    whole = [stage.duration_s for stage in steps if stage.duration_s is not None]
    begun = [stage.step for stage in stages if stage.step is not None]
    return Progress(
        label=task.case.label,
        trial=trial,
        doing=opened.name if opened else "between stages" if journal.exists() else "starting",
        kind=opened.kind if opened else None,
        steps=task.case.steps,
        step=begun[-1] if begun else None,
        step_s=whole[-1] if whole else None,
        readings=_readings(task, gpus, pids),
    )


def _open(stages: list[Stage]) -> Stage | None:
    """The innermost stage that was begun and not ended."""
    begun = [stage for stage in stages if stage.duration_s is None and stage.kind is not StageKind.TOTAL_EXECUTION]
    return begun[-1] if begun else None


def _readings(task: Task, gpus: Mapping[int, str | None], pids: Mapping[int, int]) -> dict[int, dict[str, float]]:
    last = newest(task.samples)
    wanted = {
        rank: [(gpus.get(rank) or "", name) for name in GPU_READINGS] + [(host_device(pid), name) for name in HOST_READINGS]
        for rank, pid in pids.items()
    }
    return {rank: {name: last[device, name] for device, name in keys if (device, name) in last} for rank, keys in wanted.items()}


def left_s(*, ran_s: float, done: int, total: int) -> float | None:
    """Seconds left at the pace so far; null before there is one."""
    return None if done == 0 else ran_s / done * (total - done)

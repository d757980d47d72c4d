"""Records without running anything."""

from __future__ import annotations

from wansweep.case import Case
from wansweep.record import Outcome, Record, Resolved, Stage, StageKind, stage_name


def make_stage(case: Case, kind: StageKind, start_s: float, duration_s: float | None, *, step: int | None = None, rank: int = 0) -> Stage:
    return Stage(kind=kind, name=stage_name(kind, case.model, step=step), rank=rank, start_s=start_s, duration_s=duration_s, step=step)


def make_stages(case: Case, *, step_s: float = 1.0, rank: int = 0) -> tuple[Stage, ...]:
    """A run of known lengths: 2 s of loading, 1 s of T5, steps, 0.5 s of decoding, 0.25 s in no stage, 3 s of saving."""
    at = 5.0
    stages = []
    parts = [(StageKind.MODEL_INITIALIZATION, 2.0, None), (StageKind.T5_ENCODING, 1.0, None), (StageKind.PREPROCESS, 0.0, None)]
    for step in range(case.steps):
        parts += [(StageKind.STEP_LOADING, 0.0, step), (StageKind.STEP_INFERENCE, step_s, step)]
    parts.append((StageKind.VAE_DECODING, 0.5, None))
    for kind, seconds, step in parts:
        stages.append(make_stage(case, kind, at, seconds, step=step, rank=rank))
        at += seconds
    total = make_stage(case, StageKind.TOTAL_EXECUTION, 5.0, at - 5.0 + 0.25, rank=rank)
    return (total, *stages, make_stage(case, StageKind.SAVE, at + 0.25, 3.0, rank=rank))


def make_record(
    case: Case, *, trial: int = 0, outcome: Outcome = Outcome.OK, reason: str = "", stages: tuple[Stage, ...] | None = None
) -> Record:
    ok = outcome is Outcome.OK
    return Record(
        case=case,
        case_id=case.id,
        label=case.label,
        trial=trial,
        outcome=outcome,
        reason=reason,
        resolved=make_resolved(case) if ok else None,
        stages=stages if stages is not None else make_stages(case) if ok else (),
        started_utc=f"2026-01-01T00:00:{trial:02d}+00:00",
        startup_s=5.0,
        wall_s=20.0,
        warm=False,
        node="node",
    )


def make_resolved(case: Case) -> Resolved:
    return Resolved(
        device="cpu",
        device_name="a CPU",
        task=case.task,
        width=128,
        height=64,
        frames=17,
        weights="tiny",
        dtypes={"transformer": "bfloat16", "vae": "float32"},
        hooks={},
        attention="native",
        quant="none",
        cache="none",
        parallel="none",
        shift=case.shift,
        timesteps=(999.0, 500.0),
        switch_step=None,
        latents_sha256="0" * 64,
    )

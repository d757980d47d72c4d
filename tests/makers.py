"""Records without running anything."""

from __future__ import annotations

from dataclasses import replace

from wansweep.case import Case
from wansweep.record import Figure, Outcome, RankFacts, Record, Resolved, Stage, StageKind, stage_name


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


def with_figures(stages: tuple[Stage, ...], *kinds: StageKind, **figures: float | Figure) -> tuple[Stage, ...]:
    """The stages, those of the kinds (all, when none is named) with figures on top: a bare number is a value without samples."""
    added = {name: figure if isinstance(figure, Figure) else Figure(value=figure) for name, figure in figures.items()}
    return tuple(replace(stage, figures=stage.figures | added) if not kinds or stage.kind in kinds else stage for stage in stages)


def sampled(value: float, *, n_samples: int = 40, coverage: float = 1.0, largest: float | None = None) -> Figure:
    return Figure(value=value, n_samples=n_samples, coverage=coverage, max=value if largest is None else largest)


def missing(why: str) -> Figure:
    return Figure(value=None, why=why, n_samples=0, coverage=0.0)


def on_gpu(record: Record, device_name: str, *, total_bytes: int | None = None, **resolved: object) -> Record:
    """The record as of so many GPUs of a name, with other resolved fields as given."""
    ranks = tuple(
        RankFacts(rank=rank, device_uuid=f"GPU-{rank}", device_name=device_name, device_total_bytes=total_bytes, cores=8.0)
        for rank in range(record.case.gpus)
    )
    ran = replace(make_resolved(record.case), device="cuda", device_name=device_name, **resolved)  # type: ignore[arg-type]
    return replace(record, ranks=ranks, resolved=ran)


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

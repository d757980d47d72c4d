"""Run folders as GPUs would leave them, without any: cases with a plausible time and memory, traces, contact sheets and failures."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from PIL import Image

from tests.conftest import make_a14b, make_case
from tests.makers import make_resolved, make_stage, sampled
from wansweep.case import Case, Model
from wansweep.config import read_request
from wansweep.levers import Offload
from wansweep.record import Expert, Figure, Outcome, RankFacts, Record, SamplerFacts, Stage, StageKind, Timing
from wansweep.store import RunFolder, create
from wansweep.sweep import Sweep
from wansweep.tables.results import Results, tabulate
from wansweep.tables.traces import TRACE_SCHEMA
from wansweep.telemetry.environment import environment
from wansweep.units import GIB

H200 = "NVIDIA H200"
CARD_BYTES = 143073 * 1024**2
ORIGIN_S = 5000.0
STEPS = 12
# Share of the resident weights that stays on the card, and seconds a step on top.
_OFFLOAD = {
    Offload.NONE: (1.0, 0.0),
    Offload.EXPERT: (0.55, 0.35),
    Offload.MODEL: (0.5, 0.6),
    Offload.GROUP_BLOCK: (0.2, 1.4),
    Offload.GROUP_LEAF: (0.12, 3.2),
    Offload.SEQUENTIAL: (0.08, 14.0),
}


def gpu_cases() -> list[Case]:
    """The offload ladder of two models, and one, two, four and eight GPUs, as a sweep would name them."""
    five = {"weights": "random", "steps": STEPS}
    cases = [make_case(**five, offload=mode, label=f"ti2v_5b-{mode}") for mode in _OFFLOAD if mode is not Offload.EXPERT]
    cases += [make_a14b(**five, offload=mode, label=f"t2v_a14b-{mode}") for mode in _OFFLOAD]
    cases += [make_a14b(**five, gpus=n, ulysses=n, label=f"t2v_a14b-ulysses{n}") for n in (2, 4, 8)]
    cases += [make_a14b(**five, gpus=n, cfg_parallel=2, ulysses=n // 2, label=f"t2v_a14b-cfg2-{n}") for n in (2, 4, 8)]
    return [*cases, make_a14b(**five, width=1920, height=1080, label="t2v_a14b-1080p")]


def gpu_records(cases: Sequence[Case], *, repeats: int = 3, failed: bool = False) -> list[Record]:
    """Trials of the cases; the 1080p one runs out of memory, and with ``failed`` all of them."""
    noise = random.Random(7)
    records = []
    for number, case in enumerate(cases):
        for trial in range(repeats):
            oom = failed or case.width == 1920
            records.append(_record(case, trial, minute=2 * (number * repeats + trial), oom=oom, noise=noise))
    return records


def gpu_sweep(cases: Sequence[Case]) -> Sweep:
    quick = read_request(["+sweep=quick"]).sweep
    procedure = replace(quick.procedure, repeats=3)
    return replace(
        quick, name="h200-trade", cases=tuple(cases), procedure=procedure, command="python -m wansweep +sweep=h200_trade weights=random"
    )


def gpu_results(records: Sequence[Record]) -> Results:
    """What a run folder with the records would say."""
    return tabulate(gpu_sweep(_cases(records)), environment(), records, [])


def gpu_folder(reports: Path, records: Sequence[Record]) -> RunFolder:
    """A run folder with the records, and the traces and contact sheets of those that ended ok."""
    folder = create(reports, gpu_sweep(_cases(records)), environment())
    for record in records:
        folder.append(record)
        if record.stages:
            gpu_trace(record).write_parquet(folder.traces / f"{record.case_id}-{record.trial}.parquet")
        if record.resolved:
            (folder.frames / f"{record.case_id}-{record.trial}.jpg").write_bytes(sheet(record.label))
    return folder


def _cases(records: Sequence[Record]) -> list[Case]:
    return list({record.case_id: record.case for record in records}.values())


def gpu_trace(record: Record, *, period_s: float = 0.5) -> pl.DataFrame:
    """Memory, power and activity of every rank while its stages ran, as a sampler would have written them."""
    rows = []
    for stage in record.stages:
        if stage.kind is StageKind.TOTAL_EXECUTION or stage.duration_s is None:
            continue
        peak = stage.figures["peak_allocated_bytes"].value or 0.0
        for tick in range(1 + int(stage.duration_s / period_s)):
            at_s = ORIGIN_S + stage.start_s + tick * period_s
            grown = min(1.0, 0.3 + tick * period_s / 4)
            gpu, host = f"GPU-{stage.rank}", f"host:{900 + stage.rank}"
            busy = 97.0 if stage.kind is StageKind.STEP_INFERENCE else 20.0
            values = {
                "device_used_bytes": peak * (0.8 + 0.2 * grown),
                "power_w": 100 + 5.5 * busy,
                "sm_active_pct": busy,
                "temperature_c": 61.0,
            }
            rows += [(at_s, None, gpu, name, value, None) for name, value in values.items()]
            rows.append((at_s, None, host, "host_pss_bytes", (12 + 20 * grown) * GIB, None))
        rows.append((ORIGIN_S + stage.start_s, None, "host", "host_available_bytes", 500.0 * GIB, None))
    return pl.DataFrame(rows, schema=TRACE_SCHEMA, orient="row").sort("t_s", "device", "metric")


def sheet(text: str) -> bytes:
    """A small picture in the colours of a text's hash."""
    colour = hashlib.sha256(text.encode()).digest()
    image = Image.new("RGB", (480, 180))
    image.putdata([((x + colour[0]) % 256, (y + colour[1]) % 256, (x + y + colour[2]) % 256) for y in range(180) for x in range(480)])
    file = io.BytesIO()
    image.save(file, "JPEG", quality=70)
    return file.getvalue()


def _record(case: Case, trial: int, *, minute: int, oom: bool, noise: random.Random) -> Record:
    stages = tuple(stage for rank in range(case.gpus) for stage in _stages(case, rank, noise=noise, oom=oom))
    ranks = tuple(
        RankFacts(rank=rank, device_uuid=f"GPU-{rank}", device_name=H200, device_total_bytes=CARD_BYTES, cores=8.0, pid=900 + rank)
        for rank in range(case.gpus)
    )
    switch = STEPS // 2 if case.model.has_two_experts else None
    ran = replace(
        make_resolved(case),
        device="cuda",
        device_name=H200,
        weights="random",
        width=case.width,
        height=case.height,
        frames=case.frames,
        parallel=case.parallel,
        switch_step=switch,
        # Offloading changes no bit of the video.
        output_sha256=hashlib.sha256(f"{case.model}{case.parallel}".encode()).hexdigest(),
    )
    return Record(
        case=case,
        case_id=case.id,
        label=case.label,
        trial=trial,
        outcome=Outcome.OOM if oom else Outcome.OK,
        reason="Step_0_Inference: CUDA out of memory. Tried to allocate 21.12 GiB. GPU 0 has a total capacity of 139.72 GiB" if oom else "",
        resolved=None if oom else ran,
        stages=stages,
        started_utc=(datetime(2026, 3, 2, 9, tzinfo=UTC) + timedelta(minutes=minute)).isoformat(),
        startup_s=7.0,
        wall_s=120.0,
        warm=False,
        node="node-1",
        timing=Timing.EVENTS,
        ranks=ranks,
        sampler=SamplerFacts(cpu_s=1.2, wall_s=118.0, nvml_s=0.0011),
        origin_s=ORIGIN_S,
    )


def _stages(case: Case, rank: int, *, noise: random.Random, oom: bool) -> list[Stage]:
    """A rank's stages with figures; of a case without room, up to its first step."""
    large = case.model is not Model.TI2V_5B
    kept, slower_s = _OFFLOAD[case.offload]
    weights, activations = (66.0 if large else 21.0), (14.0 if large else 5.0) / case.gpus
    peak = weights * kept + activations
    step_s = ((6.0 if large else 1.6) / case.gpus**0.9 + slower_s * (1.8 if large else 1.0)) * (1 + 0.01 * noise.gauss(0, 1))
    if case.cfg_parallel > 1:
        step_s *= 0.93
    parts: list[tuple[StageKind, float, int | None, Expert | None, float]] = [
        (StageKind.MODEL_INITIALIZATION, 18.0 if large else 7.0, None, None, weights * kept),
        (StageKind.T5_ENCODING, 1.4, None, None, weights * kept + 1),
        (StageKind.PREPROCESS, 0.1, None, None, weights * kept),
    ]
    for step in range(1 if oom else STEPS):
        expert = None if not large else Expert.HIGH if step < STEPS // 2 else Expert.LOW
        swap = 2.2 if case.offload is Offload.EXPERT and step == STEPS // 2 else 0.001
        cold = 1.25 if step == 0 else 1.0
        parts += [(StageKind.STEP_LOADING, swap, step, expert, peak), (StageKind.STEP_INFERENCE, step_s * cold, step, expert, peak)]
    if not oom:
        parts.append((StageKind.VAE_DECODING, 6.0 if large else 3.5, None, None, peak * 0.7 + 8))
    at, stages = 7.0, []
    for kind, seconds, number, expert, gib in parts:
        stage = make_stage(case, kind, at, None if oom and kind is StageKind.STEP_INFERENCE else seconds, step=number, rank=rank)
        stages.append(replace(stage, expert=expert, figures=_figures(kind, seconds, gib)))
        at += seconds
    if oom:
        return stages
    total = replace(make_stage(case, StageKind.TOTAL_EXECUTION, 7.0, at - 7.0 + 0.02, rank=rank), figures={})
    save = replace(make_stage(case, StageKind.SAVE, at + 0.05, 2.0, rank=rank), figures=_figures(StageKind.SAVE, 2.0, peak * 0.3))
    return [total, *stages, save] if rank == 0 else [total, *stages]


def _figures(kind: StageKind, seconds: float, gib: float) -> dict[str, Figure]:
    busy = 97.0 if kind is StageKind.STEP_INFERENCE else 15.0
    known = {
        "peak_allocated_bytes": Figure(value=gib * GIB),
        "peak_reserved_bytes": Figure(value=1.08 * gib * GIB),
        "device_used_bytes": sampled((1.08 * gib + 0.6) * GIB),
        "host_bytes": sampled(32 * GIB),
        "cpu_pct": Figure(value=104.0),
        "sm_active_pct": sampled(busy),
        "gpu_busy_pct": sampled(99.0),
        "energy_j": Figure(value=seconds * (100 + 5.5 * busy)),
    }
    parts = {"open_s": 0.6, "read_s": 0.55 * seconds, "cast_s": 0.0, "h2d_s": 0.3 * seconds} if kind is StageKind.MODEL_INITIALIZATION else {}
    return known | {name: Figure(value=value) for name, value in parts.items()}

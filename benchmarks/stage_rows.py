"""Stage rows as a very large sweep would leave them: gangs of two ranks, repeats of which the first is cold, figures with gaps; as Parquet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.packing import sleeping_case
from wansweep.case import Case
from wansweep.metrics import STAGE_METRICS
from wansweep.publish import write_parquet
from wansweep.record import Outcome, Record, StageKind
from wansweep.tables.frames import STAGES_SCHEMA

TRIALS_A_CASE = 5
RANKS = 2
STEPS = 42
# Of each trial's rank: initialization, T5, preprocess, two loads of experts, the steps, decoding, saving, the whole.
_KINDS = [
    (StageKind.MODEL_INITIALIZATION, None, 20.0),
    (StageKind.T5_ENCODING, None, 1.5),
    (StageKind.PREPROCESS, None, 0.02),
    (StageKind.STEP_LOADING, 0, 4.0),
    *[(StageKind.STEP_INFERENCE, step, 3.0) for step in range(STEPS // 2)],
    (StageKind.STEP_LOADING, STEPS // 2, 5.0),
    *[(StageKind.STEP_INFERENCE, step, 3.0) for step in range(STEPS // 2, STEPS)],
    (StageKind.VAE_DECODING, None, 6.0),
    (StageKind.SAVE, None, 1.0),
    (StageKind.TOTAL_EXECUTION, None, 170.0),
]
ROWS_A_TRIAL = RANKS * len(_KINDS)
TRIALS_A_FILE = 5_000
# Not on this card, or nobody asked: null, with the reason.
_NOT_MEASURED = {"tensor_active_pct": "unsupported", "throttle_hw_power_brake_s": "unsupported", "read_bytes": "not_tried"}
# What a stage that is shorter than its source's two periods lacks.
_SAMPLED = ("sm_active_pct", "gpu_busy_pct", "dram_active_pct", "energy_j", "compute_load", "power_w", "coverage_pct", "cpu_pct")
_SHORT_S = 0.1


def write(folder: Path, *, rows: int, seed: int = 8) -> None:
    """Write about so many rows into files of the folder, and trials.parquet: which trials count."""
    trials = max(TRIALS_A_CASE, rows // ROWS_A_TRIAL // TRIALS_A_CASE * TRIALS_A_CASE)
    draw = np.random.default_rng(seed)
    ids = pl.Series("case_id", [case.id for case in _cases(trials)])
    for number, first in enumerate(range(0, trials, TRIALS_A_FILE)):
        write_parquet(folder / f"stages-{number:03d}.parquet", _frame(ids, first, min(TRIALS_A_FILE, trials - first), draw))
    trial = np.arange(trials)
    counts = pl.Series("counts", trial % TRIALS_A_CASE > 0)
    pl.DataFrame([ids.gather(trial // TRIALS_A_CASE), pl.Series("trial", trial % TRIALS_A_CASE), counts]).write_parquet(
        folder / "trials.parquet"
    )


def cases_and_records(folder: Path) -> tuple[list[Case], list[Record]]:
    """The sweep's cases and what their trials left but for the stages, which are the rows."""
    there = cases(folder)
    ids = [case.id for case in there]
    records = []
    for number, warm in enumerate(pl.read_parquet(folder / "trials.parquet")["counts"].to_list()):
        at, trial = divmod(number, TRIALS_A_CASE)
        records.append(
            Record(
                case=there[at],
                case_id=ids[at],
                label=there[at].label,
                trial=trial,
                outcome=Outcome.OK,
                reason="",
                resolved=None,
                stages=(),
                started_utc="2026-01-01T00:00:00+00:00",
                startup_s=1.0,
                wall_s=200.0,
                warm=warm,
                node="node",
            )
        )
    return there, records


def cases(folder: Path) -> list[Case]:
    """The cases whose trials' rows are in the folder."""
    return _cases(pl.scan_parquet(folder / "trials.parquet").select(pl.len()).collect().item())


def _cases(trials: int) -> list[Case]:
    return [replace(sleeping_case(f"case_{n}", gpus=RANKS, seconds=0.0), steps=STEPS, seed=n) for n in range(trials // TRIALS_A_CASE)]


def _frame(all_ids: pl.Series, first: int, trials: int, draw: np.random.Generator) -> pl.DataFrame:
    """The rows of some trials, in the columns of stages.parquet."""
    stages, count = len(_KINDS), trials * ROWS_A_TRIAL
    trial = np.repeat(np.arange(first, first + trials), ROWS_A_TRIAL)
    kind = np.tile(np.arange(stages), trials * RANKS)
    ids = all_ids[first // TRIALS_A_CASE : (first + trials) // TRIALS_A_CASE]
    typical_s = np.array([seconds for *_, seconds in _KINDS])[kind]
    # A case is slower than another by its nature, a trial and a rank by accident.
    nature = np.random.default_rng(1).lognormal(0, 0.5, size=1_000_000)[trial // TRIALS_A_CASE]
    duration_s = np.round(typical_s * nature * draw.normal(1, 0.01, count), 6)
    columns: dict[str, pl.Series] = {
        "case_id": ids.gather(trial // TRIALS_A_CASE - first // TRIALS_A_CASE),
        "label": ("case-" + ids).gather(trial // TRIALS_A_CASE - first // TRIALS_A_CASE),
        "trial": pl.Series(trial % TRIALS_A_CASE),
        "rank": pl.Series(np.tile(np.repeat(np.arange(RANKS), stages), trials)),
        "stage": pl.Series([_name(kind, step) for kind, step, _ in _KINDS]).gather(kind),
        "kind": pl.Series([str(kind) for kind, *_ in _KINDS]).gather(kind),
        "step": pl.Series([step for _, step, _ in _KINDS], dtype=pl.Int64()).gather(kind),
        "expert": pl.Series([None if step is None else "high" if step < STEPS // 2 else "low" for _, step, _ in _KINDS]).gather(kind),
        "start_s": pl.Series(np.round(np.cumsum(np.array([seconds for *_, seconds in _KINDS]))[kind] - typical_s, 6)),
        "duration_s": pl.Series(duration_s),
        "load_source": pl.Series(np.full(count, "sm_active")),
    }
    short = pl.Series(duration_s < _SHORT_S)
    for metric in STAGE_METRICS[1:]:
        values = pl.Series(_values(metric.name, duration_s, draw), dtype=pl.Float64())
        why = pl.Series([_NOT_MEASURED.get(metric.name)], dtype=pl.String()).new_from_index(0, count)
        if metric.name in _SAMPLED:
            values, why = pl.select(
                pl.when(~short).then(values), pl.when(short).then(pl.lit("too_short")).alias("why").cast(pl.String())
            ).get_columns()
        columns |= {metric.name: values, f"{metric.name}_why": why}
    return pl.DataFrame({name: columns[name].cast(dtype) for name, dtype in STAGES_SCHEMA.items()})


def _name(kind: StageKind, step: int | None) -> str:
    return str(kind) if step is None else f"Step_{step}_{kind}"


def _values(name: str, duration_s: np.ndarray, draw: np.random.Generator) -> list[None] | np.ndarray:
    """Figures in the size and with the digits of real ones."""
    count = len(duration_s)
    if name in _NOT_MEASURED:
        return [None] * count
    if name.endswith("_bytes"):
        return np.round(draw.uniform(20, 80, count) * 2**30 / 2**21) * 2**21
    if name.endswith("_pct"):
        return np.round(draw.uniform(60, 100, count), 1)
    if name in ("energy_j", "compute_load"):
        return np.round(duration_s * draw.uniform(300, 700, count), 3)
    if name.endswith("_s"):
        return np.round(duration_s * draw.uniform(0, 0.2, count), 6)
    return np.round(draw.uniform(1, 1000, count))

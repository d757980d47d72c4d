"""Records to two Polars frames: one row a stage of a rank, and one row a case.

A figure that was not measured is null. Ranks fold as METRICS says; trials of a case fold to the median, with n and the spread kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from wansweep.case import Case
from wansweep.metrics import METRIC, METRICS, STAGE_METRICS, Fold, Metric
from wansweep.plan.geometry import as_run
from wansweep.record import Outcome, Record, StageKind

STAGES_SCHEMA: dict[str, pl.DataType] = {
    "case_id": pl.String(),
    "label": pl.String(),
    "trial": pl.Int64(),
    "rank": pl.Int64(),
    "stage": pl.String(),
    "kind": pl.String(),
    "step": pl.Int64(),
    "expert": pl.String(),
    "start_s": pl.Float64(),
    **{metric.name: pl.Float64() for metric in STAGE_METRICS},
}
_DESCRIPTION: dict[str, pl.DataType] = {
    "case_id": pl.String(),
    "label": pl.String(),
    "outcome": pl.String(),
    "reason": pl.String(),
    "model": pl.String(),
    "task": pl.String(),
    "width": pl.Int64(),
    "height": pl.Int64(),
    "frames": pl.Int64(),
    "steps": pl.Int64(),
    "gpus": pl.Int64(),
    "offload": pl.String(),
    "dtype": pl.String(),
    "quant": pl.String(),
    "attention": pl.String(),
    "cache": pl.String(),
    "parallel": pl.String(),
    "n": pl.Int64(),
}
SUMMARY_SCHEMA: dict[str, pl.DataType] = {**_DESCRIPTION, **{metric.name: pl.Float64() for metric in METRICS}, "stable": pl.String()}
_LEAVES = [kind for kind in StageKind if kind not in (StageKind.TOTAL_EXECUTION, StageKind.SAVE)]
# Digits kept in files: float sums differ in the last bits from run to run, and golden files must not.
DECIMALS = 6


def stages_frame(records: Sequence[Record]) -> pl.DataFrame:
    """One row a stage that ended, on every rank of every trial."""
    rows = [
        {
            "case_id": record.case_id,
            "label": record.label,
            "trial": record.trial,
            "rank": stage.rank,
            "stage": stage.name,
            "kind": str(stage.kind),
            "step": stage.step,
            "expert": stage.expert and str(stage.expert),
            "start_s": stage.start_s,
            "duration_s": stage.duration_s,
        }
        for record in records
        for stage in record.stages
        if stage.duration_s is not None
    ]
    measured = {name: dtype for name, dtype in STAGES_SCHEMA.items() if rows and name in rows[0]}
    return with_load(_completed(pl.DataFrame(rows, schema=measured or STAGES_SCHEMA), STAGES_SCHEMA))


def with_load(stages: pl.DataFrame) -> pl.DataFrame:
    """The stages with compute_load: seconds times the share of the machine that was busy, SM activity where it is known, else GPU busy."""
    return stages.with_columns(compute_load=pl.col("duration_s") * pl.coalesce("sm_active_pct", "gpu_busy_pct"))


def trial_frame(stages: pl.DataFrame) -> pl.DataFrame:
    """One row a trial: its figures, each folded over the ranks as METRICS says.

    Sums run over leaf stages only: Total_Execution contains the others, and adding it to them would count everything twice.
    """
    seconds = pl.col("duration_s")
    step, leaf = _is(StageKind.STEP_INFERENCE), _is(*_LEAVES)
    ranks = stages.group_by("case_id", "trial", "rank").agg(
        total_s=_sum(seconds, _is(StageKind.TOTAL_EXECUTION)),
        leaves_s=_sum(seconds, leaf),
        step_s=seconds.filter(step).mean(),
        step_s_stdev=seconds.filter(step).std(),
        load_s=_sum(seconds, _is(StageKind.MODEL_INITIALIZATION, StageKind.STEP_LOADING)),
        text_encode_s=_sum(seconds, _is(StageKind.T5_ENCODING)),
        vae_decode_s=_sum(seconds, _is(StageKind.VAE_DECODING)),
        save_s=_sum(seconds, _is(StageKind.SAVE)),
        peak_allocated_bytes=pl.col("peak_allocated_bytes").max(),
        peak_reserved_bytes=pl.col("peak_reserved_bytes").max(),
        peak_device_bytes=pl.col("device_used_bytes").max(),
        peak_host_bytes=pl.col("host_bytes").max(),
        sm_active_pct=_weighted("sm_active_pct", step),
        gpu_busy_pct=_weighted("gpu_busy_pct", step),
        energy_j=_sum(pl.col("energy_j"), leaf),
        compute_load=_sum(pl.col("compute_load"), leaf),
    )
    ranks = ranks.with_columns(unattributed_pct=100 * (pl.col("total_s") - pl.col("leaves_s")) / pl.col("total_s")).drop("leaves_s")
    folds = [_fold(METRIC[name]) for name in ranks.columns if name in METRIC]
    return ranks.group_by("case_id", "trial").agg(folds).sort("case_id", "trial")


def _is(*kinds: StageKind) -> pl.Expr:
    return pl.col("kind").is_in([str(kind) for kind in kinds])


def _sum(values: pl.Expr, where: pl.Expr) -> pl.Expr:
    """The sum of what was measured there; null when nothing was, where Polars would say 0."""
    chosen = values.filter(where)
    return pl.when(chosen.count() > 0).then(chosen.sum())


def _weighted(name: str, where: pl.Expr) -> pl.Expr:
    """The mean of a percentage over stages of unequal length, weighted by their seconds, over those that have it."""
    seconds = pl.col("duration_s").filter(where & pl.col(name).is_not_null())
    return (pl.col(name) * pl.col("duration_s")).filter(where).sum() / pl.when(seconds.sum() > 0).then(seconds.sum())


def _fold(metric: Metric) -> pl.Expr:
    match metric.across_ranks:
        case Fold.MAX:
            return pl.col(metric.name).max()
        case Fold.MEAN:
            return pl.col(metric.name).mean()
        case Fold.SUM:
            return pl.when(pl.col(metric.name).count() > 0).then(pl.col(metric.name).sum()).alias(metric.name)


def summary_frame(cases: Sequence[Case], records: Sequence[Record], stages: pl.DataFrame) -> pl.DataFrame:
    """One row a planned case, in the sweep's order. A case that has not run yet has a null outcome; none is ever left out.

    Figures are medians over the case's ok trials.
    """
    of_case: dict[str, list[Record]] = {case.id: [] for case in cases}
    for record in records:
        of_case.setdefault(record.case_id, []).append(record)
    described = pl.DataFrame([_description(case, of_case[case.id]) for case in cases], schema=_DESCRIPTION)
    ok = pl.DataFrame(
        [(record.case_id, record.trial) for record in records if record.outcome is Outcome.OK],
        schema={"case_id": pl.String(), "trial": pl.Int64()},
        orient="row",
    )
    trials = trial_frame(stages.join(ok, on=["case_id", "trial"], how="semi"))
    medians = trials.drop("trial").group_by("case_id").median()
    joined = described.join(medians, on="case_id", how="left", maintain_order="left")
    return _completed(joined, SUMMARY_SCHEMA)


def _completed(frame: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """The frame with every column of a schema, in its order; what nothing produced is null."""
    missing = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in schema.items() if name not in frame.columns]
    return frame.with_columns(missing).select(schema.keys()).with_columns(pl.col(pl.Float64).round(DECIMALS))


def _description(case: Case, records: Sequence[Record]) -> dict[str, object]:
    """What a case is and how it ended: as it ran where it ran, as declared where it did not.

    One failed repeat makes the case's outcome: a case that runs three times in four does not fit.
    """
    told = next((record for record in records if record.outcome is not Outcome.OK), records[0] if records else None)
    ran = next((record.resolved for record in records if record.resolved), None)
    size = ran or as_run(case)
    return {
        "case_id": case.id,
        "label": case.label,
        "outcome": told and str(told.outcome),
        "reason": told and told.reason,
        "model": str(case.model),
        "task": str(case.task),
        "width": size.width,
        "height": size.height,
        "frames": size.frames,
        "steps": case.steps,
        "gpus": case.gpus,
        "offload": str(case.offload),
        "dtype": str(case.dtype),
        "quant": ran.quant if ran else None,
        "attention": ran.attention if ran else None,
        "cache": ran.cache if ran else None,
        "parallel": ran.parallel if ran else case.parallel,
        "n": sum(record.outcome is Outcome.OK for record in records),
    }

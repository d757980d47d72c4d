"""Records to two Polars frames: one row a stage of a rank, and one row a case.

A figure that was not measured is null. Ranks fold as METRICS says; trials of a case fold to the median, with n and the spread kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from wansweep.case import Case
from wansweep.metrics import METRICS, STAGE_METRICS
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
    frame = pl.DataFrame(rows, schema_overrides={k: v for k, v in STAGES_SCHEMA.items() if rows and k in rows[0]})
    missing = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in STAGES_SCHEMA.items() if name not in frame.columns]
    return frame.with_columns(missing).select(STAGES_SCHEMA.keys()).with_columns(pl.col(pl.Float64).round(DECIMALS))


def trial_frame(stages: pl.DataFrame) -> pl.DataFrame:
    """One row a trial: its times, the slowest rank's of each."""
    kind, seconds = pl.col("kind"), pl.col("duration_s")

    def total(*kinds: StageKind) -> pl.Expr:
        """Seconds in stages of these kinds; null when there was none."""
        chosen = seconds.filter(kind.is_in([str(k) for k in kinds]))
        return pl.when(chosen.len() > 0).then(chosen.sum())

    leaves = [k for k in StageKind if k not in (StageKind.TOTAL_EXECUTION, StageKind.SAVE)]
    ranks = stages.group_by("case_id", "trial", "rank").agg(
        total_s=total(StageKind.TOTAL_EXECUTION),
        leaves_s=total(*leaves),
        step_s=seconds.filter(kind == str(StageKind.STEP_INFERENCE)).mean(),
        step_s_stdev=seconds.filter(kind == str(StageKind.STEP_INFERENCE)).std(),
        load_s=total(StageKind.MODEL_INITIALIZATION, StageKind.STEP_LOADING),
        text_encode_s=total(StageKind.T5_ENCODING),
        vae_decode_s=total(StageKind.VAE_DECODING),
        save_s=total(StageKind.SAVE),
    )
    ranks = ranks.with_columns(unattributed_pct=100 * (pl.col("total_s") - pl.col("leaves_s")) / pl.col("total_s"))
    return ranks.drop("leaves_s").group_by("case_id", "trial").agg(pl.exclude("rank").max()).sort("case_id", "trial")


def summary_frame(cases: Sequence[Case], records: Sequence[Record]) -> pl.DataFrame:
    """One row a planned case, in the sweep's order. A case that has not run yet has a null outcome; none is ever left out."""
    rows = [_description(case, [r for r in records_of if r.case_id == case.id]) for case in cases for records_of in [records]]
    described = pl.DataFrame(rows, schema=_DESCRIPTION)
    trials = trial_frame(stages_frame([record for record in records if record.outcome is Outcome.OK]))
    figures = [metric.name for metric in METRICS if metric.name in trials.columns]
    medians = trials.group_by("case_id").agg(pl.col(figures).median())
    joined = described.join(medians, on="case_id", how="left", maintain_order="left")
    missing = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in SUMMARY_SCHEMA.items() if name not in joined.columns]
    return joined.with_columns(missing).select(SUMMARY_SCHEMA.keys()).with_columns(pl.col(pl.Float64).round(DECIMALS))


def _description(case: Case, records: Sequence[Record]) -> dict[str, object]:
    """What a case is and how it ended: as it ran where it ran, as declared where it did not.

    One failed repeat makes the case's outcome: a case that runs three times in four does not fit.
    """
    told = next((record for record in records if record.outcome is not Outcome.OK), records[0] if records else None)
    ran = next((record.resolved for record in records if record.resolved), None)
    return {
        "case_id": case.id,
        "label": case.label,
        "outcome": told and str(told.outcome),
        "reason": told and told.reason,
        "model": str(case.model),
        "task": str(case.task),
        "width": ran.width if ran else case.width,
        "height": ran.height if ran else case.height,
        "frames": ran.frames if ran else case.frames,
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

"""Records to two Polars frames: one row a stage of a rank, and one row a case.

A figure that was not measured is null, and its ``<name>_why`` says why: a `telemetry.samples.Missing`, or ``not_tried``. Ranks fold as METRICS
says; the trials of a case that count fold to the median, with n and the spread kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from wansweep import presets
from wansweep.case import Case
from wansweep.metrics import METRICS, STAGE_FIGURES, STAGE_METRICS, Metric
from wansweep.plan.geometry import as_run
from wansweep.record import Figure, Outcome, Record, Stage
from wansweep.tables.compute import achieved
from wansweep.tables.ranks import with_imbalance
from wansweep.tables.repeats import counted, is_warm, left_out
from wansweep.tables.scaling import with_scaling
from wansweep.tables.stability import assess
from wansweep.tables.stated import stated_trials
from wansweep.tables.trials import case_frame, trial_frame

NOT_TRIED = "not_tried"
# What compute load is made from, the best first.
LOAD_SOURCES = ("sm_active_pct", "gpu_busy_pct")

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
    "load_source": pl.String(),
    **{f"{metric.name}_why": pl.String() for metric in STAGE_METRICS if metric.name != "duration_s"},
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
    "preset": pl.String(),
    "n": pl.Int64(),
    "warm": pl.Boolean(),
    "left_out": pl.Int64(),
}
SUMMARY_SCHEMA: dict[str, pl.DataType] = {
    **_DESCRIPTION,
    **{metric.name: pl.Float64() for metric in METRICS},
    "tflops_why": pl.String(),
    "mfu_pct_why": pl.String(),
    "communication_how": pl.String(),
    "scaling_efficiency_pct_why": pl.String(),
    "scaling_efficiency_step_pct_why": pl.String(),
    "stable": pl.String(),
    "advice": pl.String(),
}
# Digits kept in files: float sums differ in the last bits from run to run, and golden files must not.
DECIMALS = 6


def stages_frame(records: Sequence[Record]) -> pl.DataFrame:
    """One row a stage that ended, on every rank of every trial."""
    rows = [_stage_row(record, stage) for record in records for stage in record.stages if stage.duration_s is not None]
    measured = {name: dtype for name, dtype in STAGES_SCHEMA.items() if rows and name in rows[0]}
    return _completed(with_imbalance(with_load(pl.DataFrame(rows, schema=measured or STAGES_SCHEMA))), STAGES_SCHEMA)


def _stage_row(record: Record, stage: Stage) -> dict[str, object]:
    row: dict[str, object] = {
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
    for metric in STAGE_FIGURES:
        row[metric.name], row[f"{metric.name}_why"] = _value(metric, stage.figures.get(metric.name))
    sampled = load_figure(stage)
    coverage = sampled.coverage if sampled else None
    row |= {"n_samples": sampled and sampled.n_samples, "coverage_pct": None if coverage is None else 100 * coverage}
    return row


def _value(metric: Metric, figure: Figure | None) -> tuple[float | None, str | None]:
    """A figure as its column keeps it, and why there is none."""
    if figure is None:
        return None, NOT_TRIED
    if figure.value is None:
        return None, figure.why
    return (figure.max if metric.peak and figure.max is not None else figure.value), None


def load_figure(stage: Stage) -> Figure | None:
    """The sampled figure that a stage's load is made from; where none has a value, the last that was tried."""
    tried = [stage.figures[name] for name in LOAD_SOURCES if name in stage.figures]
    return next((figure for figure in tried if figure.value is not None), tried[-1] if tried else None)


def with_load(stages: pl.DataFrame) -> pl.DataFrame:
    """The stages with compute_load: seconds times the share of the machine that was busy, SM activity where it is known, else GPU busy.

    ``load_source`` says which: ``sm_active`` or ``gpu_busy``.
    """
    known = [pl.col(name).is_not_null() for name in LOAD_SOURCES]
    sm_why, busy_why = (pl.col(f"{name}_why") for name in LOAD_SOURCES)
    # GPU busy comes second, so that its reason is the last word; unless nobody asked for it.
    why = pl.when(~pl.any_horizontal(known)).then(pl.coalesce(pl.when(busy_why != NOT_TRIED).then(busy_why), sm_why))
    return stages.with_columns(
        compute_load=pl.col("duration_s") * pl.coalesce(LOAD_SOURCES),
        load_source=pl.when(known[0]).then(pl.lit("sm_active")).when(known[1]).then(pl.lit("gpu_busy")),
        compute_load_why=why,
        n_samples_why=pl.when(pl.col("n_samples").is_null()).then(pl.coalesce(why, pl.lit(NOT_TRIED))),
        coverage_pct_why=pl.when(pl.col("coverage_pct").is_null()).then(pl.coalesce(why, pl.lit(NOT_TRIED))),
    )


def summary_frame(cases: Sequence[Case], records: Sequence[Record], stages: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """One row a planned case, in the sweep's order. A case that has not run yet has a null outcome; none is ever left out.

    Figures are medians over the trials that count (`repeats.counted`). Stages may be a scan of files: only what is needed is read.
    """
    ids = [case.id for case in cases]
    of_case: dict[str, list[Record]] = {id_: [] for id_ in ids}
    for record in records:
        of_case.setdefault(record.case_id, []).append(record)
    described = pl.DataFrame([_description(case, id_, of_case[id_]) for case, id_ in zip(cases, ids, strict=True)], schema=_DESCRIPTION)
    trials = counted_trials(records, stages.lazy())
    joined = described.join(case_frame(trials.lazy()).collect(), on="case_id", how="left", maintain_order="left")
    times = joined.select("case_id", "step_s", "total_s", "total_s_spread").iter_rows()
    timed = dict(trials.group_by("case_id").agg(pl.col("total_s").count()).iter_rows())
    judged = pl.DataFrame(
        [_judged(of_case[id_], step_s, timed.get(id_, 0), *total_s) for id_, step_s, *total_s in times],
        schema={name: SUMMARY_SCHEMA[name] for name in _JUDGED},
    )
    return with_scaling(_completed(joined.hstack(judged), SUMMARY_SCHEMA), cases)


def counted_trials(records: Sequence[Record], stages: pl.LazyFrame) -> pl.DataFrame:
    """One row a trial that counts (`repeats.counted`), with its figures."""
    # Stages may be a scan of more rows than fit: as a stream, only what is folded is kept.
    trials = trial_frame(stages.join(counted_key(records).lazy(), on=["case_id", "trial"], how="semi")).collect(engine="streaming")
    return pl.concat([trials, stated_trials(records)], how="diagonal")


def counted_key(records: Sequence[Record]) -> pl.DataFrame:
    """Case and trial of every trial that counts."""
    of_case: dict[str, list[Record]] = {}
    for record in records:
        of_case.setdefault(record.case_id, []).append(record)
    chosen = [(record.case_id, record.trial) for one in of_case.values() for record in counted(one)]
    return pl.DataFrame(chosen, schema={"case_id": pl.String(), "trial": pl.Int64()}, orient="row")


_JUDGED = ("tflops", "tflops_why", "mfu_pct", "mfu_pct_why", "half_width_pct", "stable", "advice")


def _judged(
    records: Sequence[Record], step_s: float | None, timed: int, total_s: float | None, total_s_spread: float | None
) -> dict[str, object]:
    """What takes a case's records beside its figures: the FLOP it achieved, and whether the total times of its ``timed`` trials agree."""
    chosen = counted(records)
    compute = achieved(chosen, step_s=step_s)
    figures = {
        "tflops": compute.tflops,
        "tflops_why": compute.tflops_why,
        "mfu_pct": compute.mfu_pct,
        "mfu_pct_why": compute.mfu_pct_why,
    }
    if not chosen:
        return {**figures, "half_width_pct": None, "stable": None, "advice": None}
    stability = assess(n=timed, median=total_s, stdev=total_s_spread)
    return {**figures, "half_width_pct": stability.half_width_pct, "stable": str(stability.verdict), "advice": stability.advice}


def _completed(frame: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """The frame with every column of a schema, in its order; what nothing produced is null."""
    missing = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in schema.items() if name not in frame.columns]
    return frame.with_columns(missing).select(schema.keys()).with_columns(pl.col(pl.Float64).round(DECIMALS))


def _description(case: Case, case_id: str, records: Sequence[Record]) -> dict[str, object]:
    """What a case is and how it ended: as it ran where it ran, as declared where it did not.

    One failed repeat makes the case's outcome: a case that runs three times in four does not fit.
    """
    told = next((record for record in records if record.outcome is not Outcome.OK), records[0] if records else None)
    ran = next((record.resolved for record in records if record.resolved), None)
    chosen = counted(records)
    size = ran or as_run(case)
    unstated = records[0].imported.assumed if records and records[0].imported else None
    described: dict[str, object] = {
        "case_id": case_id,
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
        "preset": presets.told(case),
        "n": len(chosen),
        "warm": is_warm(chosen[0]) if chosen and unstated is None else None,
        "left_out": left_out(records),
    }
    return {**described, **{name: None for name in unstated or () if name in described}}

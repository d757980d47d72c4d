"""Stages to trials: each figure over the stages of a rank, and then over the ranks as METRICS says.

Sums run over leaf stages only: Total_Execution contains the others, and adding it to them would count everything twice. Save lies outside it.
"""

from __future__ import annotations

import polars as pl

from wansweep.metrics import METRIC, Fold, Metric
from wansweep.record import StageKind
from wansweep.tables.ranks import own_seconds, spread_pct

_OUTSIDE = (StageKind.TOTAL_EXECUTION, StageKind.SAVE)
_RANK = ("case_id", "trial", "rank")


def trial_frame(stages: pl.LazyFrame) -> pl.LazyFrame:
    """One row a trial, in order of case and trial: its figures, each folded over the ranks.

    A sum over stages holds what was measured; how much of the leaf stages' time that is stands beside it (``load_coverage_pct``).
    """
    marked = _marked(stages)
    step_s, leaf_s = pl.col("step_s"), pl.col("leaf_s")
    ranks = marked.group_by(_RANK).agg(
        total_s=_sum("total_s"),
        leaves_s=_sum("leaf_s"),
        step_s=step_s.mean(),
        step_s_stdev=step_s.std(),
        communication_s=_where("communication_s", step_s.is_not_null()).mean(),
        own_step_s=_where(own_seconds(), step_s.is_not_null()).mean(),
        first_step_s=_where(step_s, pl.col("step") == 0).max(),
        load_s=_sum("load_s"),
        text_encode_s=_sum("text_encode_s"),
        vae_decode_s=_sum("vae_decode_s"),
        save_s=_sum("save_s"),
        peak_allocated_bytes=pl.col("peak_allocated_bytes").max(),
        peak_reserved_bytes=pl.col("peak_reserved_bytes").max(),
        peak_device_bytes=pl.col("device_used_bytes").max(),
        peak_host_bytes=pl.col("host_bytes").max(),
        peak_pinned_bytes=pl.col("pinned_bytes").max(),
        sm_active_pct=_weighted("sm_active_pct", step_s),
        gpu_busy_pct=_weighted("gpu_busy_pct", step_s),
        energy_j=_sum("leaf_energy_j"),
        compute_load=_sum("leaf_load"),
        load_coverage_pct=_spoken_for("compute_load", leaf_s),
        energy_coverage_pct=_spoken_for("energy_j", leaf_s),
    )
    ranks = _with_steady_steps(ranks, stages)
    ranks = ranks.with_columns(unattributed_pct=100 * (pl.col("total_s") - pl.col("leaves_s")) / pl.col("total_s")).drop("leaves_s")
    folds = [_fold(METRIC[name]) for name in ranks.collect_schema() if name in METRIC]
    return (
        ranks.group_by("case_id", "trial")
        .agg(*folds, step_imbalance_pct=spread_pct(pl.col("own_step_s").drop_nulls()))
        .sort("case_id", "trial")
    )


def case_frame(trials: pl.LazyFrame) -> pl.LazyFrame:
    """One row a case that has trials: each figure's median over them, and the spread of its times."""
    figures = pl.exclude("case_id", "trial").median()
    return trials.group_by("case_id").agg(figures, total_s_spread=pl.col("total_s").std(), step_s_spread=pl.col("step_s").std())


def _marked(stages: pl.LazyFrame) -> pl.LazyFrame:
    """The stages with a column for each sum: the seconds of those that count for it, null for the rest.

    Not a filter a figure: filters gather each rank's rows first, where these are added up as they are read (1.9 s of CPU to 0.9 s for two
    million rows).
    """
    leaf, step = ~_is(*_OUTSIDE), _is(StageKind.STEP_INFERENCE)
    return stages.with_columns(
        total_s=_where("duration_s", _is(StageKind.TOTAL_EXECUTION)),
        leaf_s=_where("duration_s", leaf),
        step_s=_where("duration_s", step),
        load_s=_where("duration_s", _is(StageKind.MODEL_INITIALIZATION, StageKind.STEP_LOADING)),
        text_encode_s=_where("duration_s", _is(StageKind.T5_ENCODING)),
        vae_decode_s=_where("duration_s", _is(StageKind.VAE_DECODING)),
        save_s=_where("duration_s", _is(StageKind.SAVE)),
        leaf_energy_j=_where("energy_j", leaf),
        leaf_load=_where("compute_load", leaf),
    )


def _with_steady_steps(ranks: pl.LazyFrame, stages: pl.LazyFrame) -> pl.LazyFrame:
    """The ranks with the median of their steps after the first: apart from the sums, because a median needs its values together.

    One after the other, each as a stream: as one query both read their rows at once (2.5 GB against 1.2 for ten million stage rows).
    """
    later = stages.filter(_is(StageKind.STEP_INFERENCE) & (pl.col("step") > 0))
    steady = later.group_by(_RANK).agg(steady_step_s=pl.col("duration_s").median())
    sums, medians = (frame.collect(engine="streaming").lazy() for frame in (ranks, steady))
    joined = sums.join(medians, on=_RANK, how="left")
    return joined.with_columns(first_step_ratio=pl.col("first_step_s") / pl.col("steady_step_s")).drop("first_step_s")


def _is(*kinds: StageKind) -> pl.Expr:
    return pl.any_horizontal(pl.col("kind") == str(kind) for kind in kinds)


def _where(values: str | pl.Expr, condition: pl.Expr) -> pl.Expr:
    """The values where the condition holds, null elsewhere."""
    return pl.when(condition).then(values)


def _sum(name: str) -> pl.Expr:
    """The sum of what was measured; null when nothing was, where Polars would say 0."""
    return pl.when(pl.col(name).count() > 0).then(pl.col(name).sum())


def _weighted(name: str, seconds: pl.Expr) -> pl.Expr:
    """The mean of a percentage over stages of unequal length, weighted by their seconds, over those that have it."""
    weight = _where(seconds, pl.col(name).is_not_null()).sum()
    return (pl.col(name) * seconds).sum() / pl.when(weight > 0).then(weight)


def _spoken_for(name: str, seconds: pl.Expr) -> pl.Expr:
    """The share of those seconds, in percent, that lies in stages which have the figure; null when none has."""
    having = _where(seconds, pl.col(name).is_not_null()).sum()
    return pl.when(having > 0).then(100 * having / seconds.sum())


def _fold(metric: Metric) -> pl.Expr:
    match metric.across_ranks:
        case Fold.MAX:
            return pl.col(metric.name).max()
        case Fold.MEAN:
            return pl.col(metric.name).mean()
        case Fold.SUM:
            return pl.when(pl.col(metric.name).count() > 0).then(pl.col(metric.name).sum()).alias(metric.name)

"""Stages to trials: each figure over the stages of a rank, and then over the ranks as METRICS says.

Sums run over leaf stages only: Total_Execution contains the others, and adding it to them would count everything twice. Save lies outside it.
"""

from __future__ import annotations

import polars as pl

from wansweep.metrics import METRIC, Fold, Metric
from wansweep.record import StageKind
from wansweep.tables.ranks import own_seconds, spread_pct

_LEAVES = [kind for kind in StageKind if kind not in (StageKind.TOTAL_EXECUTION, StageKind.SAVE)]


def trial_frame(stages: pl.DataFrame) -> pl.DataFrame:
    """One row a trial: its figures, each folded over the ranks.

    A sum over stages holds what was measured; how much of the leaf stages' time that is stands beside it (``load_coverage_pct``).
    """
    seconds, step, leaf = pl.col("duration_s"), _is(StageKind.STEP_INFERENCE), _is(*_LEAVES)
    first, later = step & (pl.col("step") == 0), step & (pl.col("step") > 0)
    ranks = stages.group_by("case_id", "trial", "rank").agg(
        total_s=_sum(seconds, _is(StageKind.TOTAL_EXECUTION)),
        leaves_s=_sum(seconds, leaf),
        step_s=seconds.filter(step).mean(),
        step_s_stdev=seconds.filter(step).std(),
        communication_s=pl.col("communication_s").filter(step).mean(),
        own_step_s=own_seconds().filter(step).mean(),
        steady_step_s=seconds.filter(later).median(),
        first_step_ratio=seconds.filter(first).max() / seconds.filter(later).median(),
        load_s=_sum(seconds, _is(StageKind.MODEL_INITIALIZATION, StageKind.STEP_LOADING)),
        text_encode_s=_sum(seconds, _is(StageKind.T5_ENCODING)),
        vae_decode_s=_sum(seconds, _is(StageKind.VAE_DECODING)),
        save_s=_sum(seconds, _is(StageKind.SAVE)),
        peak_allocated_bytes=pl.col("peak_allocated_bytes").max(),
        peak_reserved_bytes=pl.col("peak_reserved_bytes").max(),
        peak_device_bytes=pl.col("device_used_bytes").max(),
        peak_host_bytes=pl.col("host_bytes").max(),
        peak_pinned_bytes=pl.col("pinned_bytes").max(),
        sm_active_pct=_weighted("sm_active_pct", step),
        gpu_busy_pct=_weighted("gpu_busy_pct", step),
        energy_j=_sum(pl.col("energy_j"), leaf),
        compute_load=_sum(pl.col("compute_load"), leaf),
        load_coverage_pct=_spoken_for("compute_load", leaf),
        energy_coverage_pct=_spoken_for("energy_j", leaf),
    )
    ranks = ranks.with_columns(unattributed_pct=100 * (pl.col("total_s") - pl.col("leaves_s")) / pl.col("total_s")).drop("leaves_s")
    folds = [_fold(METRIC[name]) for name in ranks.columns if name in METRIC]
    return (
        ranks.group_by("case_id", "trial")
        .agg(*folds, step_imbalance_pct=spread_pct(pl.col("own_step_s").drop_nulls()))
        .sort("case_id", "trial")
    )


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


def _spoken_for(name: str, where: pl.Expr) -> pl.Expr:
    """The share of those stages' seconds, in percent, that lies in stages which have the figure; null when none has."""
    having, all_of = pl.col("duration_s").filter(where & pl.col(name).is_not_null()), pl.col("duration_s").filter(where)
    return pl.when(having.sum() > 0).then(100 * having.sum() / all_of.sum())


def _fold(metric: Metric) -> pl.Expr:
    match metric.across_ranks:
        case Fold.MAX:
            return pl.col(metric.name).max()
        case Fold.MEAN:
            return pl.col(metric.name).mean()
        case Fold.SUM:
            return pl.when(pl.col(metric.name).count() > 0).then(pl.col(metric.name).sum()).alias(metric.name)

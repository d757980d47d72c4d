"""How evenly the ranks of a gang worked: a rank's own seconds of a stage, and how far the ranks lie apart.

A stage with a collective ends for all ranks at once, so its durations say nothing: what a rank did itself is its duration less the time it
waited in collectives.
"""

from __future__ import annotations

import polars as pl

from wansweep.record import StageKind

# Every rank does the whole of these for itself.
REPLICATED = (StageKind.T5_ENCODING, StageKind.PREPROCESS, StageKind.VAE_DECODING)
_STAGE = ("case_id", "trial", "stage")


def own_seconds() -> pl.Expr:
    """Of a stage on a rank: its duration, less communication where that was measured."""
    return pl.col("duration_s") - pl.col("communication_s").fill_null(0.0)


def spread_pct(own: pl.Expr) -> pl.Expr:
    """How far ranks lie apart: the slowest less the fastest, of the slowest; null for one rank, or where none did anything."""
    return pl.when((own.len() > 1) & (own.max() > 0)).then(100 * (own.max() - own.min()) / own.max())


def with_imbalance(stages: pl.DataFrame) -> pl.DataFrame:
    """The stages of every rank with the imbalance of each over the ranks."""
    why = pl.when(pl.col("imbalance_pct").is_null()).then(pl.lit("not_applicable"))
    return stages.with_columns(imbalance_pct=spread_pct(own_seconds()).over(_STAGE)).with_columns(imbalance_pct_why=why)


def by_kind(stages: pl.DataFrame) -> pl.DataFrame:
    """One case's kinds of stages in order of begin: seconds of the slowest and the fastest rank, mean communication, and the imbalance.

    Of each trial the stages of a kind are added up a rank at a time; of trials the median is taken.
    """
    key = ("trial", "kind")
    ranks = stages.group_by(*key, "rank").agg(
        start_s=pl.col("start_s").min(),
        seconds=pl.col("duration_s").sum(),
        own_s=own_seconds().sum(),
        communication_s=pl.when(pl.col("communication_s").count() > 0).then(pl.col("communication_s").sum()),
    )
    trials = ranks.group_by(*key).agg(
        ranks=pl.len(),
        start_s=pl.col("start_s").min(),
        slowest_s=pl.col("seconds").max(),
        fastest_s=pl.col("seconds").min(),
        communication_s=pl.col("communication_s").mean(),
        imbalance_pct=spread_pct(pl.col("own_s")),
    )
    return trials.drop("trial").group_by("kind").median().sort("start_s", "kind")

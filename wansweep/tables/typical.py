"""One case's stages as one list: what a reader sees of several ranks and trials."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from wansweep.metrics import STAGE_METRIC
from wansweep.record import Record, StageKind
from wansweep.tables.repeats import counted


def typical_stages(stages: pl.DataFrame) -> pl.DataFrame:
    """One row a stage in order of begin: the slowest rank's seconds and the fullest rank's memory, and of those the median over trials.

    Where no rank of no trial has a figure, the first reason given for it stays.
    """
    if stages.is_empty():
        return stages
    key = ("stage", "kind", "step", "expert")
    figures = [name for name in STAGE_METRIC if name in stages.columns]
    whys = {name: f"{name}_why" for name in figures if f"{name}_why" in stages.columns}
    told = [pl.col(why).drop_nulls().first() for why in whys.values()]
    trials = stages.group_by("trial", *key).agg(pl.col("start_s").min(), pl.col(figures).max(), *told, pl.col("load_source"))
    sources = pl.col("load_source").explode().drop_nulls().unique().sort().str.join(" or ").replace("", None)
    folded = trials.group_by(*key).agg(pl.col("start_s").median(), pl.col(figures).median(), *told, sources)
    explained = folded.with_columns(pl.when(pl.col(name).is_null()).then(why).alias(why) for name, why in whys.items())
    # Stages of no length begin together: a step's loading comes before its inference.
    return explained.sort("start_s", "step", pl.col("kind").cast(pl.Enum([str(kind) for kind in StageKind])))


def of_case(stages: pl.DataFrame, records: Sequence[Record]) -> pl.DataFrame:
    """The typical stages of one case's trials: of those that count, and of all where none does."""
    trials = [record.trial for record in counted(records) or records]
    ids = [record.case_id for record in records[:1]]
    return typical_stages(stages.filter(pl.col("case_id").is_in(ids) & pl.col("trial").is_in(trials)))

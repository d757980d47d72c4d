"""One case's stages as one list: what a reader sees of several ranks and trials."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from wansweep.metrics import STAGE_METRIC
from wansweep.record import Record, StageKind
from wansweep.tables.repeats import counted

# What a report shows of each stage of a case.
STAGE_TABLE = (
    "case_id",
    "stage",
    "duration_s",
    "peak_allocated_bytes",
    "cpu_pct",
    "host_bytes",
    "sm_active_pct",
    "gpu_busy_pct",
    "compute_load",
)
_STAGE = ("case_id", "stage")
# Follow from the stage's name.
_NATURE = ("kind", "step", "expert")


def typical_stages(stages: pl.LazyFrame) -> pl.LazyFrame:
    """One row a stage of a case in order of begin: the slowest rank's seconds and the fullest rank's memory, of those the median over trials.

    Where no rank of no trial has a figure, the first reason given for it stays. Columns that nobody selects are not computed.
    """
    there = stages.collect_schema()
    figures = [name for name in STAGE_METRIC if name in there]
    whys = {name: f"{name}_why" for name in figures if f"{name}_why" in there}
    told = [pl.col(why).drop_nulls().first() for why in whys.values()]
    nature = pl.col(_NATURE).first()
    # Of few names and very many rows: numbers group faster than text.
    kinds = pl.Enum([str(kind) for kind in StageKind])
    coded = stages.with_columns(pl.col(_STAGE).cast(pl.Categorical), pl.col("kind").cast(kinds))
    trials = coded.group_by("trial", *_STAGE).agg(nature, pl.col("start_s").min(), pl.col(figures).max(), *told, pl.col("load_source"))
    sources = pl.col("load_source").explode().drop_nulls().unique().sort().str.join(" or ").replace("", None)
    folded = trials.group_by(_STAGE).agg(nature, pl.col("start_s", *figures), *told, sources)
    # The median of a list takes half the time of one by group, where groups are as small as the trials of a case.
    folded = folded.with_columns(pl.col("start_s", *figures).list.median(), pl.col(_STAGE).cast(pl.String))
    explained = folded.with_columns(pl.when(pl.col(name).is_null()).then(why).alias(why) for name, why in whys.items())
    # Stages of no length begin together: a step's loading comes before its inference.
    return explained.sort("case_id", "start_s", "step", "kind").with_columns(pl.col("kind").cast(pl.String))


def of_case(stages: pl.DataFrame, records: Sequence[Record]) -> pl.DataFrame:
    """The typical stages of one case's trials: of those that count, and of all where none does."""
    return next(iter(of_cases(stages, [records]).values()), stages.clear())


def of_cases(stages: pl.DataFrame, records: Sequence[Sequence[Record]]) -> dict[str, pl.DataFrame]:
    """Case id to `of_case`, of many cases at once; one without stages is not there.

    Args:
        stages: Of all cases.
        records: Each case's.
    """
    typical = typical_stages(shown_stages(stages.lazy(), records)).collect()
    return {str(key[0]): own for key, own in typical.partition_by("case_id", as_dict=True).items()}


def shown_stages(stages: pl.LazyFrame, records: Sequence[Sequence[Record]]) -> pl.LazyFrame:
    """Of the stages those that stand for the cases of the records: of the trials that count, and of all of a case where none does."""
    chosen = [(record.case_id, record.trial) for own in records for record in counted(own) or own]
    shown = pl.DataFrame(chosen, schema={"case_id": pl.String(), "trial": pl.Int64()}, orient="row")
    # A filter by values is done while files are read, which a join is not: 0.2 s of CPU against 1.1 for 500 cases of 20,000.
    theirs = stages.filter(pl.col("case_id").is_in(shown["case_id"].unique().implode()))
    return theirs.join(shown.lazy(), on=["case_id", "trial"], how="semi")

"""A gang's section of report.md: what its ranks took of each kind of stage, how evenly, what they waited for, what each did for itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from wansweep.metrics import METRIC, STAGE_METRIC
from wansweep.record import Record, StageKind
from wansweep.report.cells import cell, figure, table
from wansweep.tables.ranks import REPLICATED, by_kind
from wansweep.tables.repeats import counted
from wansweep.tables.scaling import BY_DIFFERENCE
from wansweep.units import GIB, NOT_MEASURED

Row = dict[str, Any]


def render(row: Row, records: Sequence[Record], stages: pl.DataFrame) -> str:
    """The section; empty for a case on one GPU, or one of which no rank ended a stage.

    Args:
        row: Of the summary.
        records: The case's.
        stages: Of every rank of every trial.
    """
    trials = [record.trial for record in counted(records) or records]
    own = stages.filter((pl.col("case_id") == row["case_id"]) & pl.col("trial").is_in(trials))
    if row["gpus"] == 1 or own.is_empty():
        return ""
    lines = [
        f"- **Scaling Efficiency**: {_efficiency(row, 'scaling_efficiency_pct')} of the whole, "
        f"{_efficiency(row, 'scaling_efficiency_step_pct')} of a step",
        f"- **Communication per Step**: {_communication(row)}",
        f"- **Imbalance of the Steps**: {figure(row, 'step_imbalance_pct')}",
        *_shards(next(iter(counted(records)), None)),
    ]
    return "\n\n".join(["### Ranks", "\n".join(lines), _table(own, row["gpus"])])


def _efficiency(row: Row, name: str) -> str:
    return f"{figure(row, name)} ({cell(row[name + '_why'])})" if row[name] is None else figure(row, name)


def _communication(row: Row) -> str:
    if row["communication_s"] is None:
        return f"{NOT_MEASURED} (what is compiled cannot be timed inside, and no twin ran on one GPU)"
    if row["communication_how"] == BY_DIFFERENCE:
        return f"{figure(row, 'communication_s')}, by difference: the step less its share of the step on one GPU"
    return f"{figure(row, 'communication_s')}, measured: the mean over the ranks of what they waited in collectives"


def _shards(record: Record | None) -> list[str]:
    ran = record.resolved if record else None
    lines = []
    if ran and ran.shard_bytes:
        told = ", ".join(f"{name} {share.count / GIB:.2f} of {share.of / GIB:.2f} GiB" for name, share in ran.shard_bytes.items())
        lines.append(f"- **Weights on Rank 0 between Forwards**: {told}")
    if ran and ran.ranks_error is not None:
        lines.append(f"- **Latents of the Ranks**: {'equal' if ran.ranks_error == 0 else f'differ by {ran.ranks_error:.2g} at most'}")
    return lines


def _table(stages: pl.DataFrame, gpus: int) -> str:
    rows = [
        [
            _name(row["kind"]),
            STAGE_METRIC["duration_s"].show(row["slowest_s"]),
            STAGE_METRIC["duration_s"].show(row["fastest_s"]),
            METRIC["communication_s"].show(row["communication_s"]),
            STAGE_METRIC["imbalance_pct"].show(row["imbalance_pct"]),
            f"replicated on {gpus} ranks" if row["kind"] in REPLICATED else "",
        ]
        for row in by_kind(stages).iter_rows(named=True)
        if row["kind"] != StageKind.TOTAL_EXECUTION
    ]
    return table(["Stages", "Slowest (s)", "Fastest (s)", "Comm (s)", "Imbalance (%)", "Note"], rows, numeric_from=1)


def _name(kind: str) -> str:
    """As the stage's name, for all steps together."""
    return f"Steps' {kind}" if kind in (StageKind.STEP_LOADING, StageKind.STEP_INFERENCE) else kind

"""Everything a report is made from: what a run folder says, as one value."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from wansweep.drift.distance import Distance
from wansweep.record import Record
from wansweep.store import Unreadable
from wansweep.sweep import Sweep
from wansweep.tables.drift import with_drift
from wansweep.tables.frames import stages_frame, summary_frame
from wansweep.tables.predicted import with_predictions
from wansweep.telemetry.environment import Environment


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """A run, read.

    Attributes:
        sweep: What was asked.
        environment: Where it ran.
        records: What the trials left.
        unreadable: Files in records/ that are none.
        summary: One row a planned case (`tables.frames.SUMMARY_SCHEMA`).
        stages: One row a stage of a rank of a trial (`STAGES_SCHEMA`).
        predictions: Row of plan.json of each case, by its id; empty where there is no plan.
    """

    sweep: Sweep
    environment: Environment
    records: tuple[Record, ...]
    unreadable: tuple[Unreadable, ...]
    summary: pl.DataFrame
    stages: pl.DataFrame
    predictions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def tabulate(
    sweep: Sweep,
    environment: Environment,
    records: Sequence[Record],
    unreadable: Sequence[Unreadable],
    predictions: Mapping[str, Mapping[str, Any]] | None = None,
    distances: Mapping[str, Distance] | None = None,
) -> Results:
    """The results of a run, from what its folder holds."""
    stages = stages_frame(records)
    summary = with_predictions(summary_frame(sweep.cases, records, stages), predictions or {})
    return Results(
        sweep=sweep,
        environment=environment,
        records=tuple(records),
        unreadable=tuple(unreadable),
        summary=_with_runs(with_drift(summary, sweep, records, distances or {}), records),
        stages=stages,
        predictions=predictions or {},
    )


def _with_runs(summary: pl.DataFrame, records: Sequence[Record]) -> pl.DataFrame:
    """The summary with the runs that a case's trials were merged from; null in a run of its own."""
    runs: dict[str, dict[str, None]] = {}
    for record in records:
        if record.run:
            runs.setdefault(record.case_id, {})[record.run] = None
    told = [", ".join(runs[id_]) if id_ in runs else None for id_ in summary["case_id"]]
    return summary.with_columns(merged_from=pl.Series(told, dtype=pl.String))


def narrowed(results: Results, case_ids: Collection[str]) -> dict[str, Results]:
    """Case id to the results with that case's records and stages alone, in the order asked for."""
    records: dict[str, list[Record]] = {case_id: [] for case_id in case_ids}
    for record in results.records:
        if record.case_id in records:
            records[record.case_id].append(record)
    stages = results.stages.filter(pl.col("case_id").is_in(list(records))).partition_by("case_id", as_dict=True)
    none = results.stages.clear()
    return {id_: replace(results, records=tuple(own), stages=stages.get((id_,), none)) for id_, own in records.items()}

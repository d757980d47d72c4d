"""Figures that an imported report states of a whole case, for cases whose stages it does not give."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from wansweep.record import Record

_SCHEMA = {
    "case_id": pl.String(),
    "trial": pl.Int64(),
    "total_s": pl.Float64(),
    "step_s": pl.Float64(),
    "peak_allocated_bytes": pl.Float64(),
    "sm_active_pct": pl.Float64(),
}


def stated_trials(records: Sequence[Record]) -> pl.DataFrame:
    """One row a record that stands in its report's summary only, as `trials.trial_frame` would have it.

    The load is left out: the seed's holds every stage twice.
    """
    rows = []
    for record in records:
        stated = record.imported.summary if record.imported and not record.stages else None
        if stated:
            figures = (stated.duration_s, stated.step_s, stated.peak_bytes, stated.sm_active_pct)
            rows.append((record.case_id, record.trial, *figures))
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")

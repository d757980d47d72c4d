"""The samples of a trial as a Polars frame."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from wansweep.telemetry.samples import Sample

TRACE_SCHEMA: dict[str, pl.DataType] = {
    "t_s": pl.Float64(),
    "since_s": pl.Float64(),
    "device": pl.String(),
    "metric": pl.String(),
    "value": pl.Float64(),
    "why": pl.String(),
}


def trace_frame(samples: Sequence[Sample]) -> pl.DataFrame:
    """One row a sample, in order of time on CLOCK_MONOTONIC."""
    rows = [(s.t_s, s.since_s, s.device, s.metric, s.value, s.why and str(s.why)) for s in samples]
    return pl.DataFrame(rows, schema=TRACE_SCHEMA, orient="row").sort("t_s", "device", "metric")

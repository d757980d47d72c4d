"""Samples of a trial on the clock of its stages, thinned for pictures: what a reader sees of a trace.

A picture needs the shape and the peaks, not every 100 ms: of each stretch of time, memory and power keep the highest sample, all else the mean.
"""

from __future__ import annotations

import polars as pl

from wansweep.record import Record

# A screen is no wider.
POINTS = 300
CURVES_SCHEMA: dict[str, pl.DataType] = {"rank": pl.Int64(), "metric": pl.String(), "t_s": pl.Float64(), "value": pl.Float64()}
# What is worth a line; counters such as energy_j only mean something as differences.
DRAWN = (
    "device_used_bytes",
    "host_pss_bytes",
    "host_rss_bytes",
    "host_available_bytes",
    "power_w",
    "sm_active_pct",
    "gpu_busy_pct",
    "tensor_active_pct",
    "dram_active_pct",
    "sm_clock_mhz",
    "temperature_c",
    "pcie_rx_bytes_per_s",
    "pcie_tx_bytes_per_s",
)


def curve_frame(trace: pl.DataFrame, record: Record, *, points: int = POINTS) -> pl.DataFrame:
    """At most ``points`` samples of each metric of each rank, with seconds since the trial's origin; a null rank is the node itself.

    Empty for a record that does not say when its stages' zero was on the samples' clock.

    Args:
        trace: As `traces.trace_frame` makes it.
        record: The trial that it was sampled in.
        points: Most samples kept of one series.
    """
    if record.origin_s is None:
        return pl.DataFrame(schema=CURVES_SCHEMA)
    ranks = {rank.device_uuid: rank.rank for rank in record.ranks if rank.device_uuid}
    ranks |= {f"host:{rank.pid}": rank.rank for rank in record.ranks if rank.pid is not None}
    drawn = trace.filter(pl.col("value").is_not_null() & pl.col("metric").is_in(DRAWN)).select(
        rank=pl.col("device").replace_strict(ranks, default=None, return_dtype=pl.Int64()),
        metric="metric",
        t_s=pl.col("t_s") - record.origin_s,
        value="value",
    )
    return _thinned(drawn, points)


def _thinned(samples: pl.DataFrame, points: int) -> pl.DataFrame:
    if samples.is_empty():
        return pl.DataFrame(schema=CURVES_SCHEMA)
    begin_s, end_s = float(samples["t_s"].min()), float(samples["t_s"].max())  # type: ignore[arg-type]
    bucket = ((pl.col("t_s") - begin_s) / max(end_s - begin_s, 1e-9) * (points - 1)).floor()
    peaks = pl.col("metric").str.contains("_bytes$|^power_")
    highest = pl.col("value").arg_max()
    return (
        samples.group_by("rank", "metric", bucket.alias("bucket"))
        .agg(
            t_s=pl.when(peaks.first()).then(pl.col("t_s").get(highest)).otherwise(pl.col("t_s").mean()),
            value=pl.when(peaks.first()).then(pl.col("value").get(highest)).otherwise(pl.col("value").mean()),
        )
        .select(list(CURVES_SCHEMA))
        .sort("rank", "metric", "t_s")
    )

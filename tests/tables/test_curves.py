from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from tests.gpu_runs import ORIGIN_S, gpu_cases, gpu_records, gpu_trace
from wansweep.tables.curves import curve_frame
from wansweep.tables.traces import TRACE_SCHEMA


def test_samples_stand_on_the_clock_of_the_stages_under_their_rank() -> None:
    (record,) = gpu_records([next(case for case in gpu_cases() if case.gpus == 2)], repeats=1)
    rows = [
        (ORIGIN_S + 3.0, None, "GPU-1", "power_w", 500.0, None),
        (ORIGIN_S + 4.0, None, "host:900", "host_pss_bytes", 2.0, None),
        (ORIGIN_S + 5.0, None, "host", "host_available_bytes", 9.0, None),
        (ORIGIN_S + 5.0, None, "GPU-1", "sm_active_pct", None, "unsupported"),
        (ORIGIN_S + 5.0, None, "GPU-1", "energy_j", 1.0, None),
    ]
    curves = curve_frame(pl.DataFrame(rows, schema=TRACE_SCHEMA, orient="row"), record)
    assert set(curves.iter_rows()) == {(1, "power_w", 3.0, 500.0), (0, "host_pss_bytes", 4.0, 2.0), (None, "host_available_bytes", 5.0, 9.0)}


def test_thinning_keeps_the_highest_memory_and_the_mean_activity() -> None:
    (record,) = gpu_records(gpu_cases()[:1], repeats=1)
    whole = gpu_trace(record, period_s=0.05)
    curves = curve_frame(whole, record, points=20)
    counts = curves.group_by("rank", "metric").len()["len"].to_list()
    assert max(counts) <= 20
    for metric, keeps in (("device_used_bytes", "max"), ("sm_active_pct", "mean")):
        (before,), (after,) = (
            frame.filter(pl.col("metric") == metric).select(getattr(pl.col("value"), keeps)()).row(0) for frame in (whole, curves)
        )
        assert after == pytest.approx(before, rel=0 if keeps == "max" else 0.1)


def test_a_record_that_does_not_say_where_its_samples_lie_has_no_curves() -> None:
    (record,) = gpu_records(gpu_cases()[:1], repeats=1)
    assert curve_frame(gpu_trace(record), replace(record, origin_s=None)).is_empty()
    assert curve_frame(pl.DataFrame(schema=TRACE_SCHEMA), record).is_empty()

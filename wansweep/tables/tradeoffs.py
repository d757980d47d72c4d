"""Cases held against each other: which none beats in both time and memory, what a saved GiB costs, what another GPU brings.

Twins are cases that declare the same but for one family of levers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from wansweep.case import Case, declared_fields
from wansweep.levers import Offload
from wansweep.record import Outcome
from wansweep.tables.scaling import twin
from wansweep.units import GIB

Row = dict[str, Any]

# The best first: what the allocator took decides whether a card is large enough; without a GPU the host's memory is what there is.
MEMORIES = ("peak_reserved_bytes", "peak_allocated_bytes", "peak_host_bytes")
# Less is no saving, but what two runs of one case differ by.
LEAST_SAVED_BYTES = 0.05 * GIB

_DEFAULTS: dict[str, Any] = {field.name: field.default for field in declared_fields()}
_OFFLOAD = {name: default for name, default in _DEFAULTS.items() if name in ("name", "offload") or name.startswith("group_")}

LADDER_SCHEMA: dict[str, pl.DataType] = {
    "case_id": pl.String(),
    "label": pl.String(),
    "twin": pl.String(),
    "offload": pl.String(),
    "n": pl.Int64(),
    "saved_bytes": pl.Float64(),
    "extra_s": pl.Float64(),
    "s_per_gib": pl.Float64(),
}
SCALING_SCHEMA: dict[str, pl.DataType] = {
    "case_id": pl.String(),
    "label": pl.String(),
    "group": pl.String(),
    "gpus": pl.Int64(),
    "parallel": pl.String(),
    "n": pl.Int64(),
    "step_s": pl.Float64(),
    "total_s": pl.Float64(),
    "speedup": pl.Float64(),
    "efficiency_pct": pl.Float64(),
}


def memory_measured(summary: pl.DataFrame) -> str | None:
    """The memory that the cases can be held against each other by: the first of `MEMORIES` that any ok case has; null when none has one."""
    ok = _ok(summary)
    return next((name for name in MEMORIES if ok[name].count()), None)


def frontier(summary: pl.DataFrame, memory: str) -> pl.DataFrame:
    """The ok cases that no other beats in both total time and memory, fastest first."""
    ok = _ok(summary).filter(pl.col("total_s").is_not_null() & pl.col(memory).is_not_null()).sort("total_s", memory)
    return ok.filter(pl.col(memory) < pl.col(memory).cum_min().shift(1, fill_value=float("inf")))


def ladder(cases: Sequence[Case], summary: pl.DataFrame, memory: str) -> pl.DataFrame:
    """What each offloading case saves and costs against the twin that does not offload; of cases whose twin is ok too.

    ``s_per_gib`` is null for a case that saves nothing.
    """
    rows = []
    for others in _twins(cases, summary, lambda case: replace(case, **_OFFLOAD)):
        base = next((row for case, row in others if case.offload is Offload.NONE and row[memory] is not None), None)
        if base is None:
            continue
        for case, row in others:
            if case.offload is Offload.NONE or row[memory] is None:
                continue
            saved, extra = base[memory] - row[memory], row["total_s"] - base["total_s"]
            rows.append(
                {
                    **{name: row[name] for name in ("case_id", "label", "offload", "n")},
                    "twin": base["label"],
                    "saved_bytes": saved,
                    "extra_s": extra,
                    "s_per_gib": extra / (saved / GIB) if saved >= LEAST_SAVED_BYTES else None,
                }
            )
    return pl.DataFrame(rows, schema=LADDER_SCHEMA).sort("twin", "saved_bytes", maintain_order=True)


def scaling(cases: Sequence[Case], summary: pl.DataFrame) -> pl.DataFrame:
    """Step time over GPUs of cases that differ only in how they are parallel, held against the fastest on the fewest; two counts at least."""
    rows = []
    for twins in _twins(cases, summary, twin):
        timed = sorted(((case, row) for case, row in twins if row["step_s"]), key=lambda pair: (pair[0].gpus, pair[1]["step_s"]))
        if len({case.gpus for case, _ in timed}) < 2:
            continue
        first, base = timed[0]
        for case, row in timed:
            speedup = base["step_s"] / row["step_s"]
            rows.append(
                {
                    **{name: row[name] for name in ("case_id", "label", "gpus", "parallel", "n", "step_s", "total_s")},
                    "group": base["label"],
                    "speedup": speedup,
                    "efficiency_pct": 100 * speedup * first.gpus / case.gpus,
                }
            )
    return pl.DataFrame(rows, schema=SCALING_SCHEMA)


def _ok(summary: pl.DataFrame) -> pl.DataFrame:
    return summary.filter(pl.col("outcome") == str(Outcome.OK))


def _twins(cases: Sequence[Case], summary: pl.DataFrame, alike: Callable[[Case], Case]) -> Iterator[list[tuple[Case, Row]]]:
    """Groups of ok cases with their summary rows that are one and the same case once they are made alike; of two members at least."""
    rows = {row["case_id"]: row for row in _ok(summary).iter_rows(named=True) if row["total_s"] is not None}
    groups: dict[Case, list[tuple[Case, Row]]] = {}
    for case in cases:
        if case.id in rows:
            groups.setdefault(alike(case), []).append((case, rows[case.id]))
    return (group for group in groups.values() if len(group) > 1)

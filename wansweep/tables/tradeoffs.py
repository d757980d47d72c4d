"""Cases held against each other: which none beats, what a saved GiB costs, what another GPU brings.

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

HOST = "peak_host_bytes"
# What has to fit on a card, the most telling first: contexts included, allocator's cache included, tensors alone. Without a GPU the host's
# memory is what there is.
MEMORIES = ("peak_device_bytes", "peak_reserved_bytes", "peak_allocated_bytes", HOST)
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
    """The memory that a run's cases are held against each other by: the first of `MEMORIES` that every ok case has, else that any has.

    Null when none has one.
    """
    ok = _ok(summary)
    counts = {name: ok[name].count() for name in MEMORIES}
    return next(
        (name for name, count in counts.items() if count == ok.height > 0), next((name for name, count in counts.items() if count), None)
    )


def unbeaten(points: Sequence[Sequence[float | None]]) -> set[int]:
    """The places of the points that no other beats: is nowhere more and somewhere less. What is not known of a point beats nothing."""
    order = sorted(range(len(points)), key=lambda place: [(value is None, value or 0.0) for value in points[place]])
    kept: list[int] = []
    for place in order:
        if not any(_beats(points[other], points[place]) for other in kept):
            kept.append(place)
    return set(kept)


def _beats(one: Sequence[float | None], other: Sequence[float | None]) -> bool:
    known = [(a, b) for a, b in zip(one, other, strict=True) if b is not None]
    return all(a is not None and a <= b for a, b in known) and any(a is not None and a < b for a, b in known)


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

"""What more GPUs brought: every case against its twin on one GPU, the case that is equal but for the degrees and fsdp.

Scaling efficiency is t1 / (N tN): 100 % is N times as fast. Where collectives could not be timed, communication is told from the same
twin: what a step takes beyond its share of the twin's. That also holds imbalance, and kernels that are less efficient on smaller parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from wansweep.case import Case

Row = Mapping[str, Any]
MEASURED, BY_DIFFERENCE = "measured", "by_difference"
# Column to the time it compares.
_EFFICIENCIES = {"scaling_efficiency_pct": "total_s", "scaling_efficiency_step_pct": "step_s"}


def twin(case: Case) -> Case:
    """The same on one GPU: neither degrees nor fsdp, nor a name of its own."""
    return replace(case, gpus=1, ulysses=1, ring=1, cfg_parallel=1, fsdp=False, name="", label="")


def with_scaling(summary: pl.DataFrame, cases: Sequence[Case]) -> pl.DataFrame:
    """The summary, one row a case in the same order, with the figures that compare a case with its twin."""
    rows = list(summary.select("n", "total_s", "step_s", "communication_s").iter_rows(named=True))
    twins = {twin(case): row for case, row in zip(cases, rows, strict=True) if case.gpus == 1 and row["n"]}
    added = [_against(case, row, twins.get(twin(case)) if twins and case.gpus > 1 else None) for case, row in zip(cases, rows, strict=True)]
    columns = {name: [row[name] for row in added] for name in (added[0] if added else {})}
    return summary.with_columns(pl.Series(name, values, dtype=summary.schema[name]) for name, values in columns.items())


def _against(case: Case, row: Row, alone: Row | None) -> dict[str, float | str | None]:
    found: dict[str, float | str | None] = {}
    for name, time in _EFFICIENCIES.items():
        why = _no_efficiency(case, row, alone, time)
        found[name] = None if why or alone is None else 100 * alone[time] / (case.gpus * row[time])
        found[f"{name}_why"] = why
    return found | _communication(case, row, alone)


def _no_efficiency(case: Case, row: Row, alone: Row | None, time: str) -> str | None:
    if case.gpus == 1:
        return "one GPU"
    if not row[time]:
        return "the case has no time"
    if alone is None:
        return "no case equal but for GPUs, degrees and fsdp ran on one GPU"
    return None if alone[time] else "its twin on one GPU has no time"


def _communication(case: Case, row: Row, alone: Row | None) -> dict[str, float | str | None]:
    seconds, how = row["communication_s"], MEASURED
    if case.gpus > 1 and seconds is None and alone is not None and row["step_s"] and alone["step_s"]:
        seconds, how = row["step_s"] - alone["step_s"] / (case.cfg_parallel * case.ring * case.ulysses), BY_DIFFERENCE
    return {"communication_s": seconds, "communication_how": how if seconds is not None else None}

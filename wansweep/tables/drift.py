"""The summary's columns of drift: how far a case's video is from its lossless twin's, and how far the twin's repeats are from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import polars as pl

from wansweep.case import Case
from wansweep.drift.distance import Distance
from wansweep.lossy import lossy_levers
from wansweep.record import Record
from wansweep.sweep import Sweep
from wansweep.twins import references, why_alone

_FIGURES = ("psnr_db", "ssim", "flip", "latent_error")
# What psnr_db_why says of a video that is its reference's to the bit: null stands for an infinite number.
IDENTICAL = "identical"
REFERENCE = "what the others of its workload are held against"
DRIFT_COLUMNS: dict[str, pl.DataType] = {
    **{name: pl.Float64() for name in (*_FIGURES, "ssim_floor", "latent_error_floor")},
    "psnr_db_why": pl.String(),
    "drift_against": pl.String(),
    "drift_n": pl.Int64(),
    "drift_floor_n": pl.Int64(),
    "drift_why": pl.String(),
}


def with_drift(summary: pl.DataFrame, sweep: Sweep, records: Sequence[Record], distances: Mapping[str, Distance]) -> pl.DataFrame:
    """The summary, one row a case in the sweep's order, with `DRIFT_COLUMNS`.

    Figures are medians over the trials that were measured; the floor is the farthest that a trial of the reference is from its first.
    """
    held = references(sweep.cases)
    twins = {reference.id for reference in held.values()}
    of_case: dict[str, list[Distance]] = {}
    floors: dict[str, list[Distance]] = {}
    for one in distances.values():
        id_, against = one.trial.rpartition("-")[0], one.against.rpartition("-")[0]
        (floors if id_ == against else of_case).setdefault(id_, []).append(one)
    ran = {record.case_id for record in records if record.resolved}
    rows = []
    for case in sweep.cases:
        reference = held.get(case.id)
        row = _drift(of_case.get(case.id, []), floors.get(reference.id if reference else case.id, []))
        row["drift_against"] = reference.label if reference else None
        row["drift_why"] = None if row["drift_n"] else _why(case, reference, sweep, twins, ran)
        rows.append(row)
    columns = pl.DataFrame(rows, schema=DRIFT_COLUMNS)
    return summary.drop(name for name in DRIFT_COLUMNS if name in summary.columns).hstack(columns)


def _drift(measured: Sequence[Distance], floor: Sequence[Distance]) -> dict[str, float | int | str | None]:
    row: dict[str, float | int | str | None] = dict.fromkeys(DRIFT_COLUMNS)
    for name in _FIGURES:
        values = [value for one in measured if (value := getattr(one, name)) is not None]
        row[name] = median(values) if values else None
    if measured and row["psnr_db"] is None:
        row["psnr_db_why"] = IDENTICAL
    row["ssim_floor"] = min((one.ssim for one in floor), default=None)
    row["latent_error_floor"] = max((one.latent_error for one in floor), default=None)
    return row | {"drift_n": len(measured), "drift_floor_n": len(floor)}


def _why(case: Case, reference: Case | None, sweep: Sweep, twins: set[str], ran: set[str]) -> str:
    """Why a case has no drift."""
    if case.id in twins and reference is None:
        return REFERENCE
    if reference is None:
        return why_alone(case, sweep.cases)
    if missing := [one.label for one in (case, reference) if one.id not in ran]:
        return f"{' and '.join(missing)} made no video"
    if not sweep.procedure.drift:
        return "not asked for: procedure.drift=false" + (f" ({', '.join(lossy_levers(case))})" if lossy_levers(case) else "")
    return "not measured yet (wansweep report RUN_DIR measures it), or the trials' files in drift/ are gone"

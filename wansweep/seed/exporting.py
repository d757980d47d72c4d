"""A run to a SeedReport: an imported case as its report had it, a case measured here as the seed would have told it.

What was not measured becomes 0, as in the seed. Save, which the seed did not time, and cases without an ok trial have no place in the format.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from wansweep.imported import Stated
from wansweep.levers import Offload
from wansweep.record import Outcome, Record, StageKind
from wansweep.seed import arithmetic
from wansweep.seed.document import Overall, Section, SeedReport, SeedStage, SummaryRow
from wansweep.tables.results import Results
from wansweep.tables.typical import of_case
from wansweep.units import GIB

Row = dict[str, Any]
_NOTHING = Overall(duration_s=0.0, step_s=0.0, peak_gib=0.0, sm_pct=0.0, load=0.0)


def seed_report(results: Results) -> SeedReport:
    """The run as the seed would have told it: imported cases by their old lines, then those measured here in the sweep's order."""
    imported = [record for record in results.records if record.imported]
    sections = [section for record in imported if (section := imported_section(record))]
    rows = [row for record in imported if (row := _imported_row(record))]
    sections.sort(key=lambda section: section.line)
    rows.sort(key=lambda row: row.line)
    known = {record.case_id for record in imported}
    for case in results.summary.filter(outcome=str(Outcome.OK)).iter_rows(named=True):
        if case["case_id"] not in known:
            sections.append(section := _section(results, case))
            rows.append(_row(case, section))
    return SeedReport(summary=tuple(rows), sections=tuple(sections))


def left_out(results: Results) -> list[str]:
    """The cases that the format has no place for, and why, a line each."""
    others = results.summary.filter((pl.col("outcome") != str(Outcome.OK)) | pl.col("outcome").is_null())
    return [f"{row['label']}: {row['outcome'] or 'not run yet'}; the seed format has no place for it" for row in others.iter_rows(named=True)]


def imported_section(record: Record) -> Section | None:
    """An imported case's breakdown; null when its report had none."""
    stated = record.imported.section if record.imported else None
    if stated is None:
        return None
    stages = []
    for stage in record.stages:
        figures = {name: figure.value or 0.0 for name, figure in stage.figures.items()}
        duration_s, sm_pct = stage.duration_s or 0.0, figures["sm_active_pct"]
        load = figures["compute_load"] if "compute_load" in figures else round(duration_s * float(f"{sm_pct:.1f}"))
        memory = {"gpu_gib": figures["peak_allocated_bytes"] / GIB, "host_gib": figures["host_bytes"] / GIB}
        stages.append(SeedStage(name=stage.name, duration_s=duration_s, cpu_pct=figures["cpu_pct"], sm_pct=sm_pct, load=load, **memory))
    own = arithmetic.section(record.label, stages, duration_s=stated.duration_s or 0.0, line=stated.line)
    overall = _overall(stated, own.overall)
    return Section(
        line=stated.line,
        name=record.label,
        overall=overall,
        stages=own.stages,
        cpu_pct=_or(stated.cpu_pct, own.cpu_pct),
        inference_load=_or(stated.inference_load, own.inference_load),
        analysis=stated.analysis or own.analysis,
        overview=stated.overview or arithmetic.overview(overall.peak_gib),
        breaks_after=stated.breaks_after,
    )


def _imported_row(record: Record) -> SummaryRow | None:
    stated = record.imported.summary if record.imported else None
    if stated is None:
        return None
    section, case = imported_section(record), record.case
    return SummaryRow(
        line=stated.line,
        name=record.label,
        width=case.width,
        height=case.height,
        offload=case.offload is not Offload.NONE,
        overall=_overall(stated, section.overall if section else _NOTHING),
    )


def _overall(stated: Stated, own: Overall) -> Overall:
    """The figures that a place of the report states: its own, and what follows where it keeps none."""
    return Overall(
        duration_s=_or(stated.duration_s, own.duration_s),
        step_s=_or(stated.step_s, own.step_s),
        peak_gib=own.peak_gib if stated.peak_bytes is None else stated.peak_bytes / GIB,
        sm_pct=_or(stated.sm_active_pct, own.sm_pct),
        load=_or(stated.load, own.load),
    )


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _section(results: Results, row: Row) -> Section:
    stages = of_case(results.stages, [record for record in results.records if record.case_id == row["case_id"]])
    inside = stages.filter(pl.col("kind") != str(StageKind.SAVE))
    is_total = pl.col("kind") == str(StageKind.TOTAL_EXECUTION)
    ordered = pl.concat([inside.filter(~is_total), inside.filter(is_total)]).fill_null(0.0)
    told = [
        SeedStage(
            name=stage["stage"],
            duration_s=stage["duration_s"],
            gpu_gib=stage["peak_allocated_bytes"] / GIB,
            cpu_pct=stage["cpu_pct"],
            host_gib=stage["host_bytes"] / GIB,
            sm_pct=stage["sm_active_pct"],
            load=stage["duration_s"] * stage["sm_active_pct"],
        )
        for stage in ordered.iter_rows(named=True)
    ]
    return arithmetic.section(row["label"], told, duration_s=row["total_s"] or 0.0)


def _row(row: Row, section: Section) -> SummaryRow:
    offload = row["offload"] != Offload.NONE
    return SummaryRow(line=0, name=row["label"], width=row["width"], height=row["height"], offload=offload, overall=section.overall)

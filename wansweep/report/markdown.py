"""report.md: the layout that users know (summary table, then each case's stages, statistics and analysis), with every case in it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from wansweep.case import Preset
from wansweep.metrics import METRIC
from wansweep.record import Outcome
from wansweep.report import breakdown, choosing, drift
from wansweep.report.cells import cell, code, known, size, table
from wansweep.sweep import Sweep
from wansweep.tables.results import Results
from wansweep.units import NOT_MEASURED

Row = dict[str, Any]
# Of some 5 to 10 kB and 20 ms each: with all of them the report of 5,000 cases would be tens of MB, and minutes to make.
BREAKDOWNS = 500


def render(results: Results, breakdowns: Mapping[str, str] | None = None) -> str:
    """The whole report of a run; ``breakdowns``, case id to its section, when they were made before."""
    told = sections(results) if breakdowns is None else breakdowns
    parts = [
        "# Wan2.2 Benchmark Report",
        _head(results),
        _summary(results.summary),
        *_notes(results),
        choosing.section(results),
        drift.section(results),
        "# Detailed Breakdown",
        _missing(results, told),
        *told.values(),
        "# Environment",
        _environment(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def sections(results: Results, *, most: int = BREAKDOWNS) -> dict[str, str]:
    """Case id to its breakdown, in the sweep's order; where they are too many, of those that ended otherwise than ok first, then of the ok."""
    rows = list(results.summary.iter_rows(named=True))
    chosen = {row["case_id"] for row in sorted(rows, key=_worth)[:most]}
    return breakdown.sections(results, [row for row in rows if row["case_id"] in chosen])


def _worth(row: Row) -> int:
    """What a reader asks for first: accidents and refusals, then what ran, then what has not."""
    return 1 if row["outcome"] == Outcome.OK else 0 if row["outcome"] else 2


def left_out(case: str = "LABEL") -> str:
    """Where to find a breakdown that is not in the report."""
    return f"`wansweep report RUN_DIR --case {shlex.quote(case)}`"


def _missing(results: Results, told: Mapping[str, str]) -> str:
    """Says of how many cases there is no breakdown here; empty for none."""
    count = results.summary.height - len(told)
    again = results.sweep.command_for("LABEL")
    return (
        f"Without a breakdown here: {count} more case{'s' if count > 1 else ''}. {left_out()} prints one; `{again}` runs one again."
        if count
        else ""
    )


def _head(results: Results) -> str:
    counts = results.summary.group_by("outcome", maintain_order=True).len()
    told = ", ".join(f"{row['len']} {row['outcome'] or 'not run yet'}" for row in counts.iter_rows(named=True))
    sweep = results.sweep
    return "\n".join(
        [
            f"- **Sweep**: {sweep.name}, {results.summary.height} cases: {told}",
            *([] if results.environment.imported else [_procedure(sweep)]),
            f"- **Command**: {code(sweep.command)}",
            *_presets(results),
        ]
    )


def _procedure(sweep: Sweep) -> str:
    return f"- **Procedure**: {sweep.procedure.repeats} trial(s) a case, each in {_isolation(sweep)}; figures are medians over n trials"


def _presets(results: Results) -> Iterable[str]:
    """Whose settings the cases have, unless all have settings of their own."""
    counts = results.summary.group_by("preset", maintain_order=True).len()
    if any(case.preset for case in results.sweep.cases):
        yield f"- **Settings**: {', '.join(f'{name} in {count}' for name, count in counts.iter_rows())}"
    if any(case.preset is Preset.MLPERF_LIKE for case in results.sweep.cases):
        yield (
            "- **mlperf-like**: not an MLPerf result. MLPerf's settings on one prompt, with noise from the seed in place of its one latent; "
            "neither its prompts, its load generator nor its accuracy check"
        )


def _isolation(sweep: Sweep) -> str:
    return {"process": "a fresh process", "warm": "a process kept from the trial before"}[sweep.procedure.isolation]


def _summary(summary: pl.DataFrame) -> str:
    # Settings of two presets never stand in one table without their names.
    mixed = summary["preset"].n_unique() > 1
    headings = (
        "Case",
        *(("Preset",) if mixed else ()),
        "Res",
        "Offload",
        "Time(s)",
        "s/step",
        "Mem(GiB)",
        "SM(%)",
        "Load",
        "Outcome",
        "n",
        "+-(%)",
        "Stable",
        "GPUs",
        "Predicted(s)",
    )
    return table(headings, [_summary_row(row, mixed=mixed) for row in summary.iter_rows(named=True)], numeric_from=3 + mixed)


def _summary_row(row: Row, *, mixed: bool) -> list[str]:
    return [
        row["label"],
        *([known(row["preset"])] if mixed else []),
        size(row),
        known(row["offload"]),
        METRIC["total_s"].show(row["total_s"]),
        METRIC["step_s"].show(row["step_s"]),
        METRIC["peak_allocated_bytes"].show(row["peak_allocated_bytes"]),
        METRIC["sm_active_pct"].show(row["sm_active_pct"]),
        METRIC["compute_load"].show(row["compute_load"]),
        row["outcome"] or "not run yet",
        str(row["n"]),
        METRIC["half_width_pct"].show(row["half_width_pct"]),
        row["stable"] or NOT_MEASURED,
        known(row["gpus"]),
        METRIC["predicted_total_s"].show(row["predicted_total_s"]),
    ]


def _notes(results: Results) -> Iterable[str]:
    yield (
        "Res is what really ran. Load is SM%·s over leaf stages. n is the number of trials in the figures: the ok ones, and of warm and cold "
        "ones the warm. +-(%) is half the 95 % interval of Time over n, Stable what follows from it. "
        f"{NOT_MEASURED}: not measured; a 0 was measured."
    )
    careful = list(choosing.cautions(results))
    if careful:
        yield "\n".join(f"- {cell(line)}" for line in careful)
    failed = results.summary.filter(pl.col("reason").is_not_null() & (pl.col("reason") != ""))
    if not failed.is_empty():
        yield "\n".join(f"- **{cell(row['label'])}** {row['outcome']}: {cell(row['reason'])}" for row in failed.iter_rows(named=True))
    if results.sweep.excluded:
        yield "Left out:\n\n" + "\n".join(f"- {cell(left.case.label)}: {cell(left.reason)}" for left in results.sweep.excluded)
    if results.unreadable:
        yield "Files in records/ that could not be read:\n\n" + "\n".join(f"- {cell(u.name)}: {cell(u.why)}" for u in results.unreadable)


def _environment(results: Results) -> str:
    environment = results.environment
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in environment.packages.items())
    gpus = ", ".join(gpu.name or "unnamed" for gpu in environment.gpus) or "none"
    git = f"{environment.git.commit[:12]}{' with changes' if environment.git.dirty else ''}" if environment.git else "no checkout"
    return "\n".join(
        [
            f"- **GPUs**: {cell(gpus)}",
            *([f"- **Imported**: from {cell(environment.imported)}, which does not say where it ran"] if environment.imported else []),
            f"- **CPU**: {cell(environment.cpu)}, {cell(environment.system)}",
            f"- **Versions**: Python {environment.python}, {cell(versions)}",
            f"- **Source**: {git}",
        ]
    )

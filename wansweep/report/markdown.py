"""report.md: the layout that users know (summary table, then each case's stages, statistics and analysis), with every case in it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from wansweep.metrics import METRIC, STAGE_METRIC
from wansweep.record import Outcome, Record, StageKind
from wansweep.sweep import Sweep
from wansweep.tables.analysis import analyse
from wansweep.tables.finding import NoData
from wansweep.tables.results import Results
from wansweep.units import NOT_MEASURED

Row = dict[str, Any]


def render(results: Results) -> str:
    """The whole report of a run."""
    parts = [
        "# Wan2.2 Benchmark Report",
        _head(results),
        _summary(results.summary),
        *_notes(results),
        "# Detailed Breakdown",
        *(_case(results, row) for row in results.summary.iter_rows(named=True)),
        "# Environment",
        _environment(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numeric_from: int) -> str:
    """A Markdown table; columns from ``numeric_from`` on are right-aligned."""
    align = [":---" if i < numeric_from else "---:" for i in range(len(headings))]
    return "\n".join(f"| {' | '.join(map(cell, row))} |" for row in [headings, align, *rows])


def cell(text: str) -> str:
    """Text that stays inside its cell, and plain: no pipe, line break or markup of the text's own takes effect."""
    escaped = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return escaped.replace("`", "\\`").replace("*", "\\*").replace("[", "\\[")


def _head(results: Results) -> str:
    counts = results.summary.group_by("outcome", maintain_order=True).len()
    told = ", ".join(f"{row['len']} {row['outcome'] or 'not run yet'}" for row in counts.iter_rows(named=True))
    sweep = results.sweep
    return "\n".join(
        [
            f"- **Sweep**: {sweep.name}, {results.summary.height} cases: {told}",
            f"- **Procedure**: {sweep.procedure.repeats} trial(s) a case, each in {_isolation(sweep)}; figures are medians over ok trials",
            f"- **Command**: `{sweep.command}`",
        ]
    )


def _isolation(sweep: Sweep) -> str:
    return {"process": "a fresh process", "warm": "a process kept from the trial before"}[sweep.procedure.isolation]


def _summary(summary: pl.DataFrame) -> str:
    headings = ("Case", "Res", "Offload", "Time(s)", "s/step", "Mem(GiB)", "SM(%)", "Load", "Outcome", "n", "GPUs", "Predicted(s)")
    return table(headings, [_summary_row(row) for row in summary.iter_rows(named=True)], numeric_from=3)


def _summary_row(row: Row) -> list[str]:
    return [
        row["label"],
        f"{row['width']}x{row['height']}x{row['frames']}",
        row["offload"],
        METRIC["total_s"].show(row["total_s"]),
        METRIC["step_s"].show(row["step_s"]),
        METRIC["peak_allocated_bytes"].show(row["peak_allocated_bytes"]),
        METRIC["sm_active_pct"].show(row["sm_active_pct"]),
        METRIC["compute_load"].show(row["compute_load"]),
        row["outcome"] or "not run yet",
        str(row["n"]),
        str(row["gpus"]),
        METRIC["predicted_total_s"].show(row["predicted_total_s"]),
    ]


def _notes(results: Results) -> Iterable[str]:
    yield (
        f"Res is what really ran. Load is SM%·s over leaf stages. n is the number of ok trials. {NOT_MEASURED}: not measured; a 0 was measured."
    )
    failed = results.summary.filter(pl.col("reason").is_not_null() & (pl.col("reason") != ""))
    if not failed.is_empty():
        yield "\n".join(f"- **{cell(row['label'])}** {row['outcome']}: {cell(row['reason'])}" for row in failed.iter_rows(named=True))
    if results.sweep.excluded:
        yield "Left out:\n\n" + "\n".join(f"- {cell(left.case.label)}: {cell(left.reason)}" for left in results.sweep.excluded)
    if results.unreadable:
        yield "Files in records/ that could not be read:\n\n" + "\n".join(f"- {cell(u.name)}: {cell(u.why)}" for u in results.unreadable)


def _case(results: Results, row: Row) -> str:
    """One case's breakdown; a case that did not finish shows its reason and what was measured until then."""
    stages = typical_stages(results.stages.filter(pl.col("case_id") == row["case_id"]))
    records = [record for record in results.records if record.case_id == row["case_id"]]
    parts = [f"## Case: {cell(row['label'])}", _totals(results, row, records)]
    if not stages.is_empty():
        parts += ["### Stage Breakdown", _stage_table(stages), _ranks_note(row, results)]
    if row["outcome"] == Outcome.OK:
        parts += ["### Inference Statistics", _statistics(row, stages), "### Performance Analysis", _analysis(row, stages)]
    return "\n\n".join(part for part in [*parts, "---"] if part)


def _totals(results: Results, row: Row, records: Sequence[Record]) -> str:
    lines = [
        f"- **Outcome**: {row['outcome'] or 'not run yet'}{': ' + cell(row['reason']) if row['reason'] else ''}",
        f"- **Total Duration**: {_figure(row, 'total_s')}",
        f"- **Peak GPU Memory**: {_figure(row, 'peak_allocated_bytes')}",
        f"- **Total Compute Load**: {_figure(row, 'compute_load')}",
        f"- **Unattributed Time**: {_figure(row, 'unattributed_pct')}",
    ]
    if records:
        lines += _settings(records[0])
    rerun = shlex.join(["python", "-m", "wansweep", *shlex.split(results.sweep.command)[3:], f"sweep.only=[{row['label']}]"])
    return "\n".join([*lines, f"- **Run it again**: `{rerun}`"])


def _figure(row: Row, name: str) -> str:
    """A figure with its unit; bare ``n/a`` when it was not measured."""
    metric, value = METRIC[name], row[name]
    return metric.show(value) if value is None or not metric.unit.symbol else f"{metric.show(value)} {metric.unit.symbol}"


def _settings(record: Record) -> list[str]:
    """What a reader needs to repeat the case: as declared, and as it really was."""
    case, ran = record.case, record.resolved
    guidance = f"{case.guidance:g}" + (f" / {case.guidance_2:g}" if case.guidance_2 is not None else "")
    lines = [
        f"- **Declared**: {case.model} {case.task}, {case.width}x{case.height}x{case.frames}, {case.steps} steps, shift {case.shift:g}, "
        f"guidance {guidance}, {case.dtype}, offload {case.offload}, {case.gpus} rank(s), parallel {case.parallel}, "
        f"weights {cell(case.weights)}, seed {case.seed}"
    ]
    if ran:
        formats = ", ".join(f"{name} {dtype}" for name, dtype in ran.dtypes.items())
        hooks = ", ".join(f"{name} {hook}" for name, hook in ran.hooks.items()) or "none"
        switch = f", low-noise expert from step {ran.switch_step}" if ran.switch_step is not None else ""
        lines.append(
            f"- **As run**: {ran.width}x{ran.height}x{ran.frames} on {ran.device} ({cell(ran.device_name)}), shift {ran.shift:g}{switch}, "
            f"attention {ran.attention}, parallel {ran.parallel}, dtypes: {formats}; offload hooks: {hooks}"
        )
    startup = f"{record.startup_s:.2f} s of process start and imports before it, " if record.startup_s is not None else ""
    latents = f", latents {ran.latents_sha256[:12]}" if ran else ""
    return [*lines, f"- **Trial**: {startup}{'warm' if record.warm else 'fresh'} process{latents}"]


def typical_stages(stages: pl.DataFrame) -> pl.DataFrame:
    """One row a stage in order of begin: the slowest rank's seconds and the fullest rank's memory, and of those the median over trials."""
    if stages.is_empty():
        return stages
    figures = [name for name in STAGE_METRIC if name in stages.columns]
    trials = stages.group_by("trial", "stage", "kind", "step", "expert").agg(pl.col("start_s").min(), pl.col(figures).max())
    return trials.group_by("stage", "kind", "step", "expert").agg(pl.col("start_s").median(), pl.col(figures).median()).sort("start_s", "stage")


def _stage_table(stages: pl.DataFrame) -> str:
    headings = ("Stage", "Time (s)", "GPU Mem (GiB)", "CPU (%)", "Sys Mem (GiB)", "SM Act (%)", "Comp Load")
    columns = ("duration_s", "peak_allocated_bytes", "cpu_pct", "host_bytes", "sm_active_pct", "compute_load")
    # Total_Execution began first and is read last, under what it contains.
    ordered = pl.concat([stages.filter(~_is_total()), stages.filter(_is_total())])
    rows = [[row["stage"], *(STAGE_METRIC[name].show(row[name]) for name in columns)] for row in ordered.iter_rows(named=True)]
    return table(headings, rows, numeric_from=1)


def _is_total() -> pl.Expr:
    return pl.col("kind") == str(StageKind.TOTAL_EXECUTION)


def _ranks_note(row: Row, results: Results) -> str:
    if row["gpus"] == 1 and results.sweep.procedure.repeats == 1:
        return ""
    return "Each figure is the highest over the ranks, and the median over the trials; every rank's and trial's own are in stages.parquet."


def _statistics(row: Row, stages: pl.DataFrame) -> str:
    steps = stages.filter(pl.col("kind") == str(StageKind.STEP_INFERENCE))
    cpu, load = steps.select(pl.col("cpu_pct").mean()).item(), steps["compute_load"]
    return "\n".join(
        [
            f"- **Avg Time per Step**: {_figure(row, 'step_s')} (standard deviation {_figure(row, 'step_s_stdev')} over {steps.height} steps)",
            f"- **Avg SM Activity**: {_figure(row, 'sm_active_pct')}",
            f"- **Avg CPU Utilization**: {STAGE_METRIC['cpu_pct'].show(cpu)}{' %' if cpu is not None else ''}",
            f"- **Total Inference Load**: {STAGE_METRIC['compute_load'].show(float(load.sum()) if load.count() else None)}",
        ]
    )


def _analysis(row: Row, stages: pl.DataFrame) -> str:
    findings, without_data = analyse(stages)
    parts = []
    if findings:
        parts.append("**Bottlenecks Detected:**\n" + "\n".join(f"- {finding.evidence} {finding.action}" for finding in findings))
    elif not without_data:
        parts.append("No significant bottlenecks detected: every rule had its data and none applied.")
    if without_data:
        parts.append(_without_data(without_data, found=bool(findings)))
    peak = f"reached {_figure(row, 'peak_allocated_bytes')}" if row["peak_allocated_bytes"] is not None else "was not measured"
    parts.append(f"**Resource Usage Overview:**\n- Peak GPU Memory {peak}.")
    return "\n\n".join(parts)


def _without_data(rules: Sequence[NoData], *, found: bool) -> str:
    told = "; ".join(f"{rule.rule} ({rule.lacked} was not measured)" for rule in rules)
    return f"{'Not checked' if found else 'Nothing found by the rules that had their data. Not checked'}: {told}."


def _environment(results: Results) -> str:
    environment = results.environment
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in environment.packages.items())
    gpus = ", ".join(gpu.name or "unnamed" for gpu in environment.gpus) or "none"
    git = f"{environment.git.commit[:12]}{' with changes' if environment.git.dirty else ''}" if environment.git else "no checkout"
    return "\n".join(
        [
            f"- **GPUs**: {cell(gpus)}",
            f"- **CPU**: {cell(environment.cpu)}, {cell(environment.system)}",
            f"- **Versions**: Python {environment.python}, {cell(versions)}",
            f"- **Source**: {git}",
        ]
    )

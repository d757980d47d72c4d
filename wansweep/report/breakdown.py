"""One case's section of report.md: how it ended, its settings, its stages, statistics and analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from wansweep import presets
from wansweep.case import Case
from wansweep.imported import Imported
from wansweep.levers import Solver
from wansweep.metrics import METRIC, STAGE_METRIC
from wansweep.plan import memory, roofline
from wansweep.plan.planner import PREDICTED
from wansweep.record import Outcome, Record, StageKind
from wansweep.report import conditions, ranks
from wansweep.report.cells import cell, code, figure, table
from wansweep.tables.analysis import analyse
from wansweep.tables.finding import NoData
from wansweep.tables.instability import warnings
from wansweep.tables.predicted import error
from wansweep.tables.repeats import counted
from wansweep.tables.results import Results, narrowed
from wansweep.tables.typical import of_cases

Row = dict[str, Any]
_COLUMNS = {
    "Time (s)": "duration_s",
    "GPU Mem (GiB)": "peak_allocated_bytes",
    "CPU (%)": "cpu_pct",
    "Sys Mem (GiB)": "host_bytes",
    "SM Act (%)": "sm_active_pct",
    "GPU Busy (%)": "gpu_busy_pct",
    "Comp Load": "compute_load",
}
_SOURCES = {"sm_active": "SM activity", "gpu_busy": "GPU busy", "gpu_busy or sm_active": "GPU busy or SM activity by rank"}


def sections(results: Results, rows: Sequence[Row]) -> dict[str, str]:
    """Case id to its breakdown, of some rows of the summary; a case that did not finish shows its reason and what was measured until then."""
    cases = narrowed(results, [row["case_id"] for row in rows])
    typical = of_cases(results.stages, [case.records for case in cases.values()])
    return {row["case_id"]: _section(cases[row["case_id"]], row, typical.get(row["case_id"], pl.DataFrame())) for row in rows}


def _section(results: Results, row: Row, stages: pl.DataFrame) -> str:
    """One case's, from its own results and its typical stages."""
    records = results.records
    # What is told of one trial is told of the first that counts.
    record = next(iter([*counted(records), *records]), None)
    parts = [f"## Case: {cell(row['label'])}", _totals(results, row, record, stages)]
    if not stages.is_empty():
        parts += ["### Stage Breakdown", _stage_table(stages), _ranks_note(row, results), ranks.render(row, records, results.stages)]
    if row["outcome"] == Outcome.OK and not stages.is_empty():
        disturbed = conditions.warned(warnings(records, results.environment.gpus))
        parts += ["### Inference Statistics", _statistics(row, stages), disturbed, "### Performance Analysis", _analysis(row, stages, record)]
    parts.append(conditions.log_tail(records))
    return "\n\n".join(part for part in [*parts, "---"] if part)


def _totals(results: Results, row: Row, record: Record | None, stages: pl.DataFrame) -> str:
    speaks = f" over {figure(row, 'load_coverage_pct')} of the leaf stages' time" if row["load_coverage_pct"] is not None else ""
    lines = [
        f"- **Outcome**: {row['outcome'] or 'not run yet'}{': ' + cell(row['reason']) if row['reason'] else ''}",
        f"- **Total Duration**: {figure(row, 'total_s')}",
        f"- **Peak GPU Memory**: {figure(row, 'peak_allocated_bytes')}",
        f"- **Total Compute Load**: {figure(row, 'compute_load')}{speaks}",
        f"- **Energy**: {_energy(row)}",
        f"- **Unattributed Time**: {figure(row, 'unattributed_pct')}",
    ]
    lines += _predicted(row, results)
    if row["n"]:
        lines += [conditions.repeats(row), conditions.memories(row)]
    if record and record.imported:
        lines += _imported(record.imported)
    elif record:
        lines += [*_settings(record), conditions.measured(record)]
    lines += conditions.circumstances(results.records)
    if not stages.is_empty():
        lines += conditions.not_measured(stages)
    if record and record.imported:
        return "\n".join(lines)
    return "\n".join([*lines, f"- **Run it again**: {code(results.sweep.command_for(row['label']))}"])


def _predicted(row: Row, results: Results) -> list[str]:
    """The plan's figures beside the measured ones, and a warning where it was wrong; none without a plan."""
    foretold = results.predictions.get(row["case_id"])
    if foretold is None:
        return []
    pairs = (("predicted_total_s", "total_s"), ("predicted_step_s", "step_s"), ("predicted_peak_bytes", "peak_allocated_bytes"))
    told = [
        f"{METRIC[name].label.removeprefix('Predicted ')} {figure(row, name)} (measured {figure(row, fact)}{_off(error(row[name], row[fact]))})"
        for name, fact in pairs
    ]
    why = (
        ""
        if any(foretold.get(name) is not None for name, _ in pairs)
        else "; nothing is predicted of miniatures and of GPUs that are not known"
    )
    wrong = _wrong(row, foretold)
    return [f"- **Predicted**: {', '.join(told)}{why}", *([f"- **Prediction was wrong**: {wrong}"] if wrong else [])]


def _wrong(row: Row, foretold: Mapping[str, Any]) -> str:
    """In what the plan was wrong of a case that was tried; empty where it was right or cannot be judged."""
    misfit = str(foretold.get("reason") or "").startswith(PREDICTED)
    peak, step = error(row["predicted_peak_bytes"], row["peak_allocated_bytes"]), error(row["predicted_step_s"], row["step_s"])
    match row["outcome"]:
        case Outcome.OOM if not misfit and foretold.get("predicted_peak_bytes") is not None:
            return "it was to fit, and ran out of memory"
        case Outcome.OK if misfit:
            return f"it was not to run ({cell(foretold['reason'])}), and did"
        case Outcome.OK:
            claims = (("peak", peak, memory.ERROR), ("step", step, roofline.ERROR))
            far = [
                f"the {what} is off by more than the {100 * claimed:.0f} % that the plan claims"
                for what, off, claimed in claims
                if _far(off, claimed)
            ]
            return " and ".join(far)
    return ""


def _far(off: float | None, claimed: float) -> bool:
    return off is not None and abs(off) > claimed


def _off(off: float | None) -> str:
    return "" if off is None else f", {100 * off:+.1f} %"


def _energy(row: Row) -> str:
    if row["energy_j"] is None:
        return figure(row, "energy_j")
    return f"{figure(row, 'energy_j')} over {figure(row, 'energy_coverage_pct')} of the leaf stages' time"


def _settings(record: Record) -> list[str]:
    """What a reader needs to repeat the case: as declared, and as it really was."""
    case, ran = record.case, record.resolved
    guidance = f"{case.guidance:g}" + (f" / {case.guidance_2:g}" if case.guidance_2 is not None else "")
    declared = (
        f"{case.model} {case.task}, {case.width}x{case.height}x{case.frames}, {case.steps} steps, shift {case.shift:g}, "
        f"guidance {guidance}, {case.dtype}, offload {case.offload}, {case.gpus} rank(s), parallel {case.parallel}, "
        f"weights {case.weights}, seed {case.seed}{_beyond(case)}"
    )
    lines = [f"- **Declared**: {cell(declared)}"]
    if ran:
        formats = ", ".join(f"{name} {dtype}" for name, dtype in ran.dtypes.items())
        hooks = ", ".join(f"{name} {hook}" for name, hook in ran.hooks.items()) or "none"
        switch = f", low-noise expert from step {ran.switch_step}" if ran.switch_step is not None else ""
        as_run = (
            f"{ran.width}x{ran.height}x{ran.frames} on {ran.device} ({ran.device_name}), shift {ran.shift:g}{switch}, "
            f"attention {ran.attention}, parallel {ran.parallel}, dtypes: {formats}; offload hooks: {hooks}"
        )
        lines.append(f"- **As run**: {cell(as_run)}")
    startup = f"{record.startup_s:.2f} s of process start and imports before it, " if record.startup_s is not None else ""
    latents = f", latents {ran.latents_sha256[:12]}" if ran else ""
    return [*lines, f"- **Trial**: {startup}{'warm' if record.warm else 'fresh'} process{latents}"]


def _imported(imported: Imported) -> list[str]:
    """Where an imported case comes from, what is not known of it, and where its report contradicts itself."""
    places = {"summary table": imported.summary, "breakdown": imported.section}
    where = " and ".join(f"{name} (line {stated.line})" for name, stated in places.items() if stated)
    lines = [f"- **Imported**: from {cell(imported.file)}, {where}; not stated there: {', '.join(imported.assumed)}"]
    return lines + [f"- **Contradiction**: {cell(note)}" for note in imported.notes]


def _beyond(case: Case) -> str:
    """What few cases declare, and the preset whose settings these are."""
    told = [f"solver {case.solver}"] * (case.solver is not Solver.UNIPC) + [f"{case.batch} videos at once"] * (case.batch > 1)
    return "".join(f", {part}" for part in [*told, *([presets.told(case)] if case.preset else [])])


def _stage_table(stages: pl.DataFrame) -> str:
    # Total_Execution began first and is read last, under what it contains.
    ordered = pl.concat([stages.filter(~_is_total()), stages.filter(_is_total())])
    rows = [[row["stage"], *(STAGE_METRIC[name].show(row[name]) for name in _COLUMNS.values())] for row in ordered.iter_rows(named=True)]
    sources = stages["load_source"].drop_nulls().value_counts(sort=True).iter_rows()
    made = " and ".join(f"{_SOURCES[source]} in {count} stage(s)" for source, count in sources)
    return table(["Stage", *_COLUMNS], rows, numeric_from=1) + (f"\n\nComp Load is made from {made}." if made else "")


def _is_total() -> pl.Expr:
    return pl.col("kind") == str(StageKind.TOTAL_EXECUTION)


def _ranks_note(row: Row, results: Results) -> str:
    if row["gpus"] in (1, None) and results.sweep.procedure.repeats == 1:
        return ""
    return "Each figure is the highest over the ranks, and the median over the trials; every rank's and trial's own are in stages.parquet."


def _statistics(row: Row, stages: pl.DataFrame) -> str:
    steps = stages.filter(pl.col("kind") == str(StageKind.STEP_INFERENCE))
    cpu, load = steps.select(pl.col("cpu_pct").mean()).item(), steps["compute_load"]
    lines = [
        f"- **Avg Time per Step**: {figure(row, 'step_s')} (standard deviation {figure(row, 'step_s_stdev')} over {steps.height} steps)",
        f"- **Avg SM Activity**: {figure(row, 'sm_active_pct')}",
        f"- **Avg GPU Busy**: {figure(row, 'gpu_busy_pct')}",
        f"- **Avg CPU Utilization**: {STAGE_METRIC['cpu_pct'].show(cpu)}{' %' if cpu is not None else ''}",
        f"- **Total Inference Load**: {STAGE_METRIC['compute_load'].show(float(load.sum()) if load.count() else None)}",
        f"- **Achieved**: {_achieved(row)}",
    ]
    if row["first_step_ratio"] is not None:
        ratio = f"{row['first_step_ratio']:.2f} times the median of the others ({figure(row, 'steady_step_s')})"
        lines.insert(1, f"- **First Step**: {ratio}; the average holds it")
    return "\n".join(lines)


def _achieved(row: Row) -> str:
    if row["tflops"] is None:
        return f"{figure(row, 'tflops')} ({cell(row['tflops_why'])})"
    why = f" ({cell(row['mfu_pct_why'])})" if row["mfu_pct_why"] else ""
    return f"{figure(row, 'tflops')}, MFU {figure(row, 'mfu_pct')}{why}"


def _analysis(row: Row, stages: pl.DataFrame, record: Record | None) -> str:
    findings, without_data = analyse(stages, record)
    parts = []
    if findings:
        parts.append("**Bottlenecks Detected:**\n" + "\n".join(f"- {cell(finding.evidence)} {finding.action}" for finding in findings))
    elif not without_data:
        parts.append("No significant bottlenecks detected: every rule had its data and none applied.")
    if without_data:
        parts.append(_without_data(without_data, found=bool(findings)))
    peak = f"reached {figure(row, 'peak_allocated_bytes')}" if row["peak_allocated_bytes"] is not None else "was not measured"
    parts.append(f"**Resource Usage Overview:**\n- Peak GPU Memory {peak}{_of_limit(row, record)}.")
    return "\n\n".join(parts)


def _of_limit(row: Row, record: Record | None) -> str:
    limits = [rank.device_total_bytes for rank in (record.ranks if record else ()) if rank.device_total_bytes]
    if not limits or row["peak_allocated_bytes"] is None or record is None:
        return ""
    return f", {100 * row['peak_allocated_bytes'] / min(limits):.1f} % of what {cell(record.ranks[0].device_name)} has"


def _without_data(rules: Sequence[NoData], *, found: bool) -> str:
    by_lack: dict[str, list[str]] = {}
    for rule in rules:
        by_lack.setdefault(rule.lacked, []).append(rule.rule)
    told = "; ".join(f"{', '.join(names)} ({lacked} unknown)" for lacked, names in by_lack.items())
    return f"{'Not checked' if found else 'Nothing found by the rules that had their data. Not checked'}: {told}."

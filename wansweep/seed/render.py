"""A SeedReport to text, byte for byte as the seed wrote it."""

from __future__ import annotations

from wansweep.seed.document import Section, SeedReport, SeedStage, SummaryRow

TITLE = "# Wan2.2 Benchmark Report"
DETAILS = "# Detailed Breakdown"
SUMMARY_HEAD = (
    "| Case                   | Res        | Offload |  Time(s) | s/step | Mem(GB) | SM(%) |   Load |",
    "|------------------------|------------|---------|----------|--------|---------|-------|--------|",
)
CASE = "## Case: "
STAGES = "### Stage Breakdown"
STAGE_HEAD = (
    "| Stage | Time (s) | GPU Mem (GB) | CPU (%) | Sys Mem (GB) | SM Act (%) | Comp Load |",
    "| :--- | :--- | :--- | :--- | :--- | :--- | :--- |",
)
STATISTICS = "### Inference Statistics"
ANALYSIS = "### Performance Analysis"
OVERVIEW = "**Resource Usage Overview:**"
END = "---"


def render(report: SeedReport) -> str:
    """The report's text."""
    head = [TITLE, "", *SUMMARY_HEAD, *map(summary_row, report.summary), "", DETAILS, "", ""]
    return "\n".join(head) + "".join(map(_section, report.sections))


def summary_row(row: SummaryRow) -> str:
    """A line of the summary table."""
    of = row.overall
    figures = f"{of.duration_s:>8.2f} | {of.step_s:>6.2f} | {of.peak_gib:>7.2f} | {of.sm_pct:>5.1f} | {of.load:>6.0f}"
    return f"| {row.name:<22} | {f'{row.width}*{row.height}':<10} | {row.offload!s:<7} | {figures} |"


def stage_row(stage: SeedStage) -> str:
    """A line of a stage table."""
    memory = f"{stage.gpu_gib:.2f} | {stage.cpu_pct:.1f} | {stage.host_gib:.2f}"
    return f"| {stage.name} | {stage.duration_s:.2f} | {memory} | {stage.sm_pct:.1f} | {stage.load:.0f} |"


def totals(section: Section) -> tuple[str, ...]:
    """The bullets under a case's heading."""
    of = section.overall
    return (
        f"- **Total Duration**: {of.duration_s:.2f} s",
        f"- **Peak GPU Memory**: {of.peak_gib:.2f} GB",
        f"- **Total Compute Load**: {of.load:.0f}",
    )


def statistics(section: Section) -> tuple[str, ...]:
    """The bullets on the steps."""
    return (
        f"- **Avg Time per Step**: {section.overall.step_s:.2f} s",
        f"- **Avg SM Activity**: {section.overall.sm_pct:.1f} %",
        f"- **Avg CPU Utilization**: {section.cpu_pct:.1f} %",
        f"- **Total Inference Load**: {section.inference_load:.0f}",
    )


def _section(section: Section) -> str:
    lines = [f"{CASE}{section.name}", "", *totals(section), ""]
    lines += [STAGES, "", *STAGE_HEAD, *map(stage_row, section.stages), ""]
    lines += [STATISTICS, "", *statistics(section), ""]
    lines += [ANALYSIS, "", *section.analysis, "", OVERVIEW, *section.overview, END]
    return "\n".join(lines) + "\n" * section.breaks_after

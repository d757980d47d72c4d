"""The plan as a terminal table. Apart from the reports, so that `plan` imports no Polars."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from wansweep.plan.planner import PlannedCase, Verdict
from wansweep.report.text import as_text
from wansweep.sweep import Sweep
from wansweep.units import PFLOP, show


def render(sweep: Sweep, rows: Sequence[PlannedCase]) -> str:
    """What would run, what each case reserves, and what was left out and why."""
    table = Table("Case", "Model", "Task", "Res", "Steps", "Offload", "Reserves", "PFLOP", "Verdict", title=f"{sweep.name}: {len(rows)} cases")
    for row in rows:
        case = row.case
        table.add_row(
            Text(case.label),
            case.model,
            case.task,
            f"{case.width}x{case.height}x{case.frames}",
            str(case.steps),
            case.offload,
            f"{case.gpus} GPU{'s on one node' if case.gpus > 1 else ''}",
            show(row.predicted_flop, PFLOP, digits=1),
            Text(f"{row.verdict}{': ' + row.reason if row.reason else ''}"),
        )
    trials = sum(row.verdict is Verdict.RUN for row in rows) * sweep.procedure.repeats
    lines = [f"{trials} trials ({sweep.procedure.repeats} a case), each at most {sweep.procedure.timeout_s:g} s."]
    lines += ["On a cluster without GPUs, ranks reserve CPUs instead."]
    lines += [f"left out: {left.case.label}: {left.reason}" for left in sweep.excluded]
    return as_text(table, *lines)

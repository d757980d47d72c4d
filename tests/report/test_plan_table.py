from __future__ import annotations

from dataclasses import replace

from wansweep.config import read_request
from wansweep.plan.planner import Verdict, plan
from wansweep.report.plan_table import render


def test_a_long_label_and_a_long_reason_are_folded_and_never_cut() -> None:
    sweep = read_request(["+sweep=quick"]).sweep
    first, *others = plan(sweep.cases, sweep.hardware)
    label, reason = "label" * 20, "https://example.org/" + "reason" * 20
    long = replace(first, case=replace(first.case, label=label), verdict=Verdict.SKIP, reason=reason)
    told = render(sweep, [long, *others])
    assert "…" not in told
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in told.splitlines() if line.startswith("│")]
    assert "".join(cell[0] for cell in cells).startswith(label)
    assert reason in "".join(cell[-1] for cell in cells)

"""Findings as text for a terminal or as JSON for a script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import TypeAdapter
from rich.table import Table
from rich.text import Text

from wansweep.doctor.finding import Finding, State
from wansweep.report.text import as_text

FINDINGS = TypeAdapter(tuple[Finding, ...])
_STYLES = {State.OK: "green", State.WARN: "yellow", State.PROBLEM: "bold red", State.NOT_HERE: "dim"}
AREAS = ("gpus", "driver", "metrics", "levers", "storage", "memory", "ray", "versions")


def as_json(findings: Sequence[Finding]) -> str:
    """One array on one line."""
    return FINDINGS.dump_json(tuple(ordered(findings))).decode()


def as_terminal(findings: Sequence[Finding], *, width: int | None = None, colour: bool = False) -> str:
    """A table an area, each finding with its fix under it, and a last line that sums up. Levers that run stand together."""
    parts: list[Table | Text] = []
    for area in AREAS:
        rows = [finding for finding in findings if finding.area == area]
        if not rows:
            continue
        table = Table.grid(padding=(0, 2), expand=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for finding in _together(rows):
            table.add_row(Text(str(finding.state), style=_STYLES[finding.state]), Text(finding.what), Text(finding.detail))
            if finding.fix:
                table.add_row("", "", Text(f"→ {finding.fix}", style="cyan"))
        parts += [Text(f"\n{area}", style="bold"), table]
    return as_text(*parts, Text(f"\n{verdict(findings)}"), width=width, colour=colour)


def verdict(findings: Sequence[Finding]) -> str:
    """How many of each state there are, and whether sweeps run."""
    counts = Counter(finding.state for finding in findings)
    told = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    return f"{told}: {'sweeps will fail here until the problems are mended' if counts[State.PROBLEM] else 'sweeps run here'}"


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """By area, as found within each; an area that is not known comes last."""
    return sorted(findings, key=lambda finding: AREAS.index(finding.area) if finding.area in AREAS else len(AREAS))


def _together(rows: Sequence[Finding]) -> list[Finding]:
    """The rows, those that are ok and say no more than that they run as one, and those with the same state and fix as one."""
    merged: dict[tuple[State, str, str], list[Finding]] = {}
    for row in rows:
        same = row.area == "levers"
        key = (row.state, row.fix, "") if same else (row.state, row.fix, row.what)
        merged.setdefault(key, []).append(row)
    return [_one(group) for group in merged.values()]


def _one(group: Sequence[Finding]) -> Finding:
    first = group[0]
    if len(group) == 1:
        return first
    names: dict[str, list[str]] = {}
    for row in group:
        field, _, value = row.what.partition("=")
        names.setdefault(field, []).append(value)
    listed = "; ".join(f"{field}={', '.join(values)}" for field, values in names.items())
    alike = len({row.detail for row in group}) == 1
    why = "" if first.state is State.OK else f" ({'' if alike else f'{first.what}: '}{first.detail})"
    return Finding(area=first.area, what=f"{len(group)} levers", state=first.state, detail=f"{listed}{why}", fix=first.fix)

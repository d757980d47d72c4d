"""A Comparison as Markdown for a pull request, as JSON, or as a terminal table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from wansweep.metrics import Metric
from wansweep.report.cells import cell, code, table
from wansweep.report.text import as_text
from wansweep.tables.changes import CHANGED, CaseChange, Comparison, FigureChange, Verdict
from wansweep.tables.difference import LEVEL, Difference
from wansweep.tables.pairing import MatchedBy

_COLUMNS = ("Case", "Verdict", "Figure", "Base", "Head", "Change", "n")
_COLOURS = {
    Verdict.FAILS: "red",
    Verdict.SLOWER: "red",
    Verdict.MORE_GB: "red",
    Verdict.RUNS: "green",
    Verdict.FASTER: "green",
    Verdict.FEWER_GB: "green",
}


def summary(comparison: Comparison) -> str:
    """One line: regressions or none, counts of verdicts, and the mean of the total times."""
    counts = Counter(verdict for case in comparison.cases for verdict in case.verdicts)
    head = "Regression" if comparison.has_regression else "Nothing comparable" if comparison.is_empty else "No regression"
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict]) or "no cases"
    mean = f"; total time x{comparison.mean_ratio:.3f} (geometric mean)" if comparison.mean_ratio else ""
    return f"{head}: {told}{mean}"


def notes(comparison: Comparison) -> list[str]:
    """What a reader has to know of the two runs: how cases were matched, what differs around them, how figures were judged."""
    around = comparison.surroundings
    named = sum(case.matched_by is MatchedBy.NAME for case in comparison.cases)
    lines = []
    if named:
        lines.append(f"{named} case(s) matched by name, as an imported run's ids are its own; what its report does not state is not compared")
    if around.differing:
        told = ", ".join(f"{name} {change}" for name, change in around.differing.items())
        lines.append(f"Environment differs: {told}; if that is what you compare, add --across {','.join(around.differing)}")
    lines += [f"Compared across {name}: {change}" for name, change in around.accepted.items()]
    if around.unknown:
        lines.append(f"Not known on one side, and taken to be equal: {', '.join(around.unknown)}")
    if around.noted:
        lines.append(f"Also different: {', '.join(f'{name} {change}' for name, change in around.noted.items())}")
    if comparison.comparisons:
        lines.append(
            f"A change is told when it passes both thresholds of its figure and Welch's test at {100 * LEVEL:g} % for the whole report "
            f"({comparison.comparisons} comparisons, Holm); +- is half the 95 % interval of one; one trial against one is never significant"
        )
    return lines


def markdown(comparison: Comparison, *, base: str, head: str) -> str:
    """The summary line, the cases that changed, and the rest folded."""
    changed = [case for case in comparison.cases if any(verdict in CHANGED for verdict in case.verdicts)]
    parts = [f"**{summary(comparison)}**", f"{code(base)} -> {code(head)}"]
    if changed:
        parts.append(table(_COLUMNS, _rows(changed, changed_only=True), numeric_from=3))
    parts.append("\n".join(f"- {cell(line)}" for line in notes(comparison)))
    everything = table(_COLUMNS, _rows(comparison.cases, changed_only=False), numeric_from=3)
    parts.append(_folded(f"Every case ({len(comparison.cases)})", everything))
    parts += [_folded(f"Stages of {cell(case.label)}", _stage_table(case)) for case in comparison.cases if case.stages]
    return "\n\n".join(part for part in parts if part) + "\n"


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _rows(cases: Sequence[CaseChange], *, changed_only: bool) -> list[list[str]]:
    rows = []
    for case in cases:
        verdict = ", ".join(case.verdicts)
        figures = [figure for figure in case.figures if not changed_only or figure.verdict in CHANGED]
        rows += [[case.label, figure.verdict if not changed_only else verdict, *_cells(figure)] for figure in figures]
        if not figures:
            rows.append([case.label, f"{verdict}: {case.why}" if case.why else verdict, "", "", "", "", ""])
    return rows


def _cells(figure: FigureChange) -> list[str]:
    of, metric = figure.difference, figure.metric
    return [metric.heading, metric.show(of.base), metric.show(of.head), _change(of, metric), f"{of.base_n}, {of.head_n}"]


def _change(of: Difference, metric: Metric) -> str:
    """``+5.1 % +-1.2 (+0.35 s)``."""
    percent = "" if of.percent is None else f"{of.percent:+.1f} %"
    width = "" if of.half_width is None or not of.base else f" +-{100 * of.half_width / abs(of.base):.1f}"
    sign = "+" if of.change >= 0 else ""
    return f"{percent}{width} ({sign}{metric.show(of.change)} {metric.unit.symbol})".strip()


def _stage_table(case: CaseChange) -> str:
    rows = [[one.stage, one.change.verdict, *_cells(one.change)] for one in case.stages]
    return table(("Stage", *_COLUMNS[1:]), rows, numeric_from=3)


def terminal(comparison: Comparison, *, width: int | None = None, colour: bool = False) -> str:
    """A row a figure that both sides have; under the table what to know of it."""
    rich_table = Table(*_COLUMNS, title=summary(comparison), box=box.SIMPLE)
    for case in comparison.cases:
        for row in _rows([case], changed_only=False):
            verdict = next((v for v in Verdict if row[1].startswith(v)), None)
            rich_table.add_row(Text(row[0]), Text(row[1], style=_COLOURS.get(verdict, "") if verdict else ""), *map(Text, row[2:]))
    return as_text(rich_table, *map(Text, notes(comparison)), width=width, colour=colour)


def as_json(comparison: Comparison, *, base: str, head: str, exit_code: int) -> str:
    """One object: figures in the units that end their names."""
    around = comparison.surroundings
    document = {
        "base": base,
        "head": head,
        "exit_code": exit_code,
        "summary": summary(comparison),
        "comparisons": comparison.comparisons,
        "level": LEVEL,
        "total_s_mean_ratio": comparison.mean_ratio,
        "environment": {"differing": around.differing, "accepted": around.accepted, "noted": around.noted, "unknown": list(around.unknown)},
        "cases": [_case_json(case) for case in comparison.cases],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _case_json(case: CaseChange) -> dict[str, object]:
    return {
        "case_id": case.case_id,
        "label": case.label,
        "matched_by": case.matched_by,
        "verdicts": list(case.verdicts),
        "why": case.why,
        "figures": [_figure_json(figure) for figure in case.figures],
        "stages": [{"stage": one.stage, **_figure_json(one.change)} for one in case.stages],
    }


def _figure_json(figure: FigureChange) -> dict[str, object]:
    of = figure.difference
    return {
        "name": figure.metric.name,
        "verdict": figure.verdict,
        "base": of.base,
        "head": of.head,
        "base_n": of.base_n,
        "head_n": of.head_n,
        "change": of.change,
        "change_pct": of.percent,
        "half_width": of.half_width,
        "p": of.p,
        "adjusted_p": figure.adjusted_p,
        "threshold_pct": figure.threshold.percent,
        "threshold": figure.threshold.absolute,
    }

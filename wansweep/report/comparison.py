"""A Comparison as Markdown for a pull request, as JSON, or as a terminal table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence

from rich.text import Text

from wansweep.metrics import Metric
from wansweep.report.cells import cell, code, table
from wansweep.report.text import Shown, as_text, fitted
from wansweep.tables.changes import CHANGED, CaseChange, Comparison, FigureChange, Verdict
from wansweep.tables.difference import LEVEL, Difference
from wansweep.tables.pairing import MatchedBy

# Behind the case or the stage.
_COLUMNS = ("Verdict", "Figure", "Base", "Head", "Change", "n")
# GitHub takes 65,536 in a comment; some are left for what a workflow puts around it.
MOST_CHARACTERS = 60_000
MOST_ROWS = 200
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
    decided = any(counts[verdict] for verdict in (*CHANGED, Verdict.SAME))
    quiet = "Nothing comparable" if comparison.is_empty else "No regression" if decided else "Undecided"
    head = "Regression" if comparison.has_regression else quiet
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
    if any(Verdict.INCONCLUSIVE in case.verdicts for case in comparison.cases):
        lines.append(
            "inconclusive: the interval of the change reaches beyond a threshold, or there is none (one trial against one); "
            "more trials decide: procedure.repeats=5"
        )
    return lines


def markdown(comparison: Comparison, *, base: str, head: str, most: int = MOST_CHARACTERS) -> str:
    """The summary line, what changed, what may have, and the rest folded; the end is left out where a comment has no room for it."""
    cases = comparison.cases
    changed = [case for case in cases if any(verdict in CHANGED for verdict in case.verdicts)]
    suspected = _table(_rows([case for case in cases if case.figures], _is_suspected))
    parts = [
        f"**{summary(comparison)}**",
        f"{code(base)} -> {code(head)}",
        _table(_rows(changed, _is_change)),
        suspected and f"Beyond the thresholds, and not told from chance:\n\n{suspected}",
        "\n".join(f"- {cell(line)}" for line in notes(comparison)),
        *(_folded(f"Stages of {cell(case.label)}", _table(_stage_rows(case), heading="Stage")) for case in changed if case.stages),
        _folded(f"Every case ({len(cases)})", _table(_rows(cases, lambda _: True))),
    ]
    kept: list[str] = []
    for part in filter(None, parts):
        if sum(map(len, kept)) + len(part) > most:
            kept.append("There is more than a comment has room for: `wansweep compare --format json` has every case, figure and stage.")
            break
        kept.append(part)
    return "\n\n".join(kept) + "\n"


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _table(rows: Sequence[Sequence[str]], *, heading: str = "Case") -> str:
    """Empty without rows."""
    more = f"\n\n{len(rows) - MOST_ROWS} more rows are in `wansweep compare --format json`." if len(rows) > MOST_ROWS else ""
    return table((heading, *_COLUMNS), rows[:MOST_ROWS], numeric_from=3) + more if rows else ""


def _is_change(figure: FigureChange) -> bool:
    return figure.verdict in CHANGED


def _is_suspected(figure: FigureChange) -> bool:
    """Whether it would be a change if it were not for chance: a reader wants to see it, and a gate not to act on it."""
    return figure.verdict is Verdict.INCONCLUSIVE and abs(figure.difference.change) > figure.threshold.margin(figure.difference.base)


def _rows(cases: Sequence[CaseChange], wanted: Callable[[FigureChange], bool]) -> list[list[str]]:
    """A row a figure that is wanted; a case without figures has one that says why."""
    rows = []
    for case in cases:
        rows += [[case.label, figure.verdict, *_cells(figure)] for figure in case.figures if wanted(figure)]
        if not case.figures:
            verdict = ", ".join(case.verdicts)
            rows.append([case.label, f"{verdict}: {case.why}" if case.why else verdict, *[""] * (len(_COLUMNS) - 1)])
    return rows


def _stage_rows(case: CaseChange) -> list[list[str]]:
    """The stages that changed or may have: a case of forty steps has eighty that did not."""
    return [[one.stage, one.change.verdict, *_cells(one.change)] for one in case.stages if _is_change(one.change) or _is_suspected(one.change)]


def _cells(figure: FigureChange) -> list[str]:
    of, metric = figure.difference, figure.metric
    return [metric.heading, metric.show(of.base), metric.show(of.head), _change(of, metric), f"{of.base_n}, {of.head_n}"]


def _change(of: Difference, metric: Metric) -> str:
    """``+5.1 % +-1.2 (+0.35 s)``."""
    percent = "" if of.percent is None else f"{of.percent:+z.1f} %"
    width = "" if of.half_width is None or not of.base else f" +-{100 * of.half_width / abs(of.base):.1f}"
    # What rounds to nothing has no sign of its own.
    shown = metric.show(of.change).replace("-", "") if not float(metric.show(of.change)) else metric.show(of.change)
    return f"{percent}{width} ({'' if shown.startswith('-') else '+'}{shown} {metric.unit.symbol})".strip()


def terminal(comparison: Comparison, *, width: int | None = None, colour: bool = False) -> str:
    """A row a figure that both sides have, under it the stages that changed; below the table why others have none, and what to know of it."""
    rows, whys = [], []
    for case in comparison.cases:
        told = [[case.label, figure.verdict, *_cells(figure)] for figure in case.figures]
        told += [[f"  {stage}", *cells] for stage, *cells in _stage_rows(case)]
        rows += told or [[case.label, case.verdicts[0], *[""] * (len(_COLUMNS) - 1)]]
        whys += [f"{case.label}: {case.verdicts[0]}: {case.why}"] if case.why else []
    spare = {"Base": 2, "Head": 1, "n": 3}
    columns = [
        Shown(heading=name, cells=[_coloured(name, row[place]) for row in rows], number=place > 2, spare=spare.get(name, 0))
        for place, name in enumerate(("Case", *_COLUMNS))
    ]
    table = fitted(columns, width=width, title=summary(comparison))
    return as_text(table, *map(Text, whys), *map(Text, notes(comparison)), width=width, colour=colour)


def _coloured(heading: str, text: str) -> Text:
    return Text(text, style=_COLOURS.get(Verdict(text), "") if heading == "Verdict" else "")


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

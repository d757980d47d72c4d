"""Recommendations as text: the answer, the line that uses it, every constraint, near misses and trades."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from wansweep.metrics import METRIC
from wansweep.report import drift
from wansweep.report.cells import known
from wansweep.report.choosing import MEMORY
from wansweep.report.text import Shown, as_text, fitted
from wansweep.tables.constraints import Limits
from wansweep.tables.recommendation import NEAR_PCT, OBJECTIVE_METRICS, Candidate, Objective, Recommendation
from wansweep.tables.results import Results
from wansweep.units import GIB

_WORDS = {
    Objective.TIME: "Fastest",
    Objective.VRAM: "Least VRAM",
    Objective.ENERGY: "Least energy",
    Objective.GPU_SECONDS: "Cheapest GPU-seconds",
}


def render(found: Sequence[Recommendation], results: Results, limits: Limits, *, width: int | None = None, colour: bool = False) -> str:
    """Every workload's answer."""
    if not found:
        return f"{results.sweep.name}: no case ended ok, so there is nothing to recommend\n"
    return "\n".join(_one(answer, results, limits, width=width, colour=colour) for answer in found)


def _one(answer: Recommendation, results: Results, limits: Limits, *, width: int | None, colour: bool) -> str:
    if answer.best:
        best = answer.best
        lines = [f"{_asked(answer, limits)}: {best.case.label} ({_figures(best)}; n={best.n}, {best.stable})"]
        lines += [f"  use it: {_command(results, best)}"]
        lines += [f"  lossy: {', '.join(best.lossy)}; drift: {_drift(best)}"] * bool(best.lossy)
        lines += [f"  {line}" for line in answer.trades]
    else:
        lines = [f"{_asked(answer, limits)}: no measured case meets every constraint"]
    lines += [f"  {_nearness(one)}: {one.case.label} ({_figures(one)}): {_missed(one)}" for one in answer.near_misses]
    return as_text(Text(answer.title, style="bold"), *map(Text, lines), _table(answer, width), width=width, colour=colour)


def _nearness(one: Candidate) -> str:
    return "near miss" if (one.excess_pct or 0.0) <= NEAR_PCT else f"the nearest, {one.excess_pct:.0f} % beyond"


def _asked(answer: Recommendation, limits: Limits) -> str:
    memory = MEMORY.get(answer.memory or "", "memory not measured")
    asked = [f"under {limits.vram_bytes / 1e9:.4g} GB = {limits.vram_bytes / GIB:.2f} GiB ({memory})"] if limits.vram_bytes else []
    asked += [f"on at most {limits.gpus} GPU{'s' if limits.gpus > 1 else ''}"] if limits.gpus else []
    asked += [f"under {limits.total_s:g} s"] if limits.total_s else []
    asked += [f"SSIM at least {limits.ssim:g}"] if limits.ssim is not None else []
    return " ".join([_WORDS[answer.objective], ", ".join(asked)]).strip()


def _drift(one: Candidate) -> str:
    return drift.told(one.row) or ("not measured" if one.ssim is None else "the very video of its lossless twin")


def _figures(one: Candidate) -> str:
    shown = [(OBJECTIVE_METRICS[of], value) for of, value in one.figures.items() if value is not None]
    return ", ".join(
        f"{metric.show(value)} {metric.unit.symbol}{' of GPU time' if metric.name == 'gpu_seconds' else ''}" for metric, value in shown
    )


def _missed(one: Candidate) -> str:
    return ", ".join(f"{check.name}: {check.told}" for check in one.checks if not check.met)


def _command(results: Results, one: Candidate) -> str:
    if results.environment.imported:
        return f"not known: {results.environment.imported} does not say how its cases were run"
    return results.sweep.command_for(one.case.label)


def _table(answer: Recommendation, width: int | None) -> Table:
    rows = answer.candidates
    columns = [
        Shown(heading="Case", cells=[Text(one.case.label) for one in rows]),
        Shown(heading="GPUs", cells=[known(one.gpus) for one in rows], number=True, spare=1),
    ]
    for of, metric in OBJECTIVE_METRICS.items():
        spare = 0 if of in (Objective.TIME, Objective.VRAM, answer.objective) else 4
        columns.append(Shown(heading=metric.heading, cells=[metric.show(one.figures[of]) for one in rows], number=True, spare=spare))
    columns += [
        Shown(heading="SSIM", cells=[METRIC["ssim"].show(one.ssim) for one in rows], number=True, spare=2),
        Shown(heading="n", cells=[known(one.n) for one in rows], number=True, spare=3),
        Shown(heading="Frontier", cells=["yes" if one.on_frontier else "" for one in rows], spare=1),
    ]
    if any(one.checks for one in rows):
        columns.append(Shown(heading="Constraints", cells=[_checks(one, "; " if width is None else "\n") for one in rows]))
    return fitted(columns, width=width)


def _checks(one: Candidate, between: str) -> Text:
    """Every constraint, and whether it is met."""
    told = [f"{'met' if check.met else 'NOT met'} {check.name}: {check.told}" for check in one.checks]
    return Text(between.join(told), style="" if one.met else "yellow")

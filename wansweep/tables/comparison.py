"""Two runs held against each other: what became faster, slower, smaller or larger, what ended otherwise, and what cannot be told.

A figure's verdict takes three things: a base that may be compared at all, both thresholds of its row in `thresholds` passed, and a difference
that Welch's test, with Holm's correction over all cases and figures of the report, does not put down to chance. Where that is missing it is
``same`` if the 95 % interval lies within the thresholds, and ``inconclusive`` if it does not.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import polars as pl

from wansweep.record import Outcome
from wansweep.tables import surroundings
from wansweep.tables.changes import CHANGED, CaseChange, Comparison, FigureChange, StageChange, Verdict
from wansweep.tables.difference import LEVEL, Difference, difference, holm
from wansweep.tables.frames import counted_key, counted_trials
from wansweep.tables.pairing import Pair, Side, obstacle, pairs
from wansweep.tables.results import Results
from wansweep.tables.surroundings import Surroundings
from wansweep.tables.thresholds import CASE_THRESHOLDS, STAGE_THRESHOLDS, Threshold
from wansweep.units import BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What both sides measured of one figure."""

    threshold: Threshold
    base: tuple[float, ...]
    head: tuple[float, ...]


def compare(base: Results, head: Results, *, across: Iterable[str] = ()) -> Comparison:
    """Head against base.

    Args:
        base: What was.
        head: What is.
        across: Names of `surroundings.MUST_BE_EQUAL` that may differ, since they are what is compared.
    """
    around = surroundings.compare(base.environment, head.environment, across=tuple(across))
    found = pairs(base, head)
    blocked = {id(pair): _blocked(pair, around) for pair in found}
    tables = tuple(_Tables(results) for results in (base, head))
    compared = [pair for pair in found if blocked[id(pair)] is None]
    samples = {id(pair): _case_samples(pair, *tables) for pair in compared}
    judged = iter(judge([sample for pair in compared for sample in samples[id(pair)]]))
    cases = []
    for pair in found:
        stopped = blocked[id(pair)]
        if stopped:
            cases.append(stopped)
        else:
            figures = tuple(next(judged) for _ in samples[id(pair)])
            cases.append(_case(pair, figures, _stages(pair, *tables)))
    ratios = [d.head / d.base for case in cases for f in case.figures if f.metric.name == "total_s" and (d := f.difference).base > 0 < d.head]
    return Comparison(
        cases=tuple(cases),
        surroundings=around,
        comparisons=sum(len(of) for of in samples.values()),
        mean_ratio=math.exp(statistics.fmean(map(math.log, ratios))) if ratios else None,
    )


def judge(samples: Sequence[Sample]) -> list[FigureChange]:
    """The verdicts on several figures, corrected together."""
    differences = [difference(sample.base, sample.head) for sample in samples]
    adjusted = holm([one.p for one in differences])
    return [
        FigureChange(threshold=sample.threshold, difference=one, adjusted_p=p, verdict=_verdict(sample.threshold, one, p))
        for sample, one, p in zip(samples, differences, adjusted, strict=True)
    ]


def _verdict(threshold: Threshold, found: Difference, p: float | None) -> Verdict:
    margin = threshold.margin(found.base)
    if p is None or found.half_width is None:
        return Verdict.INCONCLUSIVE
    if abs(found.change) > margin and p <= LEVEL:
        if threshold.metric.unit is BYTES:
            return Verdict.MORE_GB if found.change > 0 else Verdict.FEWER_GB
        return Verdict.SLOWER if found.change > 0 else Verdict.FASTER
    return Verdict.SAME if abs(found.change) + found.half_width <= margin else Verdict.INCONCLUSIVE


def _blocked(pair: Pair, around: Surroundings) -> CaseChange | None:
    """The change of a pair whose figures are not compared: one side only, another environment, or an outcome that is not ok."""
    if pair.base is None or pair.head is None:
        return _changed(pair, Verdict.ONLY_IN_HEAD if pair.base is None else Verdict.ONLY_IN_BASE, "")
    there, here = pair.base.outcome, pair.head.outcome
    if there is None or here is None:
        verdict = Verdict.ONLY_IN_HEAD if there is None else Verdict.ONLY_IN_BASE
        return _changed(pair, Verdict.NOT_COMPARABLE if there is here else verdict, "not run yet")
    why = [f"environment differs: {', '.join(f'{name} {told}' for name, told in around.differing.items())}"] if around.differing else []
    why += [told] if (told := obstacle(pair.base, pair.head)) else []
    if why:
        return _changed(pair, Verdict.NOT_COMPARABLE, "; ".join(why))
    return None if Outcome.OK == there == here else _otherwise(pair, pair.base, pair.head)


def _otherwise(pair: Pair, base: Side, head: Side) -> CaseChange:
    """The change of a pair of which at least one side is not ok."""
    verdict = Verdict.FAILS if base.outcome is Outcome.OK else Verdict.RUNS if head.outcome is Outcome.OK else Verdict.INCONCLUSIVE
    same = base.outcome is head.outcome
    return _changed(pair, Verdict.SAME if same else verdict, f"{_outcome(base)} -> {_outcome(head)}")


def _outcome(side: Side) -> str:
    return f"{side.outcome}{f' ({side.reason})' if side.reason else ''}"


def _changed(pair: Pair, verdict: Verdict, why: str) -> CaseChange:
    side = pair.base or pair.head
    assert side
    return CaseChange(label=pair.label, case_id=side.case.id, matched_by=pair.matched_by, verdicts=(verdict,), why=why)


def _case(pair: Pair, figures: tuple[FigureChange, ...], stages: tuple[StageChange, ...]) -> CaseChange:
    """The case's verdicts: what changed; else inconclusive when its time or any other figure is; else same."""
    found = {figure.verdict for figure in figures}
    changed = tuple(verdict for verdict in CHANGED if verdict in found)
    quiet = Verdict.INCONCLUSIVE if Verdict.INCONCLUSIVE in found or not found else Verdict.SAME
    one = _changed(pair, quiet, "" if figures else "no figure on both sides")
    return replace(one, verdicts=changed or (quiet,), figures=figures, stages=stages)


class _Tables:
    """Trials and stages of one run, looked up by case."""

    def __init__(self, results: Results) -> None:
        trials = counted_trials(results.records, results.stages.lazy())
        stages = results.stages.join(counted_key(results.records), on=["case_id", "trial"], how="semi")
        slowest = stages.group_by("case_id", "trial", "stage").agg(pl.col("start_s").min(), pl.col("duration_s", "peak_allocated_bytes").max())
        self.trials = {key[0]: part for key, part in trials.partition_by("case_id", as_dict=True).items()}
        self.stages = {key[0]: part.sort("start_s", "stage") for key, part in slowest.partition_by("case_id", as_dict=True).items()}


def _values(frame: pl.DataFrame | None, name: str) -> tuple[float, ...]:
    return () if frame is None or name not in frame.columns else tuple(frame[name].drop_nulls().to_list())


def _samples(thresholds: Sequence[Threshold], base: pl.DataFrame | None, head: pl.DataFrame | None) -> list[Sample]:
    """The figures that both sides have."""
    there = [Sample(threshold=row, base=_values(base, row.metric.name), head=_values(head, row.metric.name)) for row in thresholds]
    return [sample for sample in there if sample.base and sample.head]


def _ids(pair: Pair) -> tuple[str, str]:
    assert pair.base
    assert pair.head
    return pair.base.case.id, pair.head.case.id


def _case_samples(pair: Pair, base: _Tables, head: _Tables) -> list[Sample]:
    there, here = _ids(pair)
    return _samples(CASE_THRESHOLDS, base.trials.get(there), head.trials.get(here))


def _stages(pair: Pair, base: _Tables, head: _Tables) -> tuple[StageChange, ...]:
    there, here = (tables.stages.get(id_) for tables, id_ in zip((base, head), _ids(pair), strict=True))
    if there is None or here is None:
        return ()
    both = [name for name in dict.fromkeys(there["stage"].to_list()) if name in set(here["stage"].to_list())]
    named = [
        (name, sample)
        for name in both
        for sample in _samples(STAGE_THRESHOLDS, there.filter(pl.col("stage") == name), here.filter(pl.col("stage") == name))
    ]
    changes = judge([sample for _, sample in named])
    return tuple(StageChange(stage=name, change=change) for (name, _), change in zip(named, changes, strict=True))

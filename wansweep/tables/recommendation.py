"""Which of a run's cases to use: the best by one objective of those that meet every constraint, and what stands around it.

Cases are alternatives only when they are asked to make the same video (`lossy.workload`). A lossy case counts only with a measured drift, or
when the user allows it: without one, "fastest" would be the case that computes the least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import polars as pl

from wansweep.case import Case
from wansweep.lossy import lossy_levers, workload
from wansweep.metrics import METRIC, Metric
from wansweep.record import Outcome, Record
from wansweep.tables.results import Results
from wansweep.units import BYTES, GIB, JOULES, NOT_MEASURED, SECONDS

Row = dict[str, Any]
# What has to fit on a card, the most telling first: contexts included, allocator's cache included, tensors alone.
MEMORIES = ("peak_device_bytes", "peak_reserved_bytes", "peak_allocated_bytes")
NEAR_PCT = 25.0


class Objective(StrEnum):
    """What is to be least."""

    TIME = "time"
    VRAM = "vram"
    ENERGY = "energy"
    GPU_SECONDS = "gpu_seconds"


OBJECTIVE_METRICS: dict[Objective, Metric] = {
    Objective.TIME: METRIC["total_s"],
    Objective.VRAM: Metric(name="vram_bytes", label="VRAM", unit=BYTES, digits=2),
    Objective.ENERGY: Metric(name="energy_j", label="Energy", unit=JOULES, digits=1),
    Objective.GPU_SECONDS: Metric(name="gpu_seconds", label="GPU-seconds", unit=SECONDS, digits=2),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a case must meet; null for no limit.

    Attributes:
        vram_bytes: At most, on the fullest GPU.
        total_s: At most.
        ssim: At least, against the lossless twin.
        allow_lossy: Whether lossy cases count without a measured drift.
    """

    vram_bytes: float | None = None
    total_s: float | None = None
    ssim: float | None = None
    allow_lossy: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One constraint on one case.

    Attributes:
        name: ``max-vram``, ``max-time``, ``min-ssim`` or ``drift``.
        met: Whether it is met; what was not measured is not met.
        told: By how much, or why not.
        excess_pct: How far beyond, in percent of the limit; null when met, or when it cannot be said.
    """

    name: str
    met: bool
    told: str
    excess_pct: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A measured case.

    Attributes:
        case: As declared.
        figures: By objective; null for what was not measured.
        n: Trials in the figures.
        stable: Verdict on them.
        lossy: Lossy levers it pulls.
        size: As it ran, and steps; ``n/a`` for what an imported report does not state.
        ssim: 1 for a lossless case; against its lossless twin for a lossy one; null when nobody measured it.
        row: Its row of the summary.
        checks: Every constraint.
        on_frontier: Whether no other case is as fast with as little memory.
    """

    case: Case
    figures: dict[Objective, float | None]
    size: str
    n: int
    stable: str
    lossy: tuple[str, ...]
    ssim: float | None
    row: Row
    checks: tuple[Check, ...]
    on_frontier: bool = False

    @property
    def met(self) -> bool:
        """Whether every constraint is."""
        return all(check.met for check in self.checks)

    @property
    def excess_pct(self) -> float | None:
        """How far it misses the constraint that it misses most; null where that cannot be said."""
        missed = [check.excess_pct for check in self.checks if not check.met]
        return None if not missed or None in missed else max(value for value in missed if value is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """The answer for one workload.

    Attributes:
        objective: What is least.
        memory: Which column VRAM is; null where no case has any.
        candidates: Its measured cases, the best first, those that meet everything before the others.
        best: Null when none meets every constraint.
        near_misses: Cases that miss a constraint by no more than `NEAR_PCT`, the nearest first.
        trades: What more memory or more time would buy beside the best; a line each.
    """

    objective: Objective
    memory: str | None
    candidates: tuple[Candidate, ...]
    best: Candidate | None
    near_misses: tuple[Candidate, ...]
    trades: tuple[str, ...]


def recommend(results: Results, limits: Limits, objective: Objective) -> list[Recommendation]:
    """An answer for each workload of the run that has an ok case, in the sweep's order."""
    ok = {row["case_id"]: row for row in results.summary.filter(pl.col("outcome") == str(Outcome.OK)).iter_rows(named=True)}
    groups: dict[tuple[object, ...], list[Case]] = {}
    for case in results.sweep.cases:
        if case.id in ok:
            groups.setdefault((workload(case), _unstated(ok[case.id])), []).append(case)
    videos = _videos(results.records)
    return [_answer([ok[case.id] for case in cases], cases, videos, limits, objective) for cases in groups.values()]


def _unstated(row: Row) -> str | None:
    """An imported case whose model, size or steps nobody stated is an alternative to no other: its own id."""
    return row["case_id"] if None in (row["model"], row["width"], row["steps"]) else None


def _videos(records: Sequence[Record]) -> dict[str, frozenset[str]]:
    """Hashes of the videos' pixels by case; of latents alone none would do, since the VAE has lossy levers too."""
    found: dict[str, frozenset[str]] = {}
    for record in records:
        if record.resolved and record.resolved.output_sha256:
            found[record.case_id] = found.get(record.case_id, frozenset()) | {record.resolved.output_sha256}
    return found


def _answer(
    rows: Sequence[Row], cases: Sequence[Case], videos: dict[str, frozenset[str]], limits: Limits, objective: Objective
) -> Recommendation:
    memory = next((name for name in MEMORIES if all(row[name] is not None for row in rows)), None)
    twins = frozenset(sha for case in cases if not lossy_levers(case) for sha in videos.get(case.id, ()))
    candidates = [_candidate(row, case, memory, videos.get(case.id, frozenset()), twins, limits) for row, case in zip(rows, cases, strict=True)]
    candidates = _with_frontier(candidates)
    candidates.sort(key=lambda one: (not one.met, *_least(one, objective)))
    best = next((one for one in candidates if one.met and one.figures[objective] is not None), None)
    near = [one for one in candidates if one.excess_pct is not None and one.excess_pct <= NEAR_PCT]
    return Recommendation(
        objective=objective,
        memory=memory,
        candidates=tuple(candidates),
        best=best,
        near_misses=tuple(sorted(near, key=lambda one: one.excess_pct or 0.0)),
        trades=tuple(_trades(best, candidates)) if best else (),
    )


def _least(one: Candidate, objective: Objective) -> tuple[bool, float, float]:
    value, time_s = one.figures[objective], one.figures[Objective.TIME]
    return value is None, value or 0.0, time_s or 0.0


def _candidate(row: Row, case: Case, memory: str | None, videos: frozenset[str], twins: frozenset[str], limits: Limits) -> Candidate:
    total_s, vram = row["total_s"], row[memory] if memory else None
    lossy = tuple(lossy_levers(case))
    stated = row["dtype"] is not None  # an imported report does not say how it computed
    # A bit-equal video is a measured drift: none.
    ssim = 1.0 if (not lossy and stated) or (videos and videos <= twins) else row["ssim"]
    checks = [
        _at_most("max-vram", vram, limits.vram_bytes, GIB, "GiB"),
        _at_most("max-time", total_s, limits.total_s, 1.0, "s"),
        _ssim(ssim, limits.ssim),
        _drift(lossy, ssim, limits, row["drift_why"]),
    ]
    return Candidate(
        case=case,
        figures={
            Objective.TIME: total_s,
            Objective.VRAM: vram,
            Objective.ENERGY: row["energy_j"],
            Objective.GPU_SECONDS: None if total_s is None or row["gpus"] is None else total_s * row["gpus"],
        },
        size=" ".join(_words(row)),
        n=row["n"],
        stable=row["stable"],
        lossy=lossy,
        ssim=ssim,
        row=row,
        checks=tuple(check for check in checks if check),
    )


def _words(row: Row) -> tuple[str, ...]:
    told = {name: NOT_MEASURED if row[name] is None else str(row[name]) for name in ("model", "width", "height", "frames", "steps")}
    return told["model"], f"{told['width']}x{told['height']}x{told['frames']},", told["steps"], "steps"


def _at_most(name: str, value: float | None, limit: float | None, unit: float, symbol: str) -> Check | None:
    if limit is None:
        return None
    if value is None:
        return Check(name=name, met=False, told="not measured")
    left = (limit - value) / unit
    told = f"{left:.2f} {symbol} to spare" if left >= 0 else f"{-left:.2f} {symbol} too much"
    return Check(name=name, met=left >= 0, told=told, excess_pct=None if left >= 0 else 100 * (value - limit) / limit)


def _ssim(ssim: float | None, limit: float | None) -> Check | None:
    if limit is None:
        return None
    if ssim is None:
        return Check(name="min-ssim", met=False, told="drift not measured")
    excess = None if ssim >= limit else 100 * (limit - ssim) / limit
    return Check(name="min-ssim", met=ssim >= limit, told=METRIC["ssim"].show(ssim), excess_pct=excess)


def _drift(lossy: tuple[str, ...], ssim: float | None, limits: Limits, why: str | None) -> Check | None:
    """A lossy case needs a measured drift, unless the user takes it as it is."""
    if not lossy:
        return None
    if ssim is not None or limits.allow_lossy:
        return Check(name="drift", met=True, told="measured" if ssim is not None else "not measured, allowed")
    return Check(name="drift", met=False, told=f"lossy ({', '.join(lossy)}) and its drift not measured{f': {why}' if why else ''}")


def _with_frontier(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates, with those marked that no other dominates in time and memory; lossy ones that may not count dominate nobody."""
    countable = [one for one in candidates if all(check.met for check in one.checks if check.name == "drift")]
    return [replace(one, on_frontier=one in countable and not any(_dominates(other, one) for other in countable)) for one in candidates]


def _dominates(one: Candidate, other: Candidate) -> bool:
    pairs = [(one.figures[of], other.figures[of]) for of in (Objective.TIME, Objective.VRAM)]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return bool(known) and all(a <= b for a, b in known) and any(a < b for a, b in known)


def _trades(best: Candidate, candidates: Sequence[Candidate]) -> list[str]:
    """The next case on the frontier that is faster for more memory, and the next that is smaller for more time, limits aside."""
    time_s, vram = best.figures[Objective.TIME], best.figures[Objective.VRAM]
    lines = []
    others = [
        (one, one.figures[Objective.TIME], one.figures[Objective.VRAM]) for one in candidates if one.on_frontier and one.case.id != best.case.id
    ]
    placed = [
        (one, t - time_s, m - vram) for one, t, m in others if t is not None and m is not None and time_s is not None and vram is not None
    ]
    faster = min((o for o in placed if o[1] < 0 < o[2]), key=lambda o: o[2], default=None)
    smaller = min((o for o in placed if o[2] < 0 < o[1]), key=lambda o: o[1], default=None)
    if faster:
        one, dt, dm = faster
        lines.append(f"{dm / GIB:.2f} GiB more would buy {-dt:.2f} s ({-dt / (dm / GIB):.2f} s for each GiB): {one.case.label}")
    if smaller:
        one, dt, dm = smaller
        lines.append(f"{dt:.2f} s more would save {-dm / GIB:.2f} GiB ({-dm / GIB / dt:.2f} GiB for each second): {one.case.label}")
    return lines

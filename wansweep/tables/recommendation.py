"""Which of a run's cases to use: the best by one objective of those that meet every constraint, and what stands around it.

Cases are alternatives only when they are asked to make the same video (`lossy.workload`). A lossy case counts only with a measured drift, or
when the user allows it: without one, "fastest" would be the case that computes the least. On the frontier is a case that no other beats with
as few GPUs and as true a video: who has one GPU does not ask what eight of them do, and no lossy case makes a lossless one needless.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import polars as pl

from wansweep.case import Case, declared_fields
from wansweep.lossy import FREE, LOSSLESS, lossy_levers, workload
from wansweep.metrics import METRIC, Metric
from wansweep.record import Outcome, Record
from wansweep.tables.constraints import Check, Limits, checks
from wansweep.tables.results import Results
from wansweep.tables.tradeoffs import HOST, memory_measured, unbeaten
from wansweep.units import BYTES, GIB, JOULES, SECONDS

Row = dict[str, Any]
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
class Candidate:
    """A measured case.

    Attributes:
        case: As declared.
        figures: By objective; null for what was not measured.
        n: Trials in the figures.
        stable: Verdict on them.
        lossy: Lossy levers it pulls.
        size: Model, size as it ran, and steps, as far as an imported report states them.
        ssim: 1 for a lossless case; against its lossless twin for a lossy one; null when nobody measured it.
        row: Its row of the summary.
        checks: Every constraint.
        on_frontier: Whether no other case is as fast with as little memory, as few GPUs and as true a video.
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
    def gpus(self) -> int | None:
        """How many it takes; null where an imported report does not say."""
        count: int | None = self.row["gpus"]
        return count

    @property
    def loss(self) -> float | None:
        """How far its video is from the lossless twin's: 1 less SSIM; null where nobody knows."""
        return None if self.ssim is None else 1.0 - self.ssim

    @property
    def counts(self) -> bool:
        """Whether it is one to choose at all: lossless, or lossy with a measured drift or by the user's leave."""
        return all(check.met for check in self.checks if check.name == "drift")

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
        title: Its model, size and steps, and what else tells it apart from the run's other workloads.
        memory: Which column VRAM is; null where no case has any.
        candidates: Its measured cases, the best first, those that meet everything before the others.
        best: Null when none meets every constraint.
        near_misses: Cases that miss a constraint by no more than `NEAR_PCT`, the nearest first; where there is no best, the nearest at least.
        trades: What more memory, more time or more GPUs would buy beside the best; a line each.
    """

    objective: Objective
    title: str
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
    memory = memory_measured(results.summary)
    memory = None if memory == HOST else memory
    return _told_apart([_answer([ok[case.id] for case in cases], cases, videos, memory, limits, objective) for cases in groups.values()])


def _told_apart(answers: Sequence[Recommendation]) -> list[Recommendation]:
    """The answers; to titles that several have what differs in their requests is added."""
    alike: dict[str, list[Case]] = {}
    for one in answers:
        alike.setdefault(one.title, []).append(one.candidates[0].case)
    asked = [field.name for field in declared_fields() if field.name not in (*FREE, *LOSSLESS, "dtype")]
    differing = {title: [name for name in asked if len({getattr(case, name) for case in cases}) > 1] for title, cases in alike.items()}
    told = []
    for one in answers:
        case = one.candidates[0].case
        more = [" ".join(f"{name} {getattr(case, name)}".split())[:60] for name in differing[one.title]] or [case.label] * (
            len(alike[one.title]) > 1
        )
        told.append(replace(one, title=", ".join([one.title, *more])))
    return told


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
    rows: Sequence[Row], cases: Sequence[Case], videos: dict[str, frozenset[str]], memory: str | None, limits: Limits, objective: Objective
) -> Recommendation:
    twins = frozenset(sha for case in cases if not lossy_levers(case) for sha in videos.get(case.id, ()))
    candidates = [_candidate(row, case, memory, videos.get(case.id, frozenset()), twins, limits) for row, case in zip(rows, cases, strict=True)]
    candidates = _with_frontier(candidates)
    candidates.sort(key=lambda one: (not one.met, *_least(one, objective)))
    best = next((one for one in candidates if one.met and one.figures[objective] is not None), None)
    return Recommendation(
        objective=objective,
        title=candidates[0].size,
        memory=memory,
        candidates=tuple(candidates),
        best=best,
        near_misses=_near(candidates, best),
        trades=tuple(_trades(best, candidates)) if best else (),
    )


def _near(candidates: Sequence[Candidate], best: Candidate | None) -> tuple[Candidate, ...]:
    missed = sorted((one.excess_pct, place) for place, one in enumerate(candidates) if one.excess_pct is not None)
    near = [place for excess_pct, place in missed if excess_pct <= NEAR_PCT]
    if not near and best is None:
        near = [place for _, place in missed[:1]]
    return tuple(candidates[place] for place in near)


def _least(one: Candidate, objective: Objective) -> tuple[bool, float, float]:
    value, time_s = one.figures[objective], one.figures[Objective.TIME]
    return value is None, value or 0.0, time_s or 0.0


def _candidate(row: Row, case: Case, memory: str | None, videos: frozenset[str], twins: frozenset[str], limits: Limits) -> Candidate:
    total_s, vram = row["total_s"], row[memory] if memory else None
    lossy = tuple(lossy_levers(case))
    stated = row["dtype"] is not None  # an imported report does not say how it computed
    # A bit-equal video is a measured drift: none.
    ssim = 1.0 if (not lossy and stated) or (videos and videos <= twins) else row["ssim"]
    return Candidate(
        case=case,
        figures={
            Objective.TIME: total_s,
            Objective.VRAM: vram,
            Objective.ENERGY: row["energy_j"],
            Objective.GPU_SECONDS: None if total_s is None or row["gpus"] is None else total_s * row["gpus"],
        },
        size=_title(row),
        n=row["n"],
        stable=row["stable"],
        lossy=lossy,
        ssim=ssim,
        row=row,
        checks=checks(row, vram=vram, ssim=ssim, lossy=lossy, limits=limits),
    )


def _title(row: Row) -> str:
    """``t2v_a14b 1280x720x81, 40 steps``, of what is stated."""
    # The 5B makes videos from text and from pictures.
    task = None if row["model"] is None or row["task"] is None or row["model"].startswith(row["task"]) else row["task"]
    size = None if row["width"] is None else "x".join(str(row[name]) for name in ("width", "height", "frames") if row[name] is not None)
    steps = "steps not stated" if row["steps"] is None else f"{row['steps']} steps"
    return f"{' '.join(filter(None, (row['model'] or 'model not stated', task, size)))}, {steps}"


def _with_frontier(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates, with those marked that no other beats; lossy ones that may not count beat nobody."""
    countable = [place for place, one in enumerate(candidates) if one.counts]
    held = [candidates[place] for place in countable]
    points = [(one.figures[Objective.TIME], one.figures[Objective.VRAM], one.gpus, one.loss) for one in held]
    ahead = {countable[place] for place in unbeaten(points)}
    return [replace(one, on_frontier=place in ahead) for place, one in enumerate(candidates)]


def _trades(best: Candidate, candidates: Sequence[Candidate]) -> list[str]:
    """The next case on the frontier that is faster for more memory, smaller for more time, or faster on more GPUs, limits aside."""
    time_s, vram, gpus = best.figures[Objective.TIME], best.figures[Objective.VRAM], best.gpus or 1
    if time_s is None:
        return []
    others = [one for one in candidates if one.on_frontier and one.case.id != best.case.id]
    timed = [(one, t - time_s) for one in others if (t := one.figures[Objective.TIME]) is not None]
    here = [(one, dt) for one, dt in timed if (one.gpus or 1) <= gpus]
    placed = [(one, dt, m - vram) for one, dt in here if vram is not None and (m := one.figures[Objective.VRAM]) is not None]
    faster = min((o for o in placed if o[1] < 0 < o[2]), key=lambda o: o[2], default=None)
    smaller = min((o for o in placed if o[2] < 0 < o[1]), key=lambda o: o[1], default=None)
    wider = min((o for o in timed if (o[0].gpus or 1) > gpus and o[1] < 0), key=lambda o: (o[0].gpus or 1, o[1]), default=None)
    lines = []
    if faster:
        one, dt, dm = faster
        lines.append(f"{dm / GIB:.2f} GiB more would buy {-dt:.2f} s ({-dt / (dm / GIB):.2f} s for each GiB): {one.case.label}")
    if smaller:
        one, dt, dm = smaller
        lines.append(f"{dt:.2f} s more would save {-dm / GIB:.2f} GiB ({-dm / GIB / dt:.2g} GiB for each second): {one.case.label}")
    if wider:
        one, dt = wider
        more = (one.gpus or 1) - gpus
        lines.append(f"{more} GPU{'s' if more > 1 else ''} more would buy {-dt:.2f} s: {one.case.label}")
    return lines

"""Warnings: what happened while a case was measured that makes its figures less than they seem. Each with its number."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from wansweep.record import Outcome, Record, Stage, StageKind
from wansweep.tables.frames import load_figure
from wansweep.tables.repeats import counted, is_warm, left_out
from wansweep.telemetry.nvml import Gpu
from wansweep.telemetry.samples import Missing
from wansweep.units import GIB

POWER_SHARE = 0.2
CLOCK_SHARE = 0.95
COVERAGE = 0.8
# Shorter stages lack samples by nature.
SAMPLED_S = 1.0
SAMPLER_SHARE = 0.05
# Its start alone takes 0.1 CPU s, which is no rate; shorter trials are not judged.
SAMPLER_FROM_S = 10.0
FIRST_TRIAL = 1.1
# Other trials of the node named in a warning.
SHARERS = 4
_COUNTERS = {
    "throttle_thermal_s": "too hot",
    "throttle_sw_thermal_s": "too hot (by software)",
    "throttle_hw_thermal_s": "too hot (by hardware)",
    "throttle_hw_power_brake_s": "braked by the power supply",
}


def warnings(records: Sequence[Record], gpus: Sequence[Gpu] = ()) -> list[str]:
    """One line a thing that disturbed the ok trials of one case.

    Args:
        records: All trials of the case.
        gpus: Of the environment, for the highest clock each has.
    """
    ok = [record for record in records if record.outcome is Outcome.OK]
    told = (
        _throttled(ok),
        _capped(ok),
        _clocks(ok, gpus),
        _company(ok),
        _shared(ok),
        _swap(ok),
        _coverage(ok),
        _sampler(ok),
        _mixed(ok),
        _first(ok),
    )
    return [line for lines in told for line in lines]


def _throttled(records: Sequence[Record]) -> Iterator[str]:
    for name, words in _COUNTERS.items():
        hot_s, total_s, where = max(((_gain(s, name), s.duration_s or 0.0, _where(r, s)) for r, s in _totals(records)), default=(0.0, 0.0, ""))
        if hot_s > 0:
            yield f"The GPU was {words} for {hot_s:.1f} s of {total_s:.1f} s ({where})."


def _capped(records: Sequence[Record]) -> Iterator[str]:
    shares = [(_gain(s, "throttle_power_s") / s.duration_s, _where(r, s)) for r, s in _totals(records) if s.duration_s]
    share, where = max(shares, default=(0.0, ""))
    if share > POWER_SHARE:
        yield f"The power limit held the clocks down for {100 * share:.0f} % of the run ({where})."


def _clocks(records: Sequence[Record], gpus: Sequence[Gpu]) -> Iterator[str]:
    """The steps' mean clock against the card's highest, or against the highest that was seen where the card's is not known."""
    ceilings = {gpu.uuid: float(gpu.sm_clock_max_mhz) for gpu in gpus if gpu.sm_clock_max_mhz}
    low: list[tuple[float, str]] = []
    for record in records:
        uuids = {rank.rank: rank.device_uuid for rank in record.ranks}
        for rank in {stage.rank for stage in record.stages}:
            steps = [
                s for s in record.stages if s.rank == rank and s.kind is StageKind.STEP_INFERENCE and _value(s, "sm_clock_mhz") is not None
            ]
            seconds = sum(s.duration_s or 0.0 for s in steps)
            if not seconds:
                continue
            mean = sum((_value(s, "sm_clock_mhz") or 0.0) * (s.duration_s or 0.0) for s in steps) / seconds
            known = ceilings.get(uuids.get(rank) or "")
            ceiling = known or max((_largest(s, "sm_clock_mhz") or 0.0) for s in record.stages if s.rank == rank)
            low.append((mean / ceiling, f"{mean:.0f} MHz in the steps, {'the card can' if known else 'it reached'} {ceiling:.0f} MHz"))
    share, words = min(low, default=(1.0, ""))
    if share < CLOCK_SHARE:
        yield f"The SM clock was {100 * share:.0f} % of its highest: {words}."


def _company(records: Sequence[Record]) -> Iterator[str]:
    """A rank has its GPU to itself; process ids are no use to tell whose a process is (containers see other ones)."""
    most, where = max(((_largest(s, "compute_processes") or 0.0, _where(r, s)) for r, s in _totals(records)), default=(0.0, ""))
    if most > 1:
        yield f"{most:.0f} processes computed on one GPU, of which one is ours ({where})."


def _shared(records: Sequence[Record]) -> Iterator[str]:
    others = sorted({title for record in records for title in record.shared_with})
    if others:
        named = ", ".join(others[:SHARERS]) + (f" and {len(others) - SHARERS} more" if len(others) > SHARERS else "")
        yield f"The node was shared with {len(others)} other trial(s) ({named}); cluster.exclusive=true measures each alone."


def _swap(records: Sequence[Record]) -> Iterator[str]:
    used, where = max(((_largest(s, "swap_used_bytes") or 0.0, _where(r, s)) for r, s in _totals(records)), default=(0.0, ""))
    if used > 0:
        yield f"The machine had up to {used / GIB:.2f} GiB in swap ({where})."


def _coverage(records: Sequence[Record]) -> Iterator[str]:
    thin: list[tuple[float, str]] = []
    for record in records:
        for stage in record.stages:
            figure = load_figure(stage)
            if figure is None or figure.coverage is None or (stage.duration_s or 0.0) < SAMPLED_S:
                continue
            if figure.coverage < COVERAGE and figure.why in (None, Missing.GAP, Missing.NO_SAMPLE):
                thin.append((figure.coverage, stage.name))
    if thin:
        least, name = min(thin)
        yield f"Samples speak for less than {100 * COVERAGE:.0f} % of {len(thin)} stage(s); least in {name}: {100 * least:.0f} %."


def _sampler(records: Sequence[Record]) -> Iterator[str]:
    errors = [error for record in records if record.sampler for error in record.sampler.errors]
    if errors:
        yield f"The sampler could not do {len(errors)} thing(s); the first: {errors[0]}"
    for record in records:
        facts = record.sampler
        if facts and facts.cpu_s is not None and facts.wall_s and facts.cpu_s > SAMPLER_SHARE * facts.wall_s >= SAMPLER_SHARE * SAMPLER_FROM_S:
            yield f"The sampler took {100 * facts.cpu_s / facts.wall_s:.1f} % of a core (trial {record.trial})."


def _mixed(records: Sequence[Record]) -> Iterator[str]:
    if cold := left_out(records):
        yield f"{cold} cold trial(s) stand in no figure beside {len(counted(records))} warm one(s): first-run effects and a median do not mix."


def _first(records: Sequence[Record]) -> Iterator[str]:
    """Whether the first of several cold trials met something that later ones found done: files in the page cache, kernels compiled."""
    seconds = [s for record in counted(records) for s in [max((t.duration_s or 0.0 for _, t in _totals([record])), default=0.0)] if s]
    if len(seconds) < 3:
        return
    ratio = seconds[0] / statistics.median(seconds[1:])
    if ratio > FIRST_TRIAL:
        advice = "look at what ran before" if is_warm(counted(records)[0]) else "warm up before measuring (procedure.warmups=1)"
        yield f"The first trial took {ratio:.2f} times the median of the others: {advice}."


def _totals(records: Iterable[Record]) -> Iterator[tuple[Record, Stage]]:
    return ((record, stage) for record in records for stage in record.stages if stage.kind is StageKind.TOTAL_EXECUTION)


def _where(record: Record, stage: Stage) -> str:
    return f"trial {record.trial}, rank {stage.rank}"


def _value(stage: Stage, name: str) -> float | None:
    return stage.figures[name].value if name in stage.figures else None


def _gain(stage: Stage, name: str) -> float:
    return _value(stage, name) or 0.0


def _largest(stage: Stage, name: str) -> float | None:
    figure = stage.figures.get(name)
    return None if figure is None else figure.max if figure.max is not None else figure.value

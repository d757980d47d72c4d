"""Samples to windows: what a metric was between two moments. Pure arithmetic, no clocks and no files.

A window on the GPU is the GPU's own (events mapped to the host clock), because the host runs ahead of it; a window of a host metric
is the host's. The rules (gpu_metrics methodology, section 1.5, made stricter in one point):

- An interval sample is the average over (since, t]. Only those wholly inside the window make its value, weighted by their length;
  one that straddles an edge also holds what the neighbour did, so it adds to the coverage and not to the value.
- A gauge is a point, and stands for the time half-way to the points around it.
- A counter is read off the line through its samples at both edges; the value is the increase.
- Below two periods a window is ``too_short``; with less than 80 % covered it is a ``gap`` (or why the samples were null).
"""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from wansweep.telemetry.samples import QUANTITY, Kind, Missing, Quantity, Reading, Sample, Value

MIN_PERIODS = 2
MIN_COVERAGE = 0.8
MIN_INSIDE = 0.4  # of the window, by intervals that lie wholly inside; two periods guarantee it on a steady sampler
GAP_PERIODS = 3
COUNTER_SLACK = 0.01  # of the window that a counter may lack at an edge: what it lacks is lost from its value, unlike from a mean


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """The samples of one metric of one device, in order of time.

    Attributes:
        quantity: What is sampled.
        points: Samples that have a value.
        nulls: Samples that have none; each holds until the next sample.
        period_s: How far apart the points really are (median), but no less than the source needs to change.
    """

    quantity: Quantity
    points: tuple[Sample, ...]
    nulls: tuple[Sample, ...]
    period_s: float


def by_metric(samples: Iterable[Sample]) -> dict[tuple[str, str], Series]:
    """The samples as one series for each (device, metric)."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.device, sample.metric), []).append(sample)
    return {key: _series(QUANTITY[key[1]], group) for key, group in groups.items() if key[1] in QUANTITY}


def value_over(series: Mapping[tuple[str, str], Series], *, device: str, metric: str, start_s: float, end_s: float) -> Value:
    """What the metric of the device was between ``start_s`` and ``end_s`` on CLOCK_MONOTONIC.

    Of a metric that was never sampled, a null with ``no_sample``.
    """
    assert end_s >= start_s, (metric, start_s, end_s)
    one = series.get((device, metric)) or _series(QUANTITY[metric], [])
    match one.quantity.kind:
        case Kind.INTERVAL:
            return _over_intervals(one, start_s, end_s)
        case Kind.GAUGE:
            return _over_gauges(one, start_s, end_s)
        case Kind.COUNTER:
            return _over_counter(one, start_s, end_s)
        case Kind.FLAGS:
            return _over_flags(one, start_s, end_s)


def increase(before: Reading, after: Reading, *, metric: str, wall_s: float) -> Reading:
    """What a counter gained between two readings at a stage's edges; below two of its periods ``too_short``."""
    for reading in (before, after):
        if reading.why is not None:
            return reading
    assert before.value is not None
    assert after.value is not None
    if wall_s < MIN_PERIODS * QUANTITY[metric].period_s:
        return Reading.missing(Missing.TOO_SHORT)
    if after.value < before.value:
        return Reading.missing(Missing.ERROR)
    return Reading(value=after.value - before.value)


def gaps(series: Series) -> tuple[tuple[float, float], ...]:
    """Where the series is silent for more than three periods: of ``sampler_tick_s``, where the sampler itself stood still."""
    return tuple((a.t_s, b.t_s) for a, b in pairwise(series.points) if b.t_s - a.t_s > GAP_PERIODS * series.period_s)


def _series(quantity: Quantity, samples: Iterable[Sample]) -> Series:
    ordered = sorted(samples, key=lambda s: s.t_s)
    points = tuple(s for s in ordered if s.value is not None)
    lengths = [s.t_s - s.since_s for s in points if s.since_s is not None] or [b.t_s - a.t_s for a, b in pairwise(points)]
    return Series(
        quantity=quantity,
        points=points,
        nulls=tuple(s for s in ordered if s.value is None),
        period_s=max(quantity.period_s, statistics.median(lengths) if lengths else 0.0),
    )


def _over_intervals(series: Series, start_s: float, end_s: float) -> Value:
    near = [s for s in _between(series.points, start_s, end_s + GAP_PERIODS * series.period_s) if _since(s) < end_s]
    near = [s for s in near if s.t_s - _since(s) <= GAP_PERIODS * series.period_s]  # a longer one hides a standstill
    seen_s = sum(max(0.0, min(s.t_s, end_s) - max(_since(s), start_s)) for s in near)
    coverage = _share(seen_s, start_s, end_s)
    inside = [s for s in near if _since(s) >= start_s and s.t_s <= end_s]
    inside_s = sum(s.t_s - _since(s) for s in inside)
    if _too_short(series, start_s, end_s):
        return _null(series, Missing.TOO_SHORT, start_s, end_s, coverage)
    if coverage < MIN_COVERAGE or inside_s < MIN_INSIDE * (end_s - start_s):
        return _null(series, Missing.GAP if near else Missing.NO_SAMPLE, start_s, end_s, coverage)
    mean = sum(_value(s) * (s.t_s - _since(s)) for s in inside) / inside_s
    return Value(value=mean, why=None, n_samples=len(inside), coverage=coverage, max=max(map(_value, inside)))


def _over_gauges(series: Series, start_s: float, end_s: float) -> Value:
    points = _between(series.points, start_s, end_s)
    weights = _cells([s.t_s for s in points], start_s, end_s, reach_s=GAP_PERIODS / 2 * series.period_s)
    coverage = _share(sum(weights), start_s, end_s)
    if _too_short(series, start_s, end_s):
        return _null(series, Missing.TOO_SHORT, start_s, end_s, coverage)
    if not points or coverage < MIN_COVERAGE:
        return _null(series, Missing.GAP if points else Missing.NO_SAMPLE, start_s, end_s, coverage)
    values = [_value(s) for s in points]
    mean = sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
    return Value(value=mean, why=None, n_samples=len(points), coverage=coverage, max=max(values))


def _over_flags(series: Series, start_s: float, end_s: float) -> Value:
    state = _over_gauges(series, start_s, end_s)
    if state.value is None:
        return state
    seen = 0
    for sample in _between(series.points, start_s, end_s):
        seen |= int(_value(sample))
    return Value(value=float(seen), why=None, n_samples=state.n_samples, coverage=state.coverage, max=None)


def _over_counter(series: Series, start_s: float, end_s: float) -> Value:
    inside = [_value(s) for s in _between(series.points, start_s, end_s)]
    if _too_short(series, start_s, end_s):
        return _null(series, Missing.TOO_SHORT, start_s, end_s, 0.0)
    slack_s = COUNTER_SLACK * (end_s - start_s)
    first, last = _at(series, start_s, slack_s=slack_s), _at(series, end_s, slack_s=slack_s)
    if first is None or last is None:
        return _null(series, Missing.GAP if inside else Missing.NO_SAMPLE, start_s, end_s, 0.0)
    if any(b < a for a, b in pairwise([first, *inside, last])):  # the driver was loaded anew, or a process took its seconds with it
        return _null(series, Missing.ERROR, start_s, end_s, 1.0)
    return Value(value=last - first, why=None, n_samples=len(inside), coverage=1.0, max=None)


def _at(series: Series, t_s: float, *, slack_s: float) -> float | None:
    """The counter at a moment, on the line between the samples around it; beyond the first or last sample only within the slack."""
    i = bisect_left(series.points, t_s, key=lambda s: s.t_s)
    before, after = series.points[:i][-1:], series.points[i : i + 1]
    if before and after:
        (a,), (b,) = before, after
        if b.t_s - a.t_s > GAP_PERIODS * series.period_s:
            return None
        return _value(a) + (_value(b) - _value(a)) * (t_s - a.t_s) / (b.t_s - a.t_s)
    near = [s for s in (*before, *after) if abs(s.t_s - t_s) <= slack_s]
    return _value(near[0]) if near else None


def _cells(times: list[float], start_s: float, end_s: float, *, reach_s: float) -> list[float]:
    """How much of the window each point stands for, in s: half-way to its neighbours, to the edges, and never beyond its reach."""
    middles = [start_s, *((a + b) / 2 for a, b in pairwise(times)), end_s]
    return (
        [min(right, t + reach_s) - max(left, t - reach_s) for t, (left, right) in zip(times, pairwise(middles), strict=True)] if times else []
    )


def _null(series: Series, why: Missing, start_s: float, end_s: float, coverage: float) -> Value:
    """A null; where a sample in or before the window says why there was nothing to sample, that is the reason."""
    last = bisect_right(series.nulls, end_s, key=lambda s: s.t_s)
    if last and (why is not Missing.TOO_SHORT or not series.points):
        null = series.nulls[last - 1]
        healed = bisect_right(series.points, null.t_s, key=lambda s: s.t_s)
        if null.t_s >= start_s or healed == len(series.points) or series.points[healed].t_s > start_s:
            why = null.why or why
    return Value(value=None, why=why, n_samples=0, coverage=coverage, max=None)


def _between(points: tuple[Sample, ...], start_s: float, end_s: float) -> tuple[Sample, ...]:
    return points[bisect_left(points, start_s, key=lambda s: s.t_s) : bisect_right(points, end_s, key=lambda s: s.t_s)]


def _too_short(series: Series, start_s: float, end_s: float) -> bool:
    return end_s - start_s < MIN_PERIODS * series.period_s


def _share(part_s: float, start_s: float, end_s: float) -> float:
    return min(1.0, part_s / (end_s - start_s)) if end_s > start_s else 0.0


def _since(sample: Sample) -> float:
    return sample.t_s if sample.since_s is None else sample.since_s


def _value(sample: Sample) -> float:
    assert sample.value is not None, sample
    return sample.value

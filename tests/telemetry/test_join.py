from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wansweep.telemetry.join import by_metric, gaps, increase, value_over
from wansweep.telemetry.samples import Missing, Reading, Sample, Value

GPU = "GPU-1"


def intervals(metric: str, edges: list[float], values: list[float]) -> list[Sample]:
    return [Sample(t_s=b, since_s=a, device=GPU, metric=metric, value=v) for (a, b), v in zip(pairwise(edges), values, strict=True)]


def points(metric: str, times: list[float], values: list[float]) -> list[Sample]:
    return [Sample(t_s=t, device=GPU, metric=metric, value=v) for t, v in zip(times, values, strict=True)]


def null(metric: str, t_s: float, why: Missing) -> Sample:
    return Sample(t_s=t_s, device=GPU, metric=metric, value=None, why=why)


def over(samples: list[Sample], metric: str, start_s: float, end_s: float) -> Value:
    return value_over(by_metric(samples), device=GPU, metric=metric, start_s=start_s, end_s=end_s)


def grid(start_s: float, end_s: float, period_s: float) -> list[float]:
    return [start_s + i * period_s for i in range(round((end_s - start_s) / period_s) + 1)]


# A sampler's edges as they come: about 100 ms apart, never less, sometimes more.
jittery = st.lists(st.floats(min_value=0.1, max_value=0.14), min_size=30, max_size=60).map(
    lambda steps: [sum(steps[:i], start=10.0) for i in range(len(steps) + 1)]
)
percent = st.floats(min_value=0, max_value=100)


def test_an_interval_mean_weighs_each_sample_by_its_length() -> None:
    samples = intervals("sm_active_pct", [0.0, 0.1, 0.2, 0.4, 0.5], [10.0, 20.0, 80.0, 40.0])
    value = over(samples, "sm_active_pct", 0.0, 0.5)
    assert value.value == pytest.approx((10 * 0.1 + 20 * 0.1 + 80 * 0.2 + 40 * 0.1) / 0.5)
    assert (value.n_samples, value.max) == (4, 80.0)
    assert value.coverage == pytest.approx(1)


def test_a_sample_that_straddles_the_edge_gives_nothing_of_the_neighbour_away() -> None:
    # 90 % from 1.05 to 1.35, nothing around: the outer samples are half and half.
    samples = intervals("sm_active_pct", grid(0.8, 1.6, 0.1), [0, 0, 45, 90, 90, 45, 0, 0])
    value = over(samples, "sm_active_pct", 1.05, 1.35)
    assert value.value == pytest.approx(90)
    assert value.n_samples == 2
    assert value.coverage == pytest.approx(1)


@settings(deadline=None)
@given(edges=jittery, before=percent, during=percent, after=percent, data=st.data())
def test_a_stage_of_constant_load_reads_that_load_whatever_its_neighbours_do(
    edges: list[float], before: float, during: float, after: float, data: st.DataObject
) -> None:
    start = data.draw(st.floats(min_value=edges[2], max_value=edges[-1] - 0.8))
    end = data.draw(st.floats(min_value=start + 0.45, max_value=edges[-1] - 0.1))

    def mean(a: float, b: float) -> float:
        inner = max(0.0, min(b, end) - max(a, start))
        return (before * max(0.0, min(b, start) - a) + during * inner + after * max(0.0, b - max(a, end))) / (b - a)

    samples = intervals("sm_active_pct", edges, [mean(a, b) for a, b in pairwise(edges)])
    value = over(samples, "sm_active_pct", start, end)
    assert value.value == pytest.approx(during, abs=1e-6)
    assert value.coverage > 0.99


@settings(deadline=None)
@given(edges=jittery, values=st.lists(percent, min_size=60, max_size=60), shift=st.floats(min_value=0, max_value=1e6), data=st.data())
def test_a_value_lies_between_the_samples_and_does_not_depend_on_when_the_machine_booted(
    edges: list[float], values: list[float], shift: float, data: st.DataObject
) -> None:
    start = data.draw(st.floats(min_value=edges[0], max_value=edges[-1]))
    end = data.draw(st.floats(min_value=start, max_value=edges[-1] + 2))
    for metric, samples in (
        ("sm_active_pct", intervals("sm_active_pct", edges, values[: len(edges) - 1])),
        ("power_w", points("power_w", edges, [*values, 0.0][: len(edges)])),
    ):
        value = over(samples, metric, start, end)
        assert 0 <= value.coverage <= 1
        assert (value.value is None) == (value.why is not None)
        if value.value is not None and value.max is not None:
            assert min(values) - 1e-9 <= value.value <= value.max + 1e-9
        moved = [
            Sample(t_s=s.t_s + shift, since_s=None if s.since_s is None else s.since_s + shift, device=GPU, metric=metric, value=s.value)
            for s in samples
        ]
        again = over(moved, metric, start + shift, end + shift)
        if value.value is not None and again.value is not None and value.n_samples == again.n_samples:
            assert again.value == pytest.approx(value.value, abs=1e-3)


@settings(deadline=None)
@given(
    increments=st.lists(st.floats(min_value=0, max_value=60), min_size=20, max_size=20),
    cuts=st.tuples(*[st.floats(min_value=0.1, max_value=1.9)] * 3).map(sorted),
)
def test_what_a_counter_gained_adds_up_over_neighbouring_windows(increments: list[float], cuts: list[float]) -> None:
    totals = [sum(increments[:i], start=1e6) for i in range(21)]
    samples = points("energy_j", grid(0.0, 2.0, 0.1), totals)
    a, b, c = cuts
    first, second, both = (over(samples, "energy_j", *window) for window in ((a, b), (b, c), (a, c)))
    if first.value is not None and second.value is not None:
        assert both.value == pytest.approx(first.value + second.value, abs=1e-6)


@settings(deadline=None)
@given(hole=st.tuples(st.integers(min_value=1, max_value=12), st.integers(min_value=6, max_value=12)))
def test_a_lost_stretch_of_samples_is_a_gap_and_never_a_guess(hole: tuple[int, int]) -> None:
    first, length = hole
    whole = intervals("sm_active_pct", grid(0.0, 2.5, 0.1), [50.0] * 25)
    left = [s for i, s in enumerate(whole) if not first <= i < first + length]
    assert over(whole, "sm_active_pct", 0.0, 2.5).value == pytest.approx(50)
    value = over(left, "sm_active_pct", 0.0, 2.5)
    assert (value.value, value.why) == (None, Missing.GAP)
    assert value.coverage == pytest.approx(1 - length / 25)


def test_a_gauge_counts_by_the_time_it_stood_for_and_not_by_how_often_it_was_read() -> None:
    # 100 W for a second, read each 100 ms; then the sampler slows and reads 200 W each 200 ms for a second.
    times = [*grid(0.05, 0.95, 0.1), *grid(1.1, 1.9, 0.2)]
    value = over(points("power_w", times, [100.0] * 10 + [200.0] * 5), "power_w", 0.0, 2.0)
    assert value.value == pytest.approx(150, rel=0.02)
    assert value.max == 200
    assert value.n_samples == 15


def test_a_gauge_that_was_silent_for_a_second_is_a_gap() -> None:
    times = [*grid(0.0, 1.0, 0.1), *grid(2.0, 3.0, 0.1)]
    value = over(points("power_w", times, [100.0] * 22), "power_w", 0.0, 3.0)
    assert (value.value, value.why) == (None, Missing.GAP)


@pytest.mark.parametrize("metric", ["sm_active_pct", "power_w", "energy_j", "throttle_reasons"])
def test_a_stage_shorter_than_two_periods_is_too_short(metric: str) -> None:
    edges = grid(0.0, 3.0, 0.1)
    samples = intervals(metric, edges, [5.0] * 30) if metric == "sm_active_pct" else points(metric, edges, [5.0] * 31)
    assert over(samples, metric, 1.0, 1.19).why is Missing.TOO_SHORT
    assert over(samples, metric, 1.0, 1.3).why is None


def test_the_period_is_the_one_the_device_really_keeps() -> None:
    # A card whose utilisation moves once a second cannot say anything about a stage of 1.5 s, though 1/6 s is the best there is.
    samples = intervals("gpu_busy_pct", grid(0.0, 10.0, 1.0), [100.0] * 10)
    assert over(samples, "gpu_busy_pct", 3.0, 4.5).why is Missing.TOO_SHORT
    assert over(samples, "gpu_busy_pct", 3.0, 5.5).value == pytest.approx(100)


def test_a_counter_may_have_a_gap_inside_but_not_at_an_edge() -> None:
    times = [*grid(0.0, 1.0, 0.1), *grid(2.0, 3.0, 0.1)]
    samples = points("energy_j", times, [500 * t for t in times])
    assert over(samples, "energy_j", 0.5, 2.5).value == pytest.approx(1000)
    assert over(samples, "energy_j", 0.5, 1.5).why is Missing.GAP
    assert over(samples, "energy_j", 2.5, 3.5).why is Missing.GAP


def test_a_counter_that_fell_is_an_error() -> None:
    assert over(points("energy_j", grid(0.0, 1.0, 0.1), [*range(6), *range(5)]), "energy_j", 0.0, 1.0).why is Missing.ERROR


def test_zero_is_a_value_when_zero_was_measured() -> None:
    value = over(points("energy_j", grid(0.0, 1.0, 0.1), [7.0] * 11), "energy_j", 0.0, 1.0)
    assert (value.value, value.why) == (0.0, None)
    assert over([], "energy_j", 0.0, 1.0).why is Missing.NO_SAMPLE


def test_flags_keep_every_bit_that_was_seen() -> None:
    samples = points("throttle_reasons", grid(0.0, 1.0, 0.1), [4.0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0])
    assert over(samples, "throttle_reasons", 0.0, 1.0).value == 0x44
    assert over(samples, "throttle_reasons", 0.25, 1.0).value == 0x40


def test_a_null_keeps_its_reason_until_the_next_sample() -> None:
    good = intervals("sm_active_pct", grid(0.0, 2.0, 0.1), [50.0] * 20)
    later = intervals("sm_active_pct", grid(6.0, 8.0, 0.1), [50.0] * 20)
    samples = [*good, null("sm_active_pct", 2.1, Missing.NO_PERMISSION), *later]
    assert over(samples, "sm_active_pct", 0.5, 1.5).value == pytest.approx(50)
    assert over(samples, "sm_active_pct", 1.0, 3.0).why is Missing.NO_PERMISSION
    assert over(samples, "sm_active_pct", 3.0, 5.0).why is Missing.NO_PERMISSION
    assert over(samples, "sm_active_pct", 6.5, 7.5).value == pytest.approx(50)
    assert over(samples, "sm_active_pct", 7.0, 9.9).why is Missing.GAP


def test_what_never_worked_says_why_even_for_a_short_stage() -> None:
    assert over([null("sm_active_pct", 0.0, Missing.UNSUPPORTED)], "sm_active_pct", 1.0, 1.1).why is Missing.UNSUPPORTED


def test_devices_and_metrics_are_kept_apart() -> None:
    other = [Sample(t_s=t, device="GPU-2", metric="power_w", value=9.0) for t in grid(0.0, 1.0, 0.1)]
    samples = [*points("power_w", grid(0.0, 1.0, 0.1), [100.0] * 11), *other, *points("temperature_c", grid(0.0, 1.0, 0.1), [50.0] * 11)]
    assert over(samples, "power_w", 0.0, 1.0).value == pytest.approx(100)


def test_standstills_of_the_sampler_can_be_listed() -> None:
    times = [*grid(0.0, 1.0, 0.1), *grid(1.9, 3.0, 0.1)]
    series = by_metric([Sample(t_s=t, device="host", metric="sampler_tick_s", value=0.001) for t in times])
    (gap,) = gaps(series["host", "sampler_tick_s"])
    assert gap == pytest.approx((1.0, 1.9))


def test_a_counter_read_at_both_edges_is_a_difference_or_a_reason() -> None:
    def gained(before: Reading, after: Reading, wall_s: float = 1.0) -> Reading:
        return increase(before, after, metric="energy_j", wall_s=wall_s)

    low, high, lost = Reading(value=100.0), Reading(value=350.0), Reading.missing(Missing.ERROR)
    assert gained(low, high) == Reading(value=250.0)
    assert gained(low, low) == Reading(value=0.0)
    assert gained(low, high, wall_s=0.15).why is Missing.TOO_SHORT
    assert gained(high, low).why is Missing.ERROR
    assert gained(low, lost).why is Missing.ERROR

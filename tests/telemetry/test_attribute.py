"""Samples of a node to the figures of its ranks' stages."""

from __future__ import annotations

import pytest

from wansweep.record import Figure, Stage, StageKind
from wansweep.telemetry.attribute import attribute
from wansweep.telemetry.samples import Missing, Sample, host_device

ORIGIN_S = 1000.0
GPUS = {0: "GPU-a", 1: "GPU-b"}
PIDS = {0: 11, 1: 22}


def stage(rank: int, start_s: float, duration_s: float | None, **figures: Figure) -> Stage:
    return Stage(kind=StageKind.VAE_DECODING, name="VAE_Decoding", rank=rank, start_s=start_s, duration_s=duration_s, figures=figures)


def interval(device: str, metric: str, value: float | None, why: Missing | None = None) -> list[Sample]:
    """Ten seconds of samples, 100 ms apart; the first half at the value, the second at half of it."""
    ends = [ORIGIN_S + 0.1 * (i + 1) for i in range(100)]
    return [
        Sample(t_s=t, device=device, metric=metric, value=value if value is None or t <= ORIGIN_S + 5 else value / 2, why=why, since_s=t - 0.1)
        for t in ends
    ]


def gauge(device: str, metric: str, value: float) -> list[Sample]:
    return [Sample(t_s=ORIGIN_S + 0.2 * i, device=device, metric=metric, value=value) for i in range(51)]


def test_each_rank_gets_its_own_gpus_figures_in_its_own_window() -> None:
    samples = interval("GPU-a", "sm_active_pct", 90.0) + interval("GPU-b", "sm_active_pct", 60.0)
    found = attribute([stage(0, 1.0, 3.0), stage(1, 6.0, 3.0)], samples, origin_s=ORIGIN_S, gpus=GPUS, pids=PIDS)
    assert [s.figures["sm_active_pct"].value for s in found] == [pytest.approx(90.0, rel=0.01), pytest.approx(30.0, rel=0.01)]
    assert all((s.figures["sm_active_pct"].n_samples or 0) >= 28 for s in found)


def test_a_stage_too_short_for_the_source_is_null_with_the_reason() -> None:
    (found,) = attribute([stage(0, 1.0, 0.15)], interval("GPU-a", "sm_active_pct", 90.0), origin_s=ORIGIN_S, gpus=GPUS, pids=PIDS)
    assert (found.figures["sm_active_pct"].value, found.figures["sm_active_pct"].why) == (None, "too_short")


def test_a_source_that_refuses_is_null_with_its_reason() -> None:
    samples = interval("GPU-a", "sm_active_pct", None, Missing.NO_PERMISSION) + interval("GPU-a", "gpu_busy_pct", 80.0)
    (found,) = attribute([stage(0, 1.0, 3.0)], samples, origin_s=ORIGIN_S, gpus=GPUS, pids=PIDS)
    assert (found.figures["sm_active_pct"].value, found.figures["sm_active_pct"].why) == (None, "no_permission")
    assert found.figures["gpu_busy_pct"].value == pytest.approx(80.0)


def test_a_rank_without_a_gpu_has_its_hosts_figures_and_the_gpus_are_unsupported() -> None:
    samples = gauge(host_device(11), "host_pss_bytes", 5e9) + gauge(host_device(22), "host_rss_bytes", 7e9)
    found = attribute([stage(0, 1.0, 3.0), stage(1, 1.0, 3.0)], samples, origin_s=ORIGIN_S, gpus={}, pids=PIDS)
    assert [s.figures["host_bytes"].value for s in found] == pytest.approx([5e9, 7e9])  # PSS, and RSS where PSS could not be read
    assert found[0].figures["gpu_busy_pct"].why == "unsupported"


def test_memory_of_a_stage_too_short_to_be_sampled_is_null_and_not_of_another_kind() -> None:
    edge = stage(0, 1.0, 0.05, host_rss_bytes=Figure(value=3e9))
    (found,) = attribute([edge], gauge(host_device(11), "host_pss_bytes", 5e9), origin_s=ORIGIN_S, gpus={}, pids=PIDS)
    assert (found.figures["host_bytes"].value, found.figures["host_bytes"].why) == (None, "too_short")
    assert found.figures["host_rss_bytes"].value == 3e9


def test_what_was_read_at_the_edges_is_not_replaced_by_what_was_sampled() -> None:
    counter = [Sample(t_s=ORIGIN_S + 0.1 * i, device="GPU-a", metric="energy_j", value=30.0 * i) for i in range(101)]
    sharp, blank = stage(0, 1.0, 3.0, energy_j=Figure(value=123.0)), stage(0, 1.0, 3.0, energy_j=Figure(value=None, why="error"))
    found = attribute([sharp, blank], counter, origin_s=ORIGIN_S, gpus=GPUS, pids=PIDS)
    assert found[0].figures["energy_j"].value == 123.0
    assert found[1].figures["energy_j"].value == pytest.approx(900.0, rel=0.01)


def test_a_stage_that_never_ended_is_left_as_it_is() -> None:
    open_ = stage(0, 1.0, None)
    assert attribute([open_], interval("GPU-a", "sm_active_pct", 90.0), origin_s=ORIGIN_S, gpus=GPUS, pids=PIDS) == (open_,)

"""Figures of a stage on their way into the tables: values, reasons, what load is made from, what a case achieved."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from tests.conftest import make_a14b, make_case
from tests.makers import make_record, make_stages, missing, on_gpu, sampled, with_figures
from wansweep import hardware
from wansweep.metrics import STAGE_METRICS
from wansweep.plan.flops import case_flop
from wansweep.record import Record, StageKind
from wansweep.tables.frames import STAGES_SCHEMA, stages_frame, summary_frame
from wansweep.tables.typical import of_case, typical_stages
from wansweep.units import GIB

STEP = StageKind.STEP_INFERENCE


def record_with(*kinds: StageKind, **figures) -> Record:
    return make_record(make_case(), stages=with_figures(make_stages(make_case()), *kinds, **figures))


def stage_row(record: Record, stage: str) -> dict:
    return stages_frame([record]).row(by_predicate=pl.col("stage") == stage, named=True)


def summary_row(*records: Record) -> dict:
    return summary_frame([records[0].case], records, stages_frame(records)).row(0, named=True)


def test_every_figure_that_is_null_says_why_and_every_other_does_not() -> None:
    stages = with_figures(make_stages(make_case()), cpu_pct=50.0, sm_active_pct=missing("unsupported"))
    frame = stages_frame([make_record(make_case(), stages=with_figures(stages, STEP, gpu_busy_pct=sampled(90.0)))])
    assert frame.schema == pl.Schema(STAGES_SCHEMA)
    for name in (metric.name for metric in STAGE_METRICS if metric.name != "duration_s"):
        assert (frame[name].is_null() == frame[f"{name}_why"].is_not_null()).all(), name


def test_a_reason_is_the_trials_own_and_what_was_never_asked_is_not_tried() -> None:
    row = stage_row(record_with(energy_j=missing("too_short")), "T5_Encoding")
    assert (row["energy_j"], row["energy_j_why"], row["power_w_why"]) == (None, "too_short", "not_tried")


def test_host_memory_is_its_peak_and_a_clock_its_mean() -> None:
    row = stage_row(record_with(host_bytes=sampled(3e9, largest=5e9), sm_clock_mhz=sampled(1700, largest=1980)), "T5_Encoding")
    assert (row["host_bytes"], row["sm_clock_mhz"]) == (5e9, 1700)


def test_load_is_made_from_sm_activity_where_it_exists_else_from_gpu_busy_and_says_which() -> None:
    stages = with_figures(make_stages(make_case()), sm_active_pct=missing("too_short"), gpu_busy_pct=sampled(80.0, n_samples=6, coverage=0.9))
    record = make_record(make_case(), stages=with_figures(stages, STEP, sm_active_pct=sampled(50.0, n_samples=10)))
    step, t5 = stage_row(record, "Step_0_Inference"), stage_row(record, "T5_Encoding")
    assert (step["compute_load"], step["load_source"], step["n_samples"], step["coverage_pct"]) == (50.0, "sm_active", 10, 100)
    assert (t5["compute_load"], t5["load_source"], t5["n_samples"], t5["coverage_pct"]) == (80.0, "gpu_busy", 6, 90)


def test_a_load_that_nothing_was_sampled_for_is_null_with_the_reason_of_the_last_source_that_was_tried() -> None:
    row = stage_row(record_with(sm_active_pct=missing("unsupported"), gpu_busy_pct=missing("too_short")), "T5_Encoding")
    assert (row["compute_load"], row["load_source"], row["compute_load_why"]) == (None, None, "too_short")
    row = stage_row(record_with(sm_active_pct=missing("unsupported")), "T5_Encoding")
    assert row["compute_load_why"] == "unsupported"


def test_energy_is_the_sum_of_the_leaves_and_says_how_much_of_them_it_speaks_for() -> None:
    leaves = [kind for kind in StageKind if kind is not StageKind.T5_ENCODING]
    row = summary_row(record_with(*leaves, energy_j=100.0))
    # Initialisation, preprocessing, decoding, 4 times loading and inference; neither T5 nor Save nor Total_Execution.
    assert row["energy_j"] == 11 * 100
    assert row["energy_coverage_pct"] == pytest.approx(100 * 6.5 / 7.5)
    assert row["compute_load"] is None


def test_peaks_are_those_of_the_fullest_stage_and_host_memory_of_all_ranks_together() -> None:
    case = make_case(gpus=2, ulysses=2)
    ranks = [with_figures(make_stages(case, rank=rank), pinned_bytes=GIB, host_bytes=sampled(GIB, largest=3 * GIB)) for rank in (0, 1)]
    stages = (*with_figures(ranks[0], StageKind.VAE_DECODING, peak_allocated_bytes=7 * GIB, device_used_bytes=9 * GIB), *ranks[1])
    row = summary_row(make_record(case, stages=stages))
    assert (row["peak_allocated_bytes"], row["peak_device_bytes"]) == (7 * GIB, 9 * GIB)
    assert (row["peak_host_bytes"], row["peak_pinned_bytes"]) == (6 * GIB, 2 * GIB)


def test_achieved_flops_are_the_formulas_over_the_steps_and_mfu_their_share_of_all_ranks_peaks() -> None:
    case = make_a14b(weights="hub", gpus=2, ulysses=2)
    row = summary_row(on_gpu(make_record(case, stages=make_stages(case, step_s=40.0)), "NVIDIA H200"))
    flop_per_s = case_flop(case).steps_flop[0] / 40.0
    peak = hardware.peak_flops(hardware.GPUS["h200"], "bf16")
    assert row["tflops"] == pytest.approx(flop_per_s / 1e12)
    assert row["mfu_pct"] == pytest.approx(100 * flop_per_s / (2 * peak))
    assert (row["tflops_why"], row["mfu_pct_why"]) == (None, None)


@pytest.mark.parametrize(
    ("fields", "device", "resolved", "tflops", "why"),
    [
        ({"weights": "tiny"}, "NVIDIA H200", {}, False, "tiny weights"),
        ({"weights": "hub"}, "NVIDIA Riva 128", {}, True, "NVIDIA Riva 128 is not in the GPU table"),
        ({"weights": "hub"}, "NVIDIA H200", {"cache": "first_block"}, False, "cache first_block leaves out work"),
    ],
)
def test_where_a_share_of_the_peak_would_be_a_guess_it_is_null_with_the_reason(fields, device, resolved, tflops, why) -> None:
    row = summary_row(on_gpu(make_record(make_case(**fields)), device, **resolved))
    assert row["mfu_pct"] is None
    assert why in row["mfu_pct_why"]
    assert (row["tflops"] is not None) is tflops


def test_a_cpu_achieves_no_flops_of_a_gpu() -> None:
    row = summary_row(make_record(make_case(weights="hub")))
    assert (row["tflops"], row["tflops_why"]) == (None, "no GPU ran it")


def test_warm_and_cold_trials_never_share_a_median() -> None:
    case = make_case()
    seconds, warm = (9.0, 1.0, 1.2), (False, True, True)
    trials = [make_record(case, trial=i, stages=make_stages(case, step_s=step_s)) for i, step_s in enumerate(seconds)]
    row = summary_row(*(replace(record, warm=is_warm) for record, is_warm in zip(trials, warm, strict=True)))
    assert (row["n"], row["warm"], row["left_out"]) == (2, True, 1)
    assert row["step_s"] == pytest.approx(1.1)
    assert row["step_s_spread"] == pytest.approx(0.1 * 2**0.5, abs=1e-6)
    cold = summary_row(*trials)
    assert (cold["n"], cold["warm"], cold["left_out"], cold["step_s"]) == (3, False, 0, 1.2)


def test_a_trial_that_warmed_up_before_it_was_measured_is_warm() -> None:
    row = summary_row(replace(make_record(make_case()), warmup_s=(12.0,)))
    assert (row["n"], row["warm"]) == (1, True)


def test_the_first_step_stands_beside_the_mean_over_all_steps_and_does_not_leave_it() -> None:
    case = make_case(steps=4)
    stages = tuple(replace(stage, duration_s=2.0) if stage.name == "Step_0_Inference" else stage for stage in make_stages(case))
    row = summary_row(make_record(case, stages=stages))
    assert (row["step_s"], row["steady_step_s"], row["first_step_ratio"]) == (1.25, 1.0, 2.0)
    assert summary_row(make_record(make_case(steps=1)))["first_step_ratio"] is None


def test_the_spread_over_trials_needs_two_of_them() -> None:
    assert summary_row(make_record(make_case()))["total_s_spread"] is None


def test_a_typical_stage_is_the_median_over_trials_of_the_fullest_rank_and_keeps_a_reason_only_where_nothing_was_measured() -> None:
    case = make_case(gpus=2, ulysses=2)
    trials = []
    for trial, peak in enumerate((1.0, 3.0, 2.0)):
        first = with_figures(make_stages(case), peak_allocated_bytes=peak, gpu_busy_pct=sampled(80.0), energy_j=missing("too_short"))
        second = with_figures(make_stages(case, rank=1), peak_allocated_bytes=0.5, gpu_busy_pct=missing("gap"))
        trials.append(make_record(case, trial=trial, stages=first + second))
    row = typical_stages(stages_frame(trials).lazy()).collect().row(by_predicate=pl.col("stage") == "T5_Encoding", named=True)
    assert (row["peak_allocated_bytes"], row["gpu_busy_pct"], row["gpu_busy_pct_why"], row["energy_j_why"]) == (2.0, 80.0, None, "too_short")
    assert row["load_source"] == "gpu_busy"


def test_the_breakdown_shows_the_trials_that_count() -> None:
    case = make_case()
    cold = make_record(case, stages=make_stages(case, step_s=9.0))
    warm = replace(make_record(case, trial=1), warm=True)
    stages = of_case(stages_frame([cold, warm]), [cold, warm])
    assert stages.row(by_predicate=pl.col("stage") == "Step_0_Inference", named=True)["duration_s"] == 1.0


@pytest.mark.parametrize("metric", ["total_s", "step_s", "peak_allocated_bytes"])
def test_a_slower_or_fuller_rank_never_lowers_a_maximum(metric: str) -> None:
    case = make_case(gpus=2, ulysses=2)
    before = 0.0
    for more in (0.5, 1.0, 1.5, 4.0):
        first = with_figures(make_stages(case), peak_allocated_bytes=1.0)
        second = with_figures(make_stages(case, step_s=more, rank=1), peak_allocated_bytes=more)
        value = summary_row(make_record(case, stages=first + second))[metric]
        assert value >= before
        before = value

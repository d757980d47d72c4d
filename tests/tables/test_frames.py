"""The arithmetic of the tables: on records of known lengths, and against the printed figures of the seed report."""

from __future__ import annotations

import re

import polars as pl
import pytest

from tests.conftest import make_a14b, make_case
from tests.makers import make_record, make_stages
from tests.tables.seed import CASES, seed_stages
from wansweep.metrics import METRICS
from wansweep.record import Outcome
from wansweep.tables.analysis import analyse
from wansweep.tables.frames import STAGES_SCHEMA, SUMMARY_SCHEMA, stages_frame, summary_frame, with_load
from wansweep.tables.trials import trial_frame

CONTRACT_SUMMARY = [
    "case_id",
    "label",
    "outcome",
    "reason",
    "model",
    "task",
    "width",
    "height",
    "frames",
    "steps",
    "gpus",
    "offload",
    "dtype",
    "quant",
    "attention",
    "cache",
    "parallel",
    "n",
    "total_s",
    "step_s",
    "step_s_stdev",
    "load_s",
    "text_encode_s",
    "vae_decode_s",
    "save_s",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "peak_device_bytes",
    "peak_host_bytes",
    "sm_active_pct",
    "gpu_busy_pct",
    "energy_j",
    "tflops",
    "mfu_pct",
    "compute_load",
    "unattributed_pct",
    "predicted_total_s",
    "predicted_step_s",
    "predicted_peak_bytes",
    "stable",
]
CONTRACT_STAGES = [
    "case_id",
    "trial",
    "rank",
    "stage",
    "step",
    "expert",
    "start_s",
    "duration_s",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "device_used_bytes",
    "host_bytes",
    "cpu_pct",
    "sm_active_pct",
    "gpu_busy_pct",
    "energy_j",
    "compute_load",
    "n_samples",
]


def summarise(cases, records) -> pl.DataFrame:
    return summary_frame(cases, records, stages_frame(records))


def test_the_columns_are_those_of_the_contract() -> None:
    assert set(CONTRACT_SUMMARY) <= set(SUMMARY_SCHEMA)
    assert set(CONTRACT_STAGES) <= set(STAGES_SCHEMA)
    frame = summarise([make_case()], [make_record(make_case())])
    assert frame.schema == pl.Schema(SUMMARY_SCHEMA)


def test_total_execution_contains_the_stages_but_save_and_is_never_added_to_them() -> None:
    row = summarise([make_case(steps=4)], [make_record(make_case(steps=4))]).row(0, named=True)
    assert row["total_s"] == pytest.approx(2 + 1 + 4 + 0.5 + 0.25)
    assert (row["load_s"], row["text_encode_s"], row["step_s"], row["vae_decode_s"], row["save_s"]) == (2, 1, 1, 0.5, 3)
    assert row["unattributed_pct"] == pytest.approx(100 * 0.25 / 7.75)


def test_what_was_not_measured_is_null_and_never_zero() -> None:
    row = summarise([make_case()], [make_record(make_case())]).row(0, named=True)
    for name in ("sm_active_pct", "gpu_busy_pct", "energy_j", "compute_load", "peak_allocated_bytes", "peak_host_bytes", "mfu_pct", "tflops"):
        assert row[name] is None, name


def test_the_slowest_rank_is_the_trials_time() -> None:
    case = make_case(gpus=2, ulysses=2)
    record = make_record(case, stages=make_stages(case, step_s=1.0) + make_stages(case, step_s=1.5, rank=1))
    assert summarise([case], [record]).row(0, named=True)["step_s"] == 1.5


def test_figures_are_medians_over_ok_trials_and_one_bad_trial_is_the_cases_outcome() -> None:
    case = make_case()
    records = [make_record(case, trial=trial, stages=make_stages(case, step_s=step_s)) for trial, step_s in enumerate((1.0, 9.0, 2.0))]
    records.append(make_record(case, trial=3, outcome=Outcome.OOM, reason="CUDA out of memory"))
    row = summarise([case], records).row(0, named=True)
    assert (row["step_s"], row["n"], row["outcome"], row["reason"]) == (2.0, 3, "oom", "CUDA out of memory")


def test_every_planned_case_is_a_row_in_the_sweeps_order_whatever_became_of_it() -> None:
    cases = [make_case(seed=seed, label=f"c{seed}") for seed in range(5)]
    records = [make_record(cases[3]), make_record(cases[1], outcome=Outcome.INVALID, reason="no")]
    frame = summarise(cases, records)
    assert frame["label"].to_list() == ["c0", "c1", "c2", "c3", "c4"]
    assert frame["outcome"].to_list() == [None, "invalid", None, "ok", None]
    assert summarise(cases, []).height == 5


def test_a_stage_that_never_ended_is_no_row_and_its_trial_still_has_the_others() -> None:
    case = make_case()
    half = make_stages(case)[1:4]
    frame = stages_frame([make_record(case, outcome=Outcome.CRASH, stages=half)])
    assert frame["stage"].to_list() == [stage.name for stage in half]


def test_a_percentage_is_weighted_by_the_seconds_it_was_measured_over() -> None:
    frame = with_load(
        stages_frame([make_record(make_case(steps=2))])
        .with_columns(duration_s=pl.when(pl.col("stage") == "Step_0_Inference").then(3.0).otherwise("duration_s"))
        .with_columns(
            sm_active_pct=pl.when(pl.col("stage") == "Step_0_Inference").then(100.0).when(pl.col("stage") == "Step_1_Inference").then(60.0)
        )
    )
    row = trial_frame(frame.lazy()).collect().row(0, named=True)
    assert row["sm_active_pct"] == pytest.approx((3 * 100 + 1 * 60) / 4)
    assert row["compute_load"] == pytest.approx(3 * 100 + 1 * 60)


def test_every_metric_of_the_table_is_a_column_of_the_summary() -> None:
    assert {metric.name for metric in METRICS} <= set(SUMMARY_SCHEMA)


# ---- against the excerpt of the seed report: its printed figures, from its printed stages ----


def printed(text: str, name: str) -> float:
    return float(re.search(rf"\*\*{name}\*\*: ([\d.]+)", text)[1])  # type: ignore[index]


def test_the_excerpt_holds_four_cases() -> None:
    assert len(CASES) == 4


@pytest.mark.parametrize(("name", "text"), CASES, ids=[name for name, _ in CASES])
def test_our_figures_are_the_seed_reports_where_its_arithmetic_was_right(name: str, text: str) -> None:
    stages, loads = seed_stages(text)
    # It multiplied before it rounded seconds to 0.01 and percent to 0.1.
    slack = [0.5 + 0.005 * row["sm_active_pct"] + 0.05 * row["duration_s"] for row in stages.iter_rows(named=True)]
    for ours, theirs, bound in zip(stages["compute_load"], loads, slack, strict=True):
        assert ours == pytest.approx(theirs, abs=bound)
    row = trial_frame(stages.lazy()).collect().row(0, named=True)
    steps = text.count("_Inference |")
    assert row["step_s"] == pytest.approx(printed(text, "Avg Time per Step"), abs=0.011)
    assert row["sm_active_pct"] == pytest.approx(printed(text, "Avg SM Activity"), abs=0.15)
    inference = stages.filter(pl.col("kind") == "Inference")["compute_load"].sum()
    assert inference == pytest.approx(printed(text, "Total Inference Load"), abs=steps)
    assert row["peak_allocated_bytes"] / 2**30 == pytest.approx(printed(text, "Peak GPU Memory"))


@pytest.mark.parametrize(("name", "text"), CASES, ids=[name for name, _ in CASES])
def test_our_total_load_counts_each_stage_once_where_the_seed_counted_twice(name: str, text: str) -> None:
    stages, loads = seed_stages(text)
    ours = trial_frame(stages.lazy()).collect().row(0, named=True)["compute_load"]
    # Theirs has Total_Execution on top of what it contains, summed before rounding.
    assert sum(loads) == pytest.approx(printed(text, "Total Compute Load"), abs=2)
    assert ours == pytest.approx(sum(loads) - loads[-1], rel=0.002)


def test_the_seconds_that_the_seed_report_lost_are_shown() -> None:
    lost = {name: trial_frame(seed_stages(text)[0].lazy()).collect().row(0, named=True) for name, text in CASES}
    worst = lost["01_5B_Speed_Preview_704p"]
    assert worst["unattributed_pct"] / 100 * worst["total_s"] == pytest.approx(26.59, abs=0.1)


def test_the_expert_swap_that_the_seed_report_passed_over_is_a_finding() -> None:
    stages, _ = seed_stages(dict(CASES)["04_14B_Speed_Preview_480p"])
    findings, without_data = analyse(stages)
    swap = next(finding for finding in findings if "Placing experts" in finding.evidence)
    assert "74.43 s of 342.16 s (22 %), 69.81 s of it in Step_4_Loading" in swap.evidence
    assert not any(rule.rule == "low SM activity" for rule in without_data)


def test_low_sm_activity_is_found_where_the_seed_report_found_it() -> None:
    def low(case: str) -> list[str]:
        return [finding.evidence for finding in analyse(seed_stages(dict(CASES)[case])[0])[0] if "SM activity" in finding.evidence]

    assert "Step_0_Inference 86.9 %" in low("02_Efficiency_Mode_720p")[0]
    assert not low("01_5B_Speed_Preview_704p")  # 97.1 % passes


def test_a_rule_without_data_says_so() -> None:
    stages = stages_frame([make_record(make_a14b(steps=30))])
    _, without_data = analyse(stages)
    assert {rule.rule for rule in without_data} >= {"low SM activity"}

"""What a case's section says of its figures: where they come from, how far to believe them, and why some are missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.conftest import make_a14b, make_case
from tests.makers import make_record, make_stages, missing, on_gpu, sampled, with_figures
from tests.report.test_markdown import report
from wansweep.config import read_request
from wansweep.record import Figure, Outcome, Record, SamplerFacts, StageKind, Timing
from wansweep.report.markdown import render
from wansweep.tables.results import tabulate
from wansweep.telemetry.environment import environment
from wansweep.units import GIB

STEP = StageKind.STEP_INFERENCE


def run(*kinds: StageKind, trial: int = 0, step_s: float = 1.0, **figures: float | Figure) -> Record:
    case = make_case(label="ti2v_5b")
    return make_record(case, trial=trial, stages=with_figures(make_stages(case, step_s=step_s), *kinds, **figures))


def line(text: str, start: str) -> str:
    (one,) = (line for line in text.splitlines() if line.startswith(start))
    return one


def test_sm_activity_and_gpu_busy_are_two_columns() -> None:
    text = report([run(STEP, sm_active_pct=sampled(75.0), gpu_busy_pct=sampled(100.0))])
    assert line(text, "| Stage") == "| Stage | Time (s) | GPU Mem (GiB) | CPU (%) | Sys Mem (GiB) | SM Act (%) | GPU Busy (%) | Comp Load |"
    assert line(text, "| Step_0_Inference") == "| Step_0_Inference | 1.000 | n/a | n/a | n/a | 75.0 | 100.0 | 75 |"
    assert "Comp Load is made from SM activity in 4 stage(s)." in text


def test_where_only_busy_exists_sm_activity_is_not_available_and_the_load_says_what_it_is_made_from() -> None:
    text = report([run(STEP, sm_active_pct=missing("unsupported"), gpu_busy_pct=sampled(90.0))])
    assert line(text, "| Step_0_Inference").endswith("| n/a | 90.0 | 90 |")
    assert "Comp Load is made from GPU busy in 4 stage(s)." in text
    assert line(text, "- **Avg SM Activity**") == "- **Avg SM Activity**: n/a"
    assert line(text, "- **Avg GPU Busy**") == "- **Avg GPU Busy**: 90.0 %"
    assert line(text, "- **Total Compute Load**") == "- **Total Compute Load**: 360 SM%·s over 53.3 % of the leaf stages' time"


def test_the_five_memories_are_told_in_gib() -> None:
    figures = {"peak_allocated_bytes": 3 * GIB, "peak_reserved_bytes": 4 * GIB, "device_used_bytes": 5 * GIB, "pinned_bytes": 0}
    text = report([run(**figures, host_bytes=sampled(6 * GIB, largest=7 * GIB))])
    assert line(text, "- **Memory**") == (
        "- **Memory**: peak allocated 3.00 GiB, peak reserved 4.00 GiB, device used 5.00 GiB, host process tree 7.00 GiB, pinned host 0.00 GiB"
    )


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ((1.0,), "n=1 cold; insufficient: n=1; 2 more repeats would give an interval"),
        ((1.0, 1.0, 1.0), "n=3 cold, standard deviation of the total 0.00 s; stable: +-0.0 % over n=3"),
        ((1.0, 1.1, 1.2), "n=3 cold, standard deviation of the total 0.40 s; noisy: +-12.2 % over n=3; about 23 more repeats for +-2 %"),
    ],
)
def test_a_case_shows_n_its_spread_and_what_to_do_about_it(steps: tuple[float, ...], told: str) -> None:
    text = report([run(trial=trial, step_s=step_s) for trial, step_s in enumerate(steps)])
    assert line(text, "- **Repeats**") == f"- **Repeats**: {told}"


def test_the_summary_table_has_the_verdict_and_the_interval() -> None:
    text = report([run(trial=trial, step_s=step_s) for trial, step_s in enumerate((1.0, 1.1, 1.2))])
    assert "| ok | 3 | 12.2 | noisy | 1 |" in line(text, "| ti2v_5b |")


def test_warm_trials_beside_cold_ones_are_said_to_be_the_figures() -> None:
    text = report([run(step_s=9.0), replace(run(trial=1), warm=True)])
    assert line(text, "- **Repeats**").startswith("- **Repeats**: n=1 warm, 1 cold left out; insufficient")
    assert "**Instability warnings:**\n- 1 cold trial(s) stand in no figure beside 1 warm one(s)" in text


def test_figures_that_are_missing_list_their_reasons_once() -> None:
    stages = with_figures(run(sm_active_pct=missing("too_short")).stages, StageKind.VAE_DECODING, sm_active_pct=missing("gap"))
    stages = with_figures(stages, STEP, sm_active_pct=sampled(99.0), energy_j=500.0)
    text = report([replace(run(), stages=stages)])
    told = line(text, "- **n/a**")
    assert "sm_active_pct too_short in 9 stages, gap in 1" in told
    assert (
        "peak_allocated_bytes, peak_reserved_bytes, device_used_bytes, host_bytes, pinned_bytes, cpu_pct, gpu_busy_pct not_tried in 14 stages"
        in told
    )
    assert "energy_j not_tried in 10 stages" in told


def test_how_it_was_measured_is_told() -> None:
    record = replace(
        on_gpu(run(), "NVIDIA H200"),
        timing=Timing.EVENTS,
        weights_cached=Figure(value=0.125),
        sampler=SamplerFacts(cpu_s=0.1, wall_s=20.0, nvml_s=0.0003),
        warmup_s=(12.0,),
    )
    assert line(report([record]), "- **Measured**") == (
        "- **Measured**: timed by events; CPU in % of one core, 8 reserved a rank; page cache held 12.5 % of the weights at load; "
        "sampler 0.10 CPU s in 20.0 s, 0.30 ms a reading of a GPU; "
        "warm-ups before it: 12.00 s"
    )
    bare = line(report([replace(run(), weights_cached=missing("unsupported"))]), "- **Measured**")
    assert bare == "- **Measured**: timed by n/a; cores n/a; page cache at load n/a (unsupported); no sampler"


def test_the_first_step_stands_apart() -> None:
    case = make_case(label="ti2v_5b")
    stages = tuple(replace(stage, duration_s=1.31) if stage.name == "Step_0_Inference" else stage for stage in make_stages(case))
    assert line(report([make_record(case, stages=stages)]), "- **First Step**") == (
        "- **First Step**: 1.31 times the median of the others (1.000 s); the average holds it"
    )


def test_what_the_gpu_achieved_is_told_with_its_share_of_the_peak_or_why_there_is_none() -> None:
    case = make_a14b(label="ti2v_5b", weights="hub")
    record = make_record(case, stages=make_stages(case, step_s=30.0))
    told = line(report([on_gpu(record, "NVIDIA H200")]), "- **Achieved**")
    assert " TFLOP/s, MFU " in told
    assert told.endswith(" %")
    assert line(report([on_gpu(record, "NVIDIA Riva 128")]), "- **Achieved**").endswith("MFU n/a (NVIDIA Riva 128 is not in the GPU table)")
    assert "n/a (tiny weights are not the network" in line(report([run()]), "- **Achieved**")


def test_a_run_that_was_measured_in_full_and_is_healthy_has_no_significant_bottleneck() -> None:
    case = make_a14b(label="t2v_a14b", weights="hub", steps=40)
    figures = {"sm_active_pct": 99.0, "dram_active_pct": 40.0, "cpu_pct": 100.0, "throttle_power_s": 0.0, "throttle_thermal_s": 0.0}
    memory = {"peak_allocated_bytes": 50.0 * GIB, "peak_reserved_bytes": 52.0 * GIB, "device_used_bytes": 53.0 * GIB}
    record = make_record(case, stages=with_figures(make_stages(case), **figures, **memory))
    record = replace(on_gpu(record, "NVIDIA H200", total_bytes=140 * GIB), weights_cached=Figure(value=1.0))
    text = report([record])
    assert "No significant bottlenecks detected: every rule had its data and none applied." in text
    assert "Peak GPU Memory reached 50.00 GiB, 35.7 % of what NVIDIA H200 has." in text
    assert "Not checked" not in text


def test_rules_that_lack_the_same_thing_share_its_mention() -> None:
    text = report([run()])
    assert "low SM activity, bound by device memory (SM activity unknown)" in text
    assert "memory near the GPU's limit, VAE decode setting the memory peak, allocator fragmentation (GPU memory unknown)" in text


def test_trials_beside_it_and_lost_attempts_are_told_beside_the_figures() -> None:
    record = replace(run(), shared_with=("other #0",), earlier_attempts=("attempt 1: its node went away",))
    text = report([record])
    assert line(text, "- **Node shared with**") == "- **Node shared with**: other #0"
    assert line(text, "- **Tried again**") == "- **Tried again**: attempt 1: its node went away"
    assert "Node shared with" not in report([run()])


def test_a_case_that_failed_shows_the_end_of_its_log() -> None:
    failed = replace(make_record(make_case(label="ti2v_5b"), outcome=Outcome.CRASH, reason="rank 1: it died"), log_tail=("one | two", "```"))
    assert "### Log of the Rank that Failed\n\n````text\none | two\n```\n````" in report([failed])
    assert "Log of the Rank" not in report([run()])


def told_beside(record: Record, **foretold: object) -> str:
    """The lines on a case of which a plan said that."""
    plan = {"verdict": "run", "reason": "", "predicted_total_s": None, "predicted_step_s": None, "predicted_peak_bytes": None, **foretold}
    sweep = replace(read_request(["+sweep=quick"]).sweep, cases=(record.case,))
    text = render(tabulate(sweep, environment(), [record], (), {record.case.id: plan}))
    return "\n".join(line for line in text.splitlines() if line.startswith(("- **Predicted", "- **Prediction")))


FORETOLD = {"predicted_total_s": 9.3, "predicted_step_s": 1.2, "predicted_peak_bytes": 3 * GIB}


def test_every_case_shows_what_was_predicted_beside_what_was_measured() -> None:
    ran = told_beside(run(STEP, peak_allocated_bytes=3 * GIB), **FORETOLD)
    assert ran == "- **Predicted**: time 9.30 s (measured 7.75 s, +20.0 %), step 1.200 s (measured 1.000 s, +20.0 %), " + (
        "peak 3.00 GiB (measured 3.00 GiB, +0.0 %)"
    )
    for outcome in (Outcome.SKIPPED, Outcome.CRASH, Outcome.INVALID):
        left = told_beside(make_record(make_case(), outcome=outcome, reason="why", stages=()), **FORETOLD)
        assert left == "- **Predicted**: time 9.30 s (measured n/a), step 1.200 s (measured n/a), peak 3.00 GiB (measured n/a)"
    mini = told_beside(run(STEP))
    assert mini.startswith("- **Predicted**: time n/a (measured 7.75 s), step n/a (measured 1.000 s), peak n/a (measured n/a); ")
    assert "nothing is predicted of miniatures" in mini


@pytest.mark.parametrize(
    ("outcome", "reason", "peak_gib", "step_s", "wrong"),
    [
        (Outcome.OOM, "", 3, 1.2, "it was to fit, and ran out of memory"),
        (Outcome.OOM, "will not fit by 1.0 GiB", 3, 1.2, ""),
        (Outcome.OK, "will not fit by 1.0 GiB", 3, 1.2, "it was not to run (will not fit by 1.0 GiB), and did"),
        (Outcome.OK, "", 4, 1.2, "the peak is off by more than the 5 % that the plan claims"),
        (Outcome.OK, "", 3, 0.7, "the step is off by more than the 25 % that the plan claims"),
        (
            Outcome.OK,
            "",
            4,
            1.5,
            "the peak is off by more than the 5 % that the plan claims and the step is off by more than the 25 % that the plan claims",
        ),
        (Outcome.OK, "", 3, 1.2, ""),
        (Outcome.CRASH, "", 4, 1.5, ""),
    ],
)
def test_a_prediction_that_was_wrong_is_said_aloud(outcome: Outcome, reason: str, peak_gib: int, step_s: float, wrong: str) -> None:
    ran = run(STEP, peak_allocated_bytes=3 * GIB)
    text = told_beside(
        replace(ran, outcome=outcome), **{**FORETOLD, "predicted_peak_bytes": peak_gib * GIB, "predicted_step_s": step_s, "reason": reason}
    )
    assert text.partition("\n")[2] == (f"- **Prediction was wrong**: {wrong}" if wrong else "")

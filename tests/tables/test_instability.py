from __future__ import annotations

from dataclasses import replace

import pytest

from tests.conftest import make_case
from tests.makers import make_record, make_stages, missing, on_gpu, sampled, with_figures
from wansweep.record import Figure, Outcome, Record, SamplerFacts, StageKind
from wansweep.tables.instability import warnings
from wansweep.telemetry.nvml import Gpu

TOTAL, STEP = StageKind.TOTAL_EXECUTION, StageKind.STEP_INFERENCE


def run(*kinds: StageKind, trial: int = 0, step_s: float = 1.0, **figures: float | Figure) -> Record:
    case = make_case()
    stages = with_figures(make_stages(case, step_s=step_s), *kinds, **figures)
    return on_gpu(make_record(case, trial=trial, stages=stages), "NVIDIA H200")


def make_gpu(*, sm_clock_max_mhz: int | None) -> Gpu:
    facts = dict.fromkeys(Gpu.__dataclass_fields__)
    return Gpu(**{**facts, "uuid": "GPU-0", "gpm": True, "sm_clock_max_mhz": sm_clock_max_mhz})  # type: ignore[arg-type]


def test_a_quiet_run_has_no_warning() -> None:
    quiet = {"throttle_thermal_s": 0.0, "throttle_power_s": 0.5, "compute_processes": sampled(1), "swap_used_bytes": sampled(0)}
    steps = with_figures(run(TOTAL, **quiet).stages, sm_active_pct=sampled(99), sm_clock_mhz=sampled(1950, largest=1980))
    record = replace(run(), stages=steps, sampler=SamplerFacts(cpu_s=0.02, wall_s=20.0, nvml_s=0.1))
    assert warnings([record], [make_gpu(sm_clock_max_mhz=1980)]) == []
    assert warnings([]) == []


@pytest.mark.parametrize(
    ("kind", "figures", "told"),
    [
        (TOTAL, {"throttle_thermal_s": 2.5}, "The GPU was too hot for 2.5 s of 7.8 s (trial 0, rank 0)."),
        (TOTAL, {"throttle_hw_power_brake_s": 0.5}, "The GPU was braked by the power supply for 0.5 s of 7.8 s (trial 0, rank 0)."),
        (TOTAL, {"throttle_power_s": 3.1}, "The power limit held the clocks down for 40 % of the run (trial 0, rank 0)."),
        (TOTAL, {"compute_processes": sampled(1.2, largest=2)}, "2 processes computed on one GPU, of which one is ours (trial 0, rank 0)."),
        (TOTAL, {"swap_used_bytes": sampled(2**29, largest=2**30)}, "The machine had up to 1.00 GiB in swap (trial 0, rank 0)."),
        (
            STEP,
            {"sm_clock_mhz": sampled(1500, largest=1980)},
            "The SM clock was 76 % of its highest: 1500 MHz in the steps, it reached 1980 MHz.",
        ),
        (
            STEP,
            {"sm_active_pct": replace(missing("gap"), coverage=0.4)},
            "Samples speak for less than 80 % of 4 stage(s); least in Step_0_Inference: 40 %.",
        ),
    ],
)
def test_each_disturbance_is_told_with_its_number(kind, figures, told) -> None:
    assert warnings([run(kind, **figures)]) == [told]


def test_a_clock_is_judged_by_what_the_card_can_where_that_is_known() -> None:
    record = run(STEP, sm_clock_mhz=sampled(1700, largest=1710))
    assert warnings([record]) == []
    assert warnings([record], [make_gpu(sm_clock_max_mhz=1980)]) == [
        "The SM clock was 86 % of its highest: 1700 MHz in the steps, the card can 1980 MHz."
    ]


def test_a_sampler_that_failed_or_cost_much_is_told() -> None:
    record = replace(run(), sampler=SamplerFacts(cpu_s=2.0, wall_s=20.0, nvml_s=0.1, errors=("trace: No space left on device",)))
    assert warnings([record]) == [
        "The sampler could not do 1 thing(s); the first: trace: No space left on device",
        "The sampler took 10.0 % of a core (trial 0).",
    ]


def test_a_stage_too_short_for_samples_is_no_gap() -> None:
    assert warnings([run(StageKind.VAE_DECODING, sm_active_pct=missing("too_short"))]) == []


def test_warm_and_cold_together_are_told() -> None:
    told = warnings([run(), replace(run(trial=1), warm=True)])
    assert told == ["1 cold trial(s) stand in no figure beside 1 warm one(s): first-run effects and a median do not mix."]


def test_a_slow_first_trial_asks_for_a_warm_up() -> None:
    told = warnings([run(step_s=2.0), run(trial=1), run(trial=2)])
    assert told == ["The first trial took 1.52 times the median of the others: warm up before measuring (procedure.warmups=1)."]


def test_trials_beside_it_on_the_node_are_told() -> None:
    others = tuple(f"c{number} #0" for number in range(6))
    assert warnings([replace(run(), shared_with=others[:2]), replace(run(trial=1), shared_with=others)]) == [
        "The node was shared with 6 other trial(s) (c0 #0, c1 #0, c2 #0, c3 #0 and 2 more); cluster.exclusive=true measures each alone."
    ]


def test_a_failed_trial_disturbs_nothing() -> None:
    assert warnings([replace(run(TOTAL, throttle_thermal_s=9.0), outcome=Outcome.OOM)]) == []


def test_a_sampler_is_not_judged_by_its_start() -> None:
    record = replace(run(), sampler=SamplerFacts(cpu_s=0.2, wall_s=1.2, nvml_s=None))
    assert not [warning for warning in warnings([record]) if "sampler" in warning]

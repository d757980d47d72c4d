"""The rules: each finds what it is for, with its numbers, keeps still where there is nothing, and says what it lacked."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from tests.conftest import make_a14b, make_case
from tests.makers import make_record, make_stages, on_gpu, with_figures
from tests.tables.seed import CASES, seed_stages
from wansweep.case import Case, Model
from wansweep.plan.architecture import ARCHITECTURES
from wansweep.record import Figure, Record, StageKind
from wansweep.tables import rules_device, rules_memory, rules_time
from wansweep.tables.analysis import RULES, analyse
from wansweep.tables.finding import Finding, NoData, Rule
from wansweep.tables.frames import stages_frame
from wansweep.tables.rules_time import transformer_parameters
from wansweep.tables.typical import typical_stages
from wansweep.units import GIB

STEP, LOADING, VAE, TOTAL = StageKind.STEP_INFERENCE, StageKind.STEP_LOADING, StageKind.VAE_DECODING, StageKind.TOTAL_EXECUTION
SEED = dict(CASES)
LIMIT = int(79.15 * GIB)  # of an A100 80GB, as torch has it


def gpu_case(**fields: object) -> Case:
    return make_a14b(weights="hub", **fields)


def run(*kinds: StageKind, case: Case | None = None, device: str = "NVIDIA A100-SXM4-80GB", **figures: float | Figure) -> Record:
    """A run of 7.75 s with the figures on stages of the kinds (on all, when none is named)."""
    case = case or gpu_case()
    return on_gpu(make_record(case, stages=with_figures(make_stages(case), *kinds, **figures)), device, total_bytes=LIMIT)


def ask(rule: Rule, record: Record) -> Finding | NoData | None:
    return rule(typical_stages(stages_frame([record]).lazy()).collect(), record)


def found(rule: Rule, record: Record) -> str:
    answer = ask(rule, record)
    assert isinstance(answer, Finding), answer
    assert answer.action
    return answer.evidence


def lacked(rule: Rule, record: Record) -> str:
    answer = ask(rule, record)
    assert isinstance(answer, NoData), answer
    return answer.lacked


def longer(record: Record, stage: str, duration_s: float) -> Record:
    return replace(record, stages=tuple(replace(s, duration_s=duration_s) if s.name == stage else s for s in record.stages))


# ---- the seed report, from its printed figures ----


def seed_record(device: str, *, total_bytes: int | None = None, **resolved: object) -> Record:
    return on_gpu(make_record(gpu_case(steps=5)), device, total_bytes=total_bytes, **resolved)


def test_the_seeds_expert_swap_ran_at_a_fortieth_of_the_link() -> None:
    stages, _ = seed_stages(SEED["04_14B_Speed_Preview_480p"])
    # It loaded one expert in fp32: 53.74 GB allocated after Step_0_Loading, 14.288e9 weights x 4 bytes.
    record = seed_record("NVIDIA A100-SXM4-80GB", dtypes={"transformer": "float32"})
    answer = rules_time.swap_against_link(stages, record)
    assert isinstance(answer, Finding)
    assert answer.evidence == "Step_4_Loading: 69.8 s for 53.2 GiB = 0.8 GB/s of 31.5 GB/s; the link alone needs 1.8 s."


def test_the_seeds_peak_of_82_gb_is_judged_by_the_gpu_that_ran() -> None:
    stages, _ = seed_stages(SEED["04_14B_Speed_Preview_480p"])

    def near_limit(device: str, total_bytes: int) -> Finding | NoData | None:
        return rules_memory.near_limit(stages, seed_record(device, total_bytes=total_bytes))

    assert near_limit("NVIDIA H200", int(139.72 * GIB)) is None
    near = near_limit("a GPU of 90 GiB", 90 * GIB)
    assert isinstance(near, Finding)
    assert near.evidence == "82.60 GiB allocated are 92 % of the 90.00 GiB of a GPU of 90 GiB."
    # The seed report itself named an L40S, which cannot be.
    beyond = near_limit("NVIDIA L40S", int(44.40 * GIB))
    assert isinstance(beyond, Finding)
    assert "186 % of the 44.40 GiB of NVIDIA L40S" in beyond.evidence
    assert "not this run's" in beyond.action


def test_the_seeds_text_encoding_left_the_gpu_idle() -> None:
    findings, _ = analyse(seed_stages(SEED["01_5B_Speed_Preview_704p"])[0])
    assert any("T5_Encoding takes 14.34 s of 143.10 s (10 %) with the GPU 0.0 % active" in finding.evidence for finding in findings)


def test_the_seeds_decode_sets_the_memory_peak_of_case_03() -> None:
    findings, _ = analyse(seed_stages(SEED["03_5B_Performance_Mode_704p"])[0])
    assert "VAE_Decoding sets the memory peak: 42.17 GiB, where the steps need 31.27 GiB." in [finding.evidence for finding in findings]


def test_without_a_record_the_rules_that_need_one_say_what_they_lack() -> None:
    _, without_data = analyse(seed_stages(SEED["04_14B_Speed_Preview_480p"])[0])
    assert {"expert swap against the link", "cold load", "memory near the GPU's limit", "fp32 weights under autocast"} <= {
        rule.rule for rule in without_data
    }


# ---- each rule ----


def test_an_experts_size_is_that_of_its_published_weights() -> None:
    sizes = {model: transformer_parameters(architecture.transformer) for model, architecture in ARCHITECTURES.items()}
    # sum(p.numel()) of diffusers' WanTransformer3DModel on the meta device, with each checkpoint's config.
    assert sizes == {Model.TI2V_5B: 4_999_787_712, Model.T2V_A14B: 14_288_491_584, Model.I2V_A14B: 14_288_901_184}


def test_a_cold_load_is_told_with_the_disks_rate() -> None:
    record = replace(run(StageKind.MODEL_INITIALIZATION, read_bytes=3e9), weights_cached=Figure(value=0.1))
    assert "held 10 % of the weights" in found(rules_time.cold_load, record)
    assert "2.79 GiB from disk at 1.50 GB/s" in found(rules_time.cold_load, record)
    assert ask(rules_time.cold_load, replace(record, weights_cached=Figure(value=0.9))) is None
    assert "page cache" in lacked(rules_time.cold_load, run())


def test_a_swap_at_the_links_pace_is_no_finding() -> None:
    # 26.6 GiB of bf16: 1.1 s at 80 % of 31.5 GB/s.
    assert ask(rules_time.swap_against_link, longer(run(), "Step_2_Loading", 1.2)) is None
    assert "26.6 GiB = 1.4 GB/s" in found(rules_time.swap_against_link, longer(run(), "Step_2_Loading", 20.0))


def test_a_swap_on_an_unknown_card_lacks_the_link_and_one_of_miniatures_the_size() -> None:
    assert lacked(rules_time.swap_against_link, longer(run(device="NVIDIA Riva 128"), "Step_2_Loading", 9.0)) == "the link's bandwidth"
    assert lacked(rules_time.swap_against_link, longer(run(case=make_a14b()), "Step_2_Loading", 9.0)) == "the expert's size"


def test_idle_sms_beside_a_busy_device_memory_are_bound_by_it() -> None:
    assert "Step_0_Inference 75.0 %" in found(rules_device.memory_bound, run(STEP, sm_active_pct=60.0, dram_active_pct=75.0))
    assert ask(rules_device.memory_bound, run(STEP, sm_active_pct=99.0, dram_active_pct=75.0)) is None
    assert lacked(rules_device.memory_bound, run(STEP, sm_active_pct=60.0)) == "DRAM activity"


def test_an_idle_gpu_beside_a_busy_core_is_bound_by_the_host_whichever_source_says_so() -> None:
    for source in ("sm_active_pct", "gpu_busy_pct"):
        assert "55.0 % active while the host uses 99 % of a core" in found(rules_device.host_bound, run(STEP, cpu_pct=99.0, **{source: 55.0}))
    assert ask(rules_device.host_bound, run(STEP, cpu_pct=99.0, sm_active_pct=95.0)) is None
    assert ask(rules_device.host_bound, run(STEP, cpu_pct=20.0, sm_active_pct=55.0)) is None
    assert lacked(rules_device.host_bound, run(STEP, sm_active_pct=55.0)) == "CPU seconds"


def test_gpu_busy_is_no_sm_activity() -> None:
    assert lacked(rules_device.low_sm, run(STEP, gpu_busy_pct=20.0)) == "SM activity"


def test_t5_on_the_cpu_is_no_bottleneck_where_everything_is() -> None:
    record = longer(make_record(make_case()), "T5_Encoding", 9.0)
    assert ask(rules_device.t5_on_cpu, record) is None
    assert lacked(rules_device.t5_on_cpu, longer(run(), "T5_Encoding", 9.0)) == "GPU activity"
    assert ask(rules_device.t5_on_cpu, run()) is None  # 1 s is no bottleneck wherever it ran


def test_capping_by_power_and_by_heat_are_told_apart() -> None:
    record = run(TOTAL, throttle_power_s=3.1, throttle_thermal_s=0.0)
    assert found(rules_device.power_capped, record) == "The power limit held the clocks down for 3.10 s of 7.75 s (40 %)."
    assert ask(rules_device.thermally_capped, record) is None
    assert "Heat held" in found(rules_device.thermally_capped, run(TOTAL, throttle_thermal_s=1.0))
    assert lacked(rules_device.power_capped, run()) == "throttle time"


@pytest.mark.parametrize("figure", ["device_used_bytes", "peak_reserved_bytes", "peak_allocated_bytes"])
def test_memory_is_near_the_limit_by_whichever_figure_is_largest(figure: str) -> None:
    assert "are 96 % of the 79.15 GiB of NVIDIA A100-SXM4-80GB" in found(rules_memory.near_limit, run(VAE, **{figure: 76.0 * GIB}))
    assert ask(rules_memory.near_limit, run(VAE, **{figure: 70.0 * GIB})) is None


def test_the_smallest_card_and_the_slowest_link_of_a_gang_decide() -> None:
    record = longer(run(case=gpu_case(gpus=2, ulysses=2), peak_reserved_bytes=44.0 * GIB), "Step_2_Loading", 2.0)
    large, small = record.ranks
    # 26.6 GiB in 2 s are 23 % of PCIe 5 and 46 % of PCIe 4.
    mixed = (replace(large, device_name="NVIDIA H200", device_total_bytes=140 * GIB), replace(small, device_total_bytes=48 * GIB))
    assert "92 % of the 48.00 GiB of NVIDIA A100" in found(rules_memory.near_limit, replace(record, ranks=mixed))
    assert ask(rules_time.swap_against_link, replace(record, ranks=mixed)) is None
    assert "of 63.0 GB/s" in found(rules_time.swap_against_link, replace(record, ranks=mixed[:1]))


def test_memory_without_a_limit_or_a_figure_is_no_answer() -> None:
    assert lacked(rules_memory.near_limit, run()) == "GPU memory"
    assert lacked(rules_memory.near_limit, replace(run(peak_reserved_bytes=GIB), ranks=())) == "the memory that the GPU has"


def test_reserved_far_over_allocated_is_fragmentation() -> None:
    assert "reserved 60.00 GiB for a peak of 40.00 GiB" in found(
        rules_memory.fragmentation, run(peak_allocated_bytes=40.0 * GIB, peak_reserved_bytes=60.0 * GIB)
    )
    assert ask(rules_memory.fragmentation, run(peak_allocated_bytes=40.0 * GIB, peak_reserved_bytes=44.0 * GIB)) is None
    assert lacked(rules_memory.fragmentation, run(peak_allocated_bytes=GIB)) == "GPU memory"


def test_fp32_weights_are_a_finding_unless_they_were_asked_for() -> None:
    wide = {"transformer": "float32", "transformer_2": "float32", "vae": "float32"}
    record = run()
    assert record.resolved is not None
    record = replace(record, resolved=replace(record.resolved, dtypes=wide))
    assert "transformer and transformer_2 are float32 in a case in bf16" in found(rules_memory.fp32_weights, record)
    assert ask(rules_memory.fp32_weights, replace(record, case=gpu_case(dtype="fp32"))) is None
    assert ask(rules_memory.fp32_weights, run()) is None  # the VAE always is


def test_nothing_is_found_and_nothing_lacks_data_in_a_healthy_run_that_was_measured_in_full() -> None:
    case = gpu_case(steps=40)
    figures = {"sm_active_pct": 99.0, "dram_active_pct": 40.0, "cpu_pct": 100.0, "throttle_power_s": 0.0, "throttle_thermal_s": 0.0}
    memory = {"peak_allocated_bytes": 50.0 * GIB, "peak_reserved_bytes": 52.0 * GIB, "device_used_bytes": 53.0 * GIB}
    record = on_gpu(make_record(case, stages=with_figures(make_stages(case), **figures, **memory)), "NVIDIA A100-SXM4-80GB", total_bytes=LIMIT)
    record = replace(record, weights_cached=Figure(value=1.0))
    assert analyse(typical_stages(stages_frame([record]).lazy()).collect(), record) == ([], [])


def test_every_rule_bears_a_run_that_measured_nothing() -> None:
    empty = stages_frame([make_record(make_case(), stages=())])
    assert len(RULES) == len(set(RULES))
    for frame in (empty, stages_frame([make_record(make_case())]), pl.DataFrame(schema=empty.schema)):
        analyse(frame)

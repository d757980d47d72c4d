from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.plan.cases import five, image, large, small
from wansweep.case import Case, Model
from wansweep.levers import Attention, Cache, Dtype, Offload, Quant, TextEncoder
from wansweep.plan.architecture import ARCHITECTURES
from wansweep.plan.memory import Memory, memory
from wansweep.plan.stack import DIFFUSERS, OFFICIAL, Stack
from wansweep.plan.traces import Traces
from wansweep.record import StageKind
from wansweep.units import GIB

TRACES = Traces()
STEPS, DECODE, T5, ENCODE = StageKind.STEP_INFERENCE, StageKind.VAE_DECODING, StageKind.T5_ENCODING, StageKind.PREPROCESS


def of(case: Case, stack: Stack = DIFFUSERS) -> Memory:
    return memory(case, ARCHITECTURES[case.model], TRACES, stack)


def gib(case: Case, stage: StageKind | None = None) -> float:
    found = of(case)
    return (found.peak_bytes if stage is None else found.stages_bytes[stage]) / GIB


@pytest.mark.parametrize(
    ("case", "published"),
    [(large(offload=Offload.MODEL), 59.8), (small(offload=Offload.MODEL), 41.3), (five(offload=Offload.MODEL, text_encoder="cpu"), 22.9)],
)
def test_the_official_codes_peaks_are_within_five_percent(case: Case, published: float) -> None:
    case = replace(case, text_encoder=TextEncoder(case.text_encoder))
    assert of(case, OFFICIAL).peak_bytes / GIB == pytest.approx(published, rel=0.05)


@pytest.mark.parametrize(
    ("case", "published"),
    [
        (small(gpus=4, ulysses=4, fsdp=True), 40.9),
        (small(gpus=8, ulysses=8, fsdp=True), 26.3),
        (large(gpus=4, ulysses=4, fsdp=True), 51.7),
        (large(gpus=8, ulysses=8, fsdp=True), 37.1),
    ],
)
def test_its_peaks_on_several_gpus_are_nearer_still(case: Case, published: float) -> None:
    assert of(case, OFFICIAL).peak_bytes / GIB == pytest.approx(published, rel=0.025)


def test_everything_resident_is_the_sum_of_what_is_known() -> None:
    # Both experts, T5 and VAE, and a step beside them (research: 72.4), or a decode with its workspaces.
    assert gib(large(), STEPS) == pytest.approx(2 * 26.67 + 10.58 + 0.47 + 8.02, rel=0.01)
    assert gib(large(), DECODE) == pytest.approx(2 * 26.67 + 10.58 + 0.47 + 1.08 * 17.55, rel=0.01)
    assert of(large()).peak_stage is DECODE


def test_model_offload_leaves_one_expert_in_the_steps() -> None:
    assert gib(large(offload=Offload.MODEL), STEPS) == pytest.approx(26.67 + 8.02, rel=0.02)
    assert of(large(offload=Offload.MODEL)).peak_stage is STEPS
    assert gib(large(offload=Offload.MODEL), T5) == pytest.approx(10.7, abs=0.2)


def test_the_experts_swap_keeps_t5_and_vae_where_they_are() -> None:
    resident, swapped = (gib(large(offload=mode), STEPS) for mode in (Offload.NONE, Offload.EXPERT))
    assert resident - swapped == pytest.approx(26.67, abs=0.01)


def test_i2v_encodes_the_whole_clip() -> None:
    assert gib(image(offload=Offload.MODEL), ENCODE) == pytest.approx(10.58 + 0.47 + 1.08 * 12.95, rel=0.03)
    assert gib(large(offload=Offload.MODEL), ENCODE) < 1


@pytest.mark.parametrize(("case", "known"), [(small(), 1.70), (large(), 3.91), (five(), 5.71)])
def test_a_tiled_decode_takes_what_whole_traces_say(case: Case, known: float) -> None:
    tiled = replace(case, vae_tiling=True, offload=Offload.MODEL)
    vae = 0.47 if case.model is not Model.TI2V_5B else 2.63
    assert gib(tiled, DECODE) - vae == pytest.approx(known, rel=0.25)


def test_math_attention_holds_all_scores() -> None:
    assert gib(small(attention=Attention.NATIVE_MATH), STEPS) - gib(small(), STEPS) == pytest.approx(8 * 40 * 32_760**2 / GIB, rel=1e-3)


def test_quantised_weights_make_room() -> None:
    assert gib(large(), STEPS) - gib(large(quant=Quant.TORCHAO_INT8), STEPS) == pytest.approx(26.2, abs=0.5)


def test_caches_take_what_they_keep() -> None:
    stream = 32_760 * 5120 * 2 / GIB
    assert gib(small(cache=Cache.PAB), STEPS) - gib(small(), STEPS) == pytest.approx(40 * 2 * 2 * stream, rel=1e-3)
    assert gib(small(cache=Cache.MAG), STEPS) - gib(small(), STEPS) == pytest.approx(2 * 2 * stream, rel=1e-3)


def test_t5_on_the_cpu_or_dropped_is_not_beside_the_steps() -> None:
    for where in (TextEncoder.CPU, TextEncoder.DROPPED):
        assert gib(large(), STEPS) - gib(large(text_encoder=where), STEPS) == pytest.approx(10.58, abs=0.01)


def test_random_weights_are_made_plain_on_the_device_before_they_are_quantised() -> None:
    found = of(large(weights="random", quant=Quant.TORCHAO_INT8))
    assert found.stages_bytes[StageKind.MODEL_INITIALIZATION] / GIB == pytest.approx(2 * 26.67 + 10.58 + 0.47, rel=0.01)
    assert StageKind.MODEL_INITIALIZATION not in of(large()).stages_bytes


def test_host_memory_is_what_is_parked_there() -> None:
    weights = 2 * 26.67 + 10.58 + 0.47
    host = {mode: of(large(offload=mode)).host_bytes / GIB for mode in Offload}
    assert host[Offload.MODEL] == pytest.approx(3 + weights, rel=0.01)
    assert host[Offload.EXPERT_PINNED] == pytest.approx(3 + 2 * 40.5 + 10.58 + 0.47, rel=0.01)
    assert host[Offload.GROUP_BLOCK] > host[Offload.MODEL]
    # Mapped files are one copy for all ranks; what a rank pins is its own.
    assert of(large(gpus=8, ulysses=8)).host_bytes / GIB == pytest.approx(8 * 3 + weights, rel=0.01)
    assert of(large(weights="random")).host_bytes / GIB == pytest.approx(3, rel=0.01)


def test_the_gpu_holds_a_context_beside_and_nccl_with_several_ranks() -> None:
    one, two = of(large()), of(large(gpus=2, ulysses=2))
    assert 0 < one.beside_bytes < two.beside_bytes
    assert one.excess_bytes(one.peak_bytes + one.beside_bytes) == 0


def cases() -> st.SearchStrategy[Case]:
    """Cases at two sizes and three lengths, with the levers that decide memory."""
    return st.builds(
        lambda tall, frames, levers: (large if tall else small)(frames=frames, **levers),
        st.booleans(),
        st.sampled_from([5, 17, 49]),
        st.fixed_dictionaries(
            {
                "offload": st.sampled_from(list(Offload)),
                "vae_tiling": st.booleans(),
                "quant": st.sampled_from([Quant.NONE, Quant.TORCHAO_INT8]),
                "text_encoder": st.sampled_from([TextEncoder.PLACED, TextEncoder.DROPPED]),
                "vae_dtype": st.sampled_from([Dtype.FP32, Dtype.BF16]),
            }
        ),
    )


QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(cases())
def test_more_frames_or_videos_never_take_less(case: Case) -> None:
    assert of(replace(case, frames=case.frames + 32)).peak_bytes >= of(case).peak_bytes
    assert of(replace(case, batch=2)).peak_bytes >= of(case).peak_bytes


@QUICK
@given(cases())
def test_offload_never_takes_more_of_a_gpu_than_none(case: Case) -> None:
    assert of(case).peak_bytes <= of(replace(case, offload=Offload.NONE)).peak_bytes + GIB // 4


@QUICK
@given(cases(), st.sampled_from([2, 4]))
def test_more_ranks_never_take_more_of_each(case: Case, ranks: int) -> None:
    case = replace(case, frames=81)
    assert of(replace(case, gpus=ranks, ulysses=ranks)).peak_bytes <= of(case).peak_bytes

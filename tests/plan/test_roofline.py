from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.plan.cases import five, large, small
from wansweep.case import Case
from wansweep.hardware import GPUS
from wansweep.levers import Attention, Cache, Compile, Offload, Quant, TextEncoder
from wansweep.plan.architecture import ARCHITECTURES
from wansweep.plan.rates import Calibration
from wansweep.plan.roofline import Times, computed_share, times
from wansweep.plan.stack import DIFFUSERS, FUSED, OFFICIAL, SGLANG, Stack
from wansweep.plan.traces import Traces

TRACES = Traces()


def of(case: Case, gpu: str = "h100", stack: Stack = DIFFUSERS, calibration: Calibration | None = None) -> Times:
    return times(case, ARCHITECTURES[case.model], GPUS[gpu], TRACES, stack=stack, calibration=calibration)


def seconds(case: Case, gpu: str = "h100", stack: Stack = DIFFUSERS) -> float:
    found = of(case, gpu, stack).generation_s
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("case", "gpu", "published"),
    [
        (large(offload=Offload.MODEL), "h100", 1041.5),
        (small(offload=Offload.MODEL), "h100", 326.9),
        (five(offload=Offload.MODEL, text_encoder=TextEncoder.CPU), "rtx4090", 534.7),
    ],
)
def test_the_official_codes_times_on_one_gpu_are_within_ten_percent(case: Case, gpu: str, published: float) -> None:
    assert seconds(case, gpu, OFFICIAL) == pytest.approx(published, rel=0.10)


@pytest.mark.parametrize(("gpus", "published"), [(4, 288.7), (8, 155.1)])
def test_and_on_several_within_a_quarter(gpus: int, published: float) -> None:
    assert seconds(large(gpus=gpus, ulysses=gpus, fsdp=True), "h100", OFFICIAL) == pytest.approx(published, rel=0.25)


def test_offload_is_nearly_free_for_a_long_run_and_dear_for_a_short_one() -> None:
    # 720p, 81 frames, 40 steps: +0.24 % were measured for the experts' swap. 480p, 17 frames, 4 steps: +60 % for streamed layers.
    long = seconds(large(offload=Offload.EXPERT_PINNED), "h100", FUSED) / seconds(large(), "h100", FUSED)
    assert 1 < long < 1.01
    assert seconds(large(offload=Offload.GROUP_LEAF), "h100", FUSED) / seconds(large(), "h100", FUSED) < 1.02
    short = small(frames=17, steps=4)
    assert seconds(replace(short, offload=Offload.GROUP_LEAF), "h200", FUSED) / seconds(short, "h200", FUSED) > 1.6


@pytest.mark.parametrize(("offload", "published"), [(Offload.NONE, 4.22), (Offload.GROUP_LEAF, 6.77)])
def test_a_short_clip_of_an_engine_that_brings_t5_for_each_video_is_within_a_quarter(offload: Offload, published: float) -> None:
    case = small(frames=17, steps=4, vae_offload=True, offload=offload)
    assert seconds(case, "h200", SGLANG) == pytest.approx(published, rel=0.25)
    # 1.01 s on two H100; nearly nothing where T5 stays on the GPU in 16 bits.
    assert of(case, stack=SGLANG).text_encode_s == pytest.approx(1.01, rel=0.25)
    assert of(small(), stack=FUSED).text_encode_s < 0.05


def test_a_vae_that_leaves_for_pageable_memory_costs_a_short_clip_its_copy_back() -> None:
    # 5.91 s were published; without the copies of its 2.8 GB the prediction was 3.2.
    away = five(frames=17, steps=4, vae_offload=True)
    assert seconds(away, "h200", SGLANG) == pytest.approx(5.91, rel=0.25)
    cost_s = of(away, "h200").vae_decode_s - of(replace(away, vae_offload=False), "h200").vae_decode_s
    assert cost_s == pytest.approx(2.82 / 8.4 + 2.82 / 2.3, rel=0.01)


def test_model_offload_copies_back_what_leaves_and_expert_offload_drops_it() -> None:
    kept, copied = of(small(offload=Offload.EXPERT)), of(small(offload=Offload.MODEL))
    # Both experts come either way, 28.6 GB each; T5 and the first expert leave in the loop, the second for the VAE.
    assert kept.swap_s == pytest.approx(2 * 28.6 / 8.4, rel=0.01)
    assert copied.swap_s - kept.swap_s == pytest.approx((11.4 + 28.6) / 2.3, rel=0.01)
    assert copied.vae_decode_s - kept.vae_decode_s == pytest.approx(28.6 / 2.3 + 0.5 / 8.4, rel=0.01)


def test_a_vae_whose_layers_are_brought_as_they_are_called_comes_once_a_latent_frame() -> None:
    kept, hidden, added, both = (
        of(small(**levers)).vae_decode_s
        for levers in (
            {},
            {"offload": Offload.GROUP_LEAF},
            {"offload": Offload.SEQUENTIAL},
            {"offload": Offload.GROUP_LEAF, "group_stream": False},
        )
    )
    assert hidden == kept
    assert added - kept == pytest.approx(21 * 0.508 / 8.4, rel=0.01)
    assert both - added == pytest.approx(21 * 0.508 / 2.3, rel=0.01)


def test_a_stream_hides_copies_that_are_shorter_than_the_computing() -> None:
    hidden, added = (of(large(offload=Offload.GROUP_BLOCK, group_stream=stream)).step_s for stream in (True, False))
    assert hidden == of(large()).step_s
    assert hidden is not None
    assert added is not None
    assert added > 1.1 * hidden


def test_sequential_offload_is_the_slowest() -> None:
    totals = {mode: of(small(frames=17, offload=mode)).step_s for mode in Offload}
    assert max(totals, key=lambda mode: totals[mode] or 0.0) in (Offload.SEQUENTIAL,)


@pytest.mark.parametrize(
    ("faster", "slower"),
    [
        (large(attention=Attention.FLASH_3_HUB), large()),
        (large(attention=Attention.SAGE), large()),
        (large(compile=Compile.REGIONAL), large()),
        (large(quant=Quant.TORCHAO_FP8_DYNAMIC), large()),
        (large(), large(quant=Quant.TORCHAO_FP8)),
        (large(), large(attention=Attention.NATIVE_MATH)),
        (large(guidance=1.0), large()),
        (large(gpus=2, cfg_parallel=2), large()),
        (large(cache=Cache.PAB), large()),
        (large(cache=Cache.TAYLORSEER), large(cache=Cache.PAB)),
    ],
)
def test_a_lever_moves_a_step_the_way_it_should(faster: Case, slower: Case) -> None:
    fast, slow = of(faster).step_s, of(slower).step_s
    assert fast is not None
    assert slow is not None
    assert fast < slow


def test_a_cache_that_looks_at_the_content_has_no_predicted_time() -> None:
    found = of(large(cache=Cache.FIRST_BLOCK))
    assert (found.step_s, found.total_s, found.generation_s) == (None, None, None)
    assert found.vae_decode_s > 0


def test_taylorseer_computes_its_first_steps_and_then_one_in_five() -> None:
    assert computed_share(large(cache=Cache.TAYLORSEER, steps=23), ARCHITECTURES[large().model]) == pytest.approx(7 / 23)


def test_both_branches_of_cfg_on_two_halves_halve_a_step() -> None:
    one, two = of(large()).step_s, of(large(gpus=2, cfg_parallel=2)).step_s
    assert one is not None
    assert two == pytest.approx(one / 2)


def test_total_is_the_sum_of_its_stages() -> None:
    found = of(large(offload=Offload.MODEL, compile=Compile.REGIONAL))
    assert found.step_s is not None
    parts = found.load_s + found.compile_s + found.text_encode_s + found.preprocess_s + found.swap_s + found.vae_decode_s
    assert found.total_s == pytest.approx(parts + 40 * found.step_s)
    assert min(found.load_s, found.compile_s, found.text_encode_s, found.swap_s, found.vae_decode_s) > 0


def test_a_calibration_scales_its_part_alone() -> None:
    plain, taught = of(large()), of(large(), calibration=Calibration(attention=2.0, vae=0.5))
    assert taught.forward.attention_s == pytest.approx(plain.forward.attention_s / 2)
    assert taught.forward.matmul_s == plain.forward.matmul_s
    assert taught.vae_decode_s == pytest.approx(2 * plain.vae_decode_s, rel=0.01)


QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(st.sampled_from(sorted(GPUS)), st.sampled_from([5, 17, 49]), st.sampled_from(list(Offload)), st.integers(1, 8))
def test_more_frames_and_more_steps_never_take_less(gpu: str, frames: int, offload: Offload, steps: int) -> None:
    case = small(frames=frames, offload=offload, steps=steps)
    assert seconds(replace(case, frames=frames + 32), gpu) >= seconds(case, gpu)
    assert seconds(replace(case, steps=steps + 1), gpu) >= seconds(case, gpu)


@QUICK
@given(st.sampled_from(sorted(GPUS)), st.sampled_from([2, 4, 8]))
def test_more_ranks_take_no_longer_but_for_what_they_exchange(gpu: str, ranks: int) -> None:
    one, many = of(small(), gpu).forward, of(small(gpus=ranks, ulysses=ranks), gpu).forward
    assert many.total_s - many.exchange_s <= one.total_s
    assert many.exchange_s > one.exchange_s == 0

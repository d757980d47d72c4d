"""Every lever that a CPU can pull, against the plain run within a stated bound; every other ends as invalid in diffusers' own words; and a
lever that did nothing is caught."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName

from tests.conftest import make_a14b, make_case
from tests.trial.test_generate import loaded
from tests.trial.trials import EIGHT_STEPS, LOSSY, ROUNDING, Runs
from wansweep.levers import Attention, Cache, Compile, Dtype, Offload, TextEncoder
from wansweep.plan.geometry import as_run
from wansweep.record import Outcome, Share
from wansweep.trial import attention, caches, compilation, offload, projections, vae
from wansweep.trial.invalid import Invalid
from wansweep.trial.placement import ExpertSwap, Placement

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    # torch's own compiler and torchao warn of what they will change.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

CPU = torch.device("cpu")


# Attention


def test_every_backend_of_diffusers_that_an_nvidia_machine_could_use_is_offered() -> None:
    other_hardware = {"_native_npu", "_native_xla", "aiter_fa2_hub"}
    assert {str(name) for name in Attention} == {name.value for name in AttentionBackendName} - other_hardware


@pytest.mark.parametrize(("backend", "bound"), [(Attention.NATIVE_FLASH, 0.0), (Attention.NATIVE_MATH, ROUNDING), (Attention.FLEX, ROUNDING)])
def test_an_attention_backend_makes_the_same_video(runs: Runs, backend: Attention, bound: float) -> None:
    error, resolved = runs.error(make_a14b(attention=backend))
    assert error <= bound
    assert resolved.attention == backend
    # Flex compiles itself, and that is in no step's time.
    assert (resolved.graphs or 0) == (2 if backend is Attention.FLEX else 0)


REFUSED = {
    Attention.NATIVE_CUDNN: "No viable backend for scaled_dot_product_attention",
    Attention.NATIVE_EFFICIENT: "No viable backend for scaled_dot_product_attention",
    Attention.FLASH: "not usable because of missing package",
    Attention.FLASH_3: "not usable because of missing package",
    Attention.SAGE: "not usable because of missing package",
    Attention.XFORMERS: "not usable because of missing package",
    Attention.FLASH_HUB: "`kernels` package isn't available",
    Attention.FLASH_3_HUB: "`kernels` package isn't available",
    Attention.SAGE_HUB: "`kernels` package isn't available",
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have them")
@pytest.mark.parametrize(("backend", "reason"), REFUSED.items())
def test_a_backend_that_a_cpu_lacks_is_invalid_in_the_library_s_words(runs: Runs, backend: Attention, reason: str) -> None:
    ending = runs.trial(make_a14b(attention=backend))
    assert ending.outcome is Outcome.INVALID
    assert ending.reason.startswith(f"attention={backend} on cpu: ")
    assert reason in ending.reason


def test_a_backend_that_only_one_expert_has_is_invalid() -> None:
    case = make_a14b(attention=Attention.NATIVE_MATH)
    pipe = loaded(case)
    pipe.transformer.set_attention_backend("_native_math")
    attention.check(pipe, case)  # the process's default reaches the other expert too
    pipe.transformer_2.set_attention_backend("native")
    with pytest.raises(Invalid, match="declared attention=_native_math, resolved native on transformer_2"):
        attention.check(pipe, case)


def test_a_backend_does_not_leak_into_the_next_case(runs: Runs) -> None:
    first, _ = runs.latents(make_a14b())
    other, _ = runs.latents(make_a14b(attention=Attention.NATIVE_MATH))
    again, resolved = runs.latents(make_a14b())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert resolved.attention == "native"


# VAE and projections


@pytest.mark.parametrize("make", [make_case, make_a14b])
def test_fused_projections_change_nothing(runs: Runs, make) -> None:
    error, resolved = runs.error(make(fused_qkv=True))
    assert error == 0.0
    assert resolved.fused_qkv


def test_projections_fused_in_one_expert_alone_are_invalid() -> None:
    pipe = loaded(make_a14b())
    pipe.transformer.fuse_qkv_projections()
    with pytest.raises(Invalid, match="declared fused_qkv=True, resolved False"):
        projections.check(pipe, make_a14b(fused_qkv=True))


@pytest.mark.parametrize("make", [make_case, make_a14b])
@pytest.mark.parametrize(("lever", "told"), [({"vae_dtype": Dtype.BF16}, ""), ({"vae_tiling": True}, "tiles of 32x32 pixels")])
def test_the_vae_s_levers_do_not_touch_the_latents(runs: Runs, make, lever: dict[str, object], told: str) -> None:
    error, resolved = runs.error(make(**lever))
    assert error == 0.0
    assert resolved.vae == told
    assert resolved.dtypes["vae"] == ("bfloat16" if "vae_dtype" in lever else "float32")


def test_vae_levers_that_were_not_pulled_are_invalid() -> None:
    pipe = loaded(make_a14b())
    with pytest.raises(Invalid, match="declared vae_dtype=bf16, resolved fp32"):
        vae.check(pipe, make_a14b(vae_dtype=Dtype.BF16))
    with pytest.raises(Invalid, match="declared vae_tiling=True, resolved False"):
        vae.check(pipe, make_a14b(vae_tiling=True))
    with pytest.raises(Invalid, match="resolved 0 tiled decodes"):
        vae.check_decodes(make_a14b(vae_tiling=True), decodes=1, tiled=0)
    small = replace(as_run(make_a14b(vae_tiling=True)), width=32, height=32)
    vae.apply(pipe, small)
    with pytest.raises(Invalid, match="resolved one tile: 32x32 is no larger than 32x32"):
        vae.check(pipe, small)


# Caches

CACHES = {
    "first_block": ({"cache": Cache.FIRST_BLOCK, "cache_threshold": 0.3}, (2, 2)),
    "taylorseer": ({"cache": Cache.TAYLORSEER}, (6, 6)),
    "pab": ({"cache": Cache.PAB}, (8, 4)),  # the high-noise steps are outside its range of timesteps
    "mag": ({"cache": Cache.MAG}, (2, 2)),
}


@pytest.mark.parametrize(("lever", "computed"), CACHES.values(), ids=CACHES.keys())
def test_a_cache_skips_blocks_in_each_expert_within_its_bound(runs: Runs, lever: dict[str, object], computed: tuple[int, int]) -> None:
    error, resolved = runs.error(make_a14b(**EIGHT_STEPS, **lever))
    assert 0 < error <= LOSSY
    assert resolved.cache.startswith(str(lever["cache"]))
    shares = {name: Share(count=count, of=8) for name, count in zip(("transformer", "transformer_2"), computed, strict=True)}
    assert resolved.block_computations == shares


@pytest.mark.parametrize("lever", [lever for lever, _ in CACHES.values()], ids=CACHES.keys())
def test_a_cache_starts_every_generation_anew(runs: Runs, lever: dict[str, object]) -> None:
    cold, _ = runs.latents(make_case(steps=8, **lever))
    warm, _ = runs.latents(make_case(steps=8, **lever), warmups=1)
    assert torch.equal(cold, warm)


def test_pab_keeps_the_branches_of_cfg_apart(runs: Runs) -> None:
    """With diffusers' one state the unconditional forward is given the conditional one's attention."""
    apart, _ = runs.error(make_case(steps=8, cache=Cache.PAB))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caches, "_separate_branches", lambda _: None)
        mixed, _ = runs.error(make_case(steps=8, cache=Cache.PAB))
    assert mixed != apart


def test_a_cache_that_skips_nothing_is_invalid(runs: Runs) -> None:
    ending = runs.trial(make_a14b(**EIGHT_STEPS, cache=Cache.FIRST_BLOCK, cache_threshold=1e-6))
    assert ending.outcome is Outcome.INVALID
    assert "declared cache=first_block, resolved none skipped" in ending.reason


def test_taylorseer_with_diffusers_own_identifiers_is_caught(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "_TAYLOR_IDENTIFIERS", None)
    ending = runs.trial(make_a14b(**EIGHT_STEPS, cache=Cache.TAYLORSEER))
    assert "declared cache=taylorseer, resolved none skipped: the last block computed 8 of 8 in transformer" in ending.reason


def test_a_cache_on_one_expert_alone_is_invalid(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = caches.experts
    monkeypatch.setattr(caches, "_enable", lambda pipe, config: plain(pipe)["transformer"].enable_cache(config("transformer")))
    ending = runs.trial(make_a14b(**EIGHT_STEPS, cache=Cache.FIRST_BLOCK, cache_threshold=0.3))
    assert ending.reason == "declared cache=first_block, resolved none on transformer_2"


# Offload: exact

EXACT: dict[str, dict[str, object]] = {
    "expert": {"offload": Offload.EXPERT},
    "expert, t5 on the cpu, vae offloaded": {"offload": Offload.EXPERT, "text_encoder": TextEncoder.CPU, "vae_offload": True},
    "two blocks a group": {"offload": Offload.GROUP_BLOCK, "group_blocks": 2, "group_stream": False},
    "group, not blocking": {"offload": Offload.GROUP_BLOCK, "group_stream": False, "group_non_blocking": True},
    "three blocks a group, of which there are two": {"offload": Offload.GROUP_BLOCK, "group_blocks": 3, "group_stream": False},
    "group on disk": {"offload": Offload.GROUP_BLOCK, "group_disk": True},
    "group, t5 on the cpu": {"offload": Offload.GROUP_LEAF, "text_encoder": TextEncoder.CPU},
    "t5 on the cpu": {"text_encoder": TextEncoder.CPU},
    "t5 dropped": {"text_encoder": TextEncoder.DROPPED},
    "model, t5 dropped": {"offload": Offload.MODEL, "text_encoder": TextEncoder.DROPPED},
    "vae offloaded": {"vae_offload": True},
}


@pytest.mark.parametrize("lever", EXACT.values(), ids=EXACT.keys())
def test_offload_is_exact(runs: Runs, lever: dict[str, object]) -> None:
    error, resolved = runs.error(make_a14b(**lever))
    assert error == 0.0
    assert resolved.expert_swaps == (2 if lever.get("offload") is Offload.EXPERT else None)


def test_groups_on_disk_differ_by_the_alignment_of_mapped_tensors_alone(runs: Runs) -> None:
    """safetensors maps tensors at any address, where CPU kernels round otherwise: 3e-6 in fp32, and no weight differs."""
    case = make_a14b(dtype=Dtype.FP32, offload=Offload.GROUP_LEAF, group_disk=True, text_encoder=TextEncoder.CPU)
    assert runs.error(case)[0] < 1e-5


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU can")
@pytest.mark.parametrize(
    ("lever", "reason"),
    [
        (
            {"offload": Offload.EXPERT_PINNED},
            "Cannot access accelerator device when none is available|Found no NVIDIA driver",
        ),  # by torch's build
        ({"offload": Offload.GROUP_BLOCK, "group_record_stream": True}, "requires an onload device whose backend implements streams"),
        ({"offload": Offload.GROUP_BLOCK, "group_low_cpu_mem": True}, "requires an onload device whose backend implements streams"),
    ],
)
def test_offload_that_needs_a_gpu_is_invalid_in_the_library_s_words(runs: Runs, lever: dict[str, object], reason: str) -> None:
    ending = runs.trial(make_a14b(**lever))
    assert ending.outcome is Outcome.INVALID
    assert re.search(reason, ending.reason)


def test_an_expert_swap_that_moves_nothing_is_invalid(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExpertSwap, "bring", lambda *_: None)
    ending = runs.trial(make_a14b(offload=Offload.EXPERT))
    assert ending.reason == "declared offload=expert with 2 swaps, resolved expert with 0 swaps"


def test_a_t5_that_stays_is_invalid(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Placement, "drop_text_encoder", lambda *_: None)
    ending = runs.trial(make_a14b(text_encoder=TextEncoder.DROPPED))
    assert ending.reason == "declared text_encoder=dropped, resolved still there"


def test_a_vae_that_stays_is_invalid(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Placement, "park_vae", lambda *_: None)
    ending = runs.trial(make_a14b(vae_offload=True))
    assert ending.reason == "declared vae_offload=True, resolved a VAE that never left the device"


def test_an_expert_comes_to_the_device_as_a_copy_and_leaves_no_trace() -> None:
    experts = [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]
    host = [expert.weight.data_ptr() for expert in experts]
    swap = ExpertSwap(experts, CPU, pinned=False)
    for expert in (experts[0], experts[0], experts[1], experts[0]):
        swap.bring(expert)
    assert swap.swaps == 3
    assert experts[0].weight.data_ptr() != host[0]
    assert experts[1].weight.data_ptr() == host[1]


# Compile


@pytest.mark.parametrize("make", [make_case, make_a14b])
@pytest.mark.parametrize("scope", [Compile.REGIONAL, Compile.FULL])
def test_compiling_is_a_stage_of_its_own_and_changes_nothing(runs: Runs, make, scope: Compile) -> None:
    case = make(compile=scope, compile_backend="aot_eager")
    error, resolved = runs.error(case)
    assert error == 0.0
    assert (resolved.compile, resolved.graphs) == (f"{scope} with aot_eager", 1)


def test_a_graph_that_is_made_in_a_step_is_invalid(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "TEXT_TOKENS", 16)
    ending = runs.trial(make_a14b(compile=Compile.REGIONAL, compile_backend="aot_eager"))
    assert "more graphs after the Compilation stage, in the steps' times" in ending.reason


def test_what_was_not_compiled_is_invalid() -> None:
    pipe = loaded(make_a14b())
    pipe.transformer.compile(backend="aot_eager")
    with pytest.raises(Invalid, match="declared compile=full, resolved none"):
        compilation.check(pipe, make_a14b(compile=Compile.FULL), before=1, after=1)


def test_a_compiler_backend_that_does_not_exist_is_invalid_in_torch_s_words(runs: Runs) -> None:
    ending = runs.trial(make_a14b(compile=Compile.REGIONAL, compile_backend="nonsense"))
    assert ending.outcome is Outcome.INVALID
    assert "Invalid backend: 'nonsense'" in ending.reason


def test_where_each_component_was_at_each_stage_is_in_the_record(runs: Runs) -> None:
    _, resolved = runs.latents(make_a14b(**EIGHT_STEPS, text_encoder=TextEncoder.DROPPED))
    assert list(resolved.stage_devices) == [
        "T5_Encoding",
        "Preprocess",
        *("Loading (high)", "Inference (high)", "Loading (low)", "Inference (low)"),
        "VAE_Decoding",
    ]
    everywhere = {"transformer": "cpu", "transformer_2": "cpu", "vae": "cpu"}
    assert all(where == everywhere for where in resolved.stage_devices.values())


def test_a_few_layers_stand_for_a_component_from_its_first_to_its_last() -> None:
    layers = torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(30)))
    assert offload._spread(layers, 8) == ["0", "4", "8", "12", "16", "20", "24", "29"]
    assert offload._spread(layers[:2], 8) == ["0", "1"]

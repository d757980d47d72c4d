"""Every lever that a CPU can pull, against the plain run within a stated bound; every other ends as invalid in diffusers' own words; and a
lever that did nothing is caught."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from safetensors.torch import load_file

from tests.conftest import make_a14b, make_case
from tests.trial.test_generate import PROCEDURE, loaded, source
from wansweep.case import Case, Model
from wansweep.levers import Attention, Cache, Compile, Dtype, Offload, Quant, TextEncoder
from wansweep.plan.geometry import as_run
from wansweep.plan.rules import FORBIDDEN, forbidden
from wansweep.record import Outcome, Resolved, Share
from wansweep.trial import attention, caches, compilation, offload, options, projections, quantise, runner, vae
from wansweep.trial.invalid import Invalid
from wansweep.trial.placement import ExpertSwap, Placement
from wansweep.trial.task import Seat, Task

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    # torch's own compiler and torchao warn of what they will change.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

CPU = torch.device("cpu")
# Of the final latents, whose standard deviation is 1.1; the plain run's own bf16 noise (another kernel for one sum) is 0.03.
ROUNDING, LOSSY = 0.07, 0.15
EIGHT_STEPS = {"steps": 8, "shift": 5.0}  # 4 in each expert
QUANTISERS = pytest.mark.skipif(not (find_spec("torchao") and find_spec("optimum")), reason="needs the extra `quant`")


@pytest.fixture(autouse=True)
def _one_thread_and_the_default_backend() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
    _AttentionBackendRegistry.set_active_backend(AttentionBackendName.NATIVE)


class Runs:
    """Trials of cases, and what each made; a case's plain twin runs once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[torch.Tensor] = []
        self._plain: dict[str, torch.Tensor] = {}

    def trial(self, case: Case, **procedure: object) -> runner.Ending:
        scratch = self._folder / case.id
        scratch.mkdir(exist_ok=True)
        task = Task(case=case, source=source(case), origin_s=0.0, scratch=scratch, procedure=replace(PROCEDURE, **procedure))
        return runner.run_rank(task, Seat(rank=0, world=1, rendezvous="", cores=1))

    def latents(self, case: Case, **procedure: object) -> tuple[torch.Tensor, Resolved]:
        ending = self.trial(case, **procedure)
        assert (ending.outcome, ending.reason) == (Outcome.OK, "")
        assert ending.resolved is not None
        return self._made[-1], ending.resolved

    def error(self, case: Case) -> tuple[float, Resolved]:
        """Largest absolute difference of the final latents to the plain run."""
        kept = ("model", "task", "steps", "shift", "dtype", "guidance", "guidance_2")
        plain = make_case(**{**{name: getattr(case, name) for name in kept}, "height": case.height, "frames": case.frames})
        if plain.id not in self._plain:
            self._plain[plain.id] = self.latents(plain)[0]
        latents, resolved = self.latents(case)
        return float((latents - self._plain[plain.id]).abs().max()), resolved

    def keep(self, latents: torch.Tensor) -> None:
        self._made.append(latents.float().clone())


@pytest.fixture(scope="module")
def module_runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("levers"))


@pytest.fixture
def runs(module_runs: Runs, monkeypatch: pytest.MonkeyPatch) -> Runs:
    plain = runner.generate

    def kept(*args: object, **kwargs: object) -> object:
        latents, video = plain(*args, **kwargs)
        module_runs.keep(latents)
        return latents, video

    monkeypatch.setattr(runner, "generate", kept)
    return module_runs


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


# Quantisation


@QUANTISERS
@pytest.mark.parametrize("quant", [Quant.FP8_CAST, Quant.TORCHAO_INT8, Quant.TORCHAO_INT8_DYNAMIC, Quant.TORCHAO_FP8, Quant.QUANTO_INT8])
def test_quantisation_takes_every_block_layer_of_both_experts(runs: Runs, quant: Quant) -> None:
    error, resolved = runs.error(make_a14b(quant=quant))
    assert 0 < error <= LOSSY
    assert resolved.quant == quant
    assert resolved.quantised_layers == dict.fromkeys(("transformer", "transformer_2"), Share(count=20, of=20))


@QUANTISERS
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have them")
@pytest.mark.parametrize(
    ("quant", "reason"),
    [(Quant.TORCHAO_FP8_DYNAMIC, "requires CUDA compute capability"), (Quant.BNB_8BIT, "No GPU found"), (Quant.BNB_4BIT, "bitsandbytes|GPU")],
)
def test_quantisation_that_needs_a_gpu_is_invalid_in_the_library_s_words(runs: Runs, quant: Quant, reason: str) -> None:
    ending = runs.trial(make_a14b(quant=quant))
    assert ending.outcome is Outcome.INVALID
    assert any(word in ending.reason for word in reason.split("|"))


def test_quantisation_of_one_expert_alone_is_invalid() -> None:
    case = make_a14b(quant=Quant.FP8_CAST)
    pipe = loaded(case)
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    with pytest.raises(Invalid, match="declared quant=fp8_cast, resolved none in 20 layers of transformer_2"):
        quantise.check(pipe, case)


def test_what_diffusers_keeps_in_fp32_is_not_cast() -> None:
    case = make_a14b(quant=Quant.FP8_CAST)
    pipe = loaded(case)
    quantise.apply(pipe, case)
    kept = {name for name, tensor in pipe.transformer.named_parameters() if tensor.dtype is not torch.float8_e4m3fn}
    assert {"patch_embedding.weight", "condition_embedder.time_embedder.linear_1.weight", "blocks.0.norm2.weight"} <= kept


# Offload: exact

EXACT: dict[str, dict[str, object]] = {
    "expert": {"offload": Offload.EXPERT},
    "expert, t5 on the cpu, vae offloaded": {"offload": Offload.EXPERT, "text_encoder": TextEncoder.CPU, "vae_offload": True},
    "two blocks a group": {"offload": Offload.GROUP_BLOCK, "group_blocks": 2, "group_stream": False},
    "group, not blocking": {"offload": Offload.GROUP_BLOCK, "group_non_blocking": True},
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


class _ZerosForEmpty:
    """torch, with memory that is not written yet made visible."""

    def __getattr__(self, name: str) -> object:
        return torch.zeros_like if name == "empty_like" else getattr(torch, name)


def test_t5_s_tied_embedding_is_lost_on_disk_without_the_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of its two names parks what the first has left: uninitialised memory."""
    monkeypatch.setattr("diffusers.hooks.group_offloading.torch", _ZerosForEmpty())
    case = make_a14b(offload=Offload.GROUP_LEAF, group_disk=True)
    pipe = loaded(case)
    pipe.text_encoder.shared.weight.data.fill_(7.0)
    options.place(pipe, case, CPU, scratch=tmp_path)
    parked = [
        part._diffusers_hook.get_hook("group_offloading").group for part in (pipe.text_encoder.shared, pipe.text_encoder.encoder.embed_tokens)
    ]
    first, second = (load_file(group.safetensors_file_path)["tensor_0"] for group in parked)
    assert bool((first == 7.0).all())
    assert bool((second == 0.0).all())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU can")
@pytest.mark.parametrize(
    ("lever", "reason"),
    [
        ({"offload": Offload.EXPERT_PINNED}, "Cannot access accelerator device when none is available"),
        ({"offload": Offload.GROUP_BLOCK, "group_record_stream": True}, "requires an onload device whose backend implements streams"),
        ({"offload": Offload.GROUP_BLOCK, "group_low_cpu_mem": True}, "requires an onload device whose backend implements streams"),
    ],
)
def test_offload_that_needs_a_gpu_is_invalid_in_the_library_s_words(runs: Runs, lever: dict[str, object], reason: str) -> None:
    ending = runs.trial(make_a14b(**lever))
    assert ending.outcome is Outcome.INVALID
    assert reason in ending.reason


def test_pinning_more_than_the_machine_has_is_refused_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_a14b(offload=Offload.EXPERT_PINNED)
    pipe = loaded(case)
    monkeypatch.setattr(offload.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10_000}))
    with pytest.raises(Invalid, match="GB to pin, of 0.0 GB available at most 90 % may be; offload=expert needs no pinned memory"):
        options.place(pipe, case, CPU)


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


# Rules

BROKEN: dict[str, Case] = {
    "attention with ulysses": make_a14b(ulysses=2, gpus=2, attention=Attention.XFORMERS),
    "attention=_sage_qk_int8_pv_fp8_cuda_sm90": make_a14b(attention=Attention.SAGE_INT8_FP8_SM90),
    "vae_slicing": make_a14b(vae_slicing=True),
    "guidance_2 without CFG": make_a14b(guidance=1.0),
    "cache_threshold": make_a14b(cache=Cache.PAB, cache_threshold=0.1),
    "cache_interval": make_a14b(cache=Cache.FIRST_BLOCK, cache_interval=2),
    "cache with compile": make_a14b(cache=Cache.MAG, compile=Compile.REGIONAL),
    "group options": make_a14b(group_disk=True),
    "group_blocks": make_a14b(offload=Offload.GROUP_BLOCK, group_blocks=2),
    "group_record_stream or group_low_cpu_mem": make_a14b(offload=Offload.GROUP_BLOCK, group_stream=False, group_record_stream=True),
    "group_disk with torchao": make_a14b(offload=Offload.GROUP_BLOCK, group_disk=True, quant=Quant.TORCHAO_INT8),
    "group_disk with group_leaf": make_a14b(offload=Offload.GROUP_LEAF, group_disk=True),
    "offload=expert": make_case(offload=Offload.EXPERT),
    "offload=expert with quant": make_a14b(offload=Offload.EXPERT, quant=Quant.TORCHAO_INT8),
    "offload with bitsandbytes": make_a14b(offload=Offload.MODEL, quant=Quant.BNB_4BIT),
    "text_encoder=cpu": make_a14b(offload=Offload.MODEL, text_encoder=TextEncoder.CPU),
    "vae_offload": make_a14b(offload=Offload.MODEL, vae_offload=True),
    "compile with leaf offload": make_a14b(offload=Offload.GROUP_LEAF, compile=Compile.REGIONAL),
}


def test_every_rule_has_a_case_that_it_alone_forbids() -> None:
    for rule in FORBIDDEN:
        assert [other.what for other in FORBIDDEN if other.forbids(BROKEN[rule.what])] == [rule.what]
        assert rule.source.startswith("https://github.com/")
    assert set(BROKEN) == {rule.what for rule in FORBIDDEN}


def test_a_case_that_a_rule_forbids_ends_as_invalid_with_the_reason(runs: Runs) -> None:
    ending = runs.trial(BROKEN["vae_slicing"])
    assert ending.outcome is Outcome.INVALID
    assert ending.reason == forbidden(BROKEN["vae_slicing"])


@QUANTISERS
def test_torchao_on_disk_does_fail_without_the_rule(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "forbidden", lambda _: "")
    ending = runs.trial(BROKEN["group_disk with torchao"])
    assert ending.outcome is not Outcome.OK


def test_a_plain_case_of_every_family_breaks_no_rule() -> None:
    assert not any(forbidden(case) for case in (make_case(), make_a14b(), make_a14b(model=Model.I2V_A14B)))

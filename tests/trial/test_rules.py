"""The rules of plan.rules against reality: what each forbids does fail or do nothing on the miniatures, and what they allow does run.

A rule is bypassed, and what happens is looked at: a library's error, a mismatch that is read back, a wrong video, or one that is equal to
the last bit with nothing moved or counted. Those that need CUDA are in test_gpu.py, by the same names.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload
from safetensors.torch import load_file
from torch._dynamo.exc import FailOnRecompileLimitHit

from tests.conftest import make_a14b, make_case
from tests.trial import test_groups, test_quantise
from tests.trial.test_generate import loaded
from tests.trial.trials import EIGHT_STEPS, QUANTISERS, QUIET, Runs
from wansweep.case import Case, Model
from wansweep.levers import Attention, Cache, Compile, Dtype, Offload, Quant, TextEncoder
from wansweep.plan import rules
from wansweep.plan.rules import FORBIDDEN, forbidden, problems
from wansweep.record import Outcome
from wansweep.trial import attention, offload, options, projections, quantise
from wansweep.trial.experts import block_linears, experts
from wansweep.trial.invalid import Invalid
from wansweep.trial.pipeline import WanPipe
from wansweep.trial.placement import ExpertSwap

pytestmark = [QUANTISERS, *QUIET]
CPU = torch.device("cpu")

BROKEN: dict[str, Case] = {
    "attention with ulysses or ring": make_a14b(ulysses=2, gpus=2, attention=Attention.NATIVE_MATH),
    "guidance_2 without CFG": make_a14b(guidance=1.0),
    "attention=_sage_qk_int8_pv_fp8_cuda_sm90": make_a14b(attention=Attention.SAGE_INT8_FP8_SM90),
    "vae_slicing": make_a14b(vae_slicing=True),
    "cache_threshold": make_a14b(**EIGHT_STEPS, cache=Cache.PAB, cache_threshold=0.1),
    "cache_interval": make_a14b(**EIGHT_STEPS, cache=Cache.MAG, cache_interval=3),
    "cache with compile": make_a14b(**EIGHT_STEPS, cache=Cache.PAB, compile=Compile.REGIONAL, compile_backend="aot_eager"),
    "group options": make_a14b(group_disk=True),
    "group_blocks": make_a14b(offload=Offload.GROUP_LEAF, group_blocks=2, group_stream=False),
    "group_record_stream or group_low_cpu_mem": make_a14b(offload=Offload.GROUP_BLOCK, group_stream=False, group_record_stream=True),
    "group_low_cpu_mem with group_disk": make_a14b(offload=Offload.GROUP_BLOCK, group_low_cpu_mem=True, group_disk=True),
    "group_non_blocking with group_stream": make_a14b(offload=Offload.GROUP_BLOCK, group_non_blocking=True),
    "group_disk with torchao or quanto": make_a14b(offload=Offload.GROUP_BLOCK, group_disk=True, quant=Quant.TORCHAO_INT8),
    "offload=sequential with quanto or gguf": make_a14b(offload=Offload.SEQUENTIAL, quant=Quant.GGUF_Q8_0),
    "group_disk with group_leaf": make_a14b(offload=Offload.GROUP_LEAF, group_disk=True),
    "offload=expert": make_case(offload=Offload.EXPERT),
    "offload=expert with quant": make_a14b(offload=Offload.EXPERT, quant=Quant.TORCHAO_INT8),
    "offload with bitsandbytes": make_a14b(offload=Offload.MODEL, quant=Quant.BNB_4BIT),
    "text_encoder=cpu with bitsandbytes": make_a14b(text_encoder=TextEncoder.CPU, text_encoder_quant=Quant.BNB_8BIT),
    "quant=gguf": make_a14b(transformer_gguf="expert.gguf"),
    "fused_qkv with quant=gguf": make_a14b(fused_qkv=True, quant=Quant.GGUF, transformer_gguf="high.gguf", transformer_2_gguf="low.gguf"),
    "compile with gguf": make_a14b(compile=Compile.REGIONAL, compile_backend="aot_eager", quant=Quant.GGUF_Q8_0),
    "text_encoder=cpu": make_a14b(offload=Offload.MODEL, text_encoder=TextEncoder.CPU),
    "vae_offload": make_a14b(offload=Offload.MODEL, vae_offload=True),
    "compile with leaf offload": make_a14b(offload=Offload.GROUP_LEAF, compile=Compile.FULL, compile_backend="aot_eager"),
}
# Tried on two ranks, in test_parallel.py.
IN_GANGS: dict[str, Case] = {
    "ring with attention=native": make_a14b(ring=2, gpus=2),
    "cfg_parallel without guidance": make_a14b(cfg_parallel=2, gpus=2, guidance=1.0, guidance_2=1.0),
    "fsdp on one GPU": make_a14b(fsdp=True),
    "fsdp with offload": make_a14b(fsdp=True, gpus=2, offload=Offload.GROUP_BLOCK),
    "fsdp with quant": make_a14b(fsdp=True, gpus=2, quant_2=Quant.TORCHAO_INT8),
    "fsdp with compile=regional": make_a14b(fsdp=True, gpus=2, compile=Compile.REGIONAL),
    "cache=first_block or mag with ulysses or ring": make_a14b(ulysses=2, gpus=2, cache=Cache.FIRST_BLOCK),
    "cache=first_block or mag with fsdp": make_a14b(gpus=2, fsdp=True, cache=Cache.FIRST_BLOCK),
    "cache=mag with cfg_parallel": make_a14b(cfg_parallel=2, gpus=2, cache=Cache.MAG),
}
TRIED: dict[str, Callable[..., None]] = {}


def tried(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def keep(test: Callable[..., None]) -> Callable[..., None]:
        TRIED[what] = test
        return test

    return keep


@pytest.fixture
def bypassed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "forbidden", lambda _: "")


def test_every_rule_has_a_case_that_it_alone_forbids() -> None:
    broken = {**BROKEN, **IN_GANGS}
    assert set(broken) == {rule.what for rule in FORBIDDEN}
    for rule in FORBIDDEN:
        assert [other.what for other in FORBIDDEN if other.forbids(broken[rule.what])] == [rule.what]
        assert rule.source.startswith("https://github.com/")


def test_every_rule_is_tried_against_reality() -> None:
    assert set(TRIED) == set(BROKEN)


def test_a_case_that_a_rule_forbids_ends_as_invalid_with_the_reason(runs: Runs) -> None:
    ending = runs.trial(BROKEN["vae_slicing"])
    assert (ending.outcome, ending.reason) == (Outcome.INVALID, forbidden(BROKEN["vae_slicing"]))


def test_a_plain_case_of_every_family_breaks_no_rule() -> None:
    assert not any(forbidden(case) for case in (make_case(), make_a14b(), make_a14b(model=Model.I2V_A14B)))


def without(case: Case, *fields: str) -> Case:
    """The case with fields at their defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(Case)}
    return dataclasses.replace(case, **{name: defaults[name] for name in fields})


def refused(runs: Runs, what: str, *words: str) -> None:
    """The bypassed case ends without a result, with these words in its reason."""
    ending = runs.trial(BROKEN[what])
    assert ending.outcome is not Outcome.OK
    assert all(word in ending.reason for word in words), ending.reason


@tried("attention with ulysses or ring")
@pytest.mark.parametrize("backend", [Attention.NATIVE_MATH, Attention.FLEX])
def test_diffusers_refuses_to_split_a_sequence_for_the_other_backends(backend: Attention) -> None:
    case = dataclasses.replace(BROKEN["attention with ulysses or ring"], attention=backend)
    pipe = loaded(case)
    for part in pipe.transformer.modules():
        if hasattr(part, "processor"):
            part.processor._parallel_config = object()  # as enable_parallelism leaves it, which needs a process group
    with pytest.raises(Invalid, match="[Cc]ontext parallelism"):
        attention.apply(pipe, case, CPU)


def test_the_rule_and_diffusers_agree_on_which_backends_split_sequences() -> None:
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    assert {str(name) for name in rules._SPLITS_SEQUENCES} == _AttentionBackendRegistry._supports_context_parallel & {str(a) for a in Attention}


@tried("attention=_sage_qk_int8_pv_fp8_cuda_sm90")
@pytest.mark.skipif(torch.cuda.is_available(), reason="its noise is seen in test_gpu.py")
@pytest.mark.usefixtures("bypassed")
def test_sage_s_sm90_kernel_cannot_even_be_tried_on_a_cpu(runs: Runs) -> None:
    refused(runs, "attention=_sage_qk_int8_pv_fp8_cuda_sm90", "not usable because of missing package")


@tried("vae_slicing")
def test_slicing_the_one_video_of_a_case_changes_nothing() -> None:
    pipe = loaded(make_a14b())
    latents = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    calls = []
    plain = pipe.vae._decode
    pipe.vae._decode = lambda z, *a, **k: calls.append(z.shape[0]) or plain(z, *a, **k)
    videos = []
    for slicing in (False, True):
        pipe.vae.use_slicing = slicing
        with torch.no_grad():
            videos.append(pipe.vae.decode(latents).sample)
    assert torch.equal(*videos)
    assert calls == [1, 1]


@tried("guidance_2 without CFG")
@pytest.mark.usefixtures("bypassed")
def test_the_second_guidance_without_cfg_changes_nothing(runs: Runs) -> None:
    case = BROKEN["guidance_2 without CFG"]
    assert torch.equal(runs.latents(case)[0], runs.latents(dataclasses.replace(case, guidance_2=1.0))[0])


@tried("cache_threshold")
@pytest.mark.usefixtures("bypassed")
def test_a_threshold_of_a_cache_that_has_none_changes_nothing(runs: Runs) -> None:
    case = BROKEN["cache_threshold"]
    assert torch.equal(runs.latents(case)[0], runs.latents(without(case, "cache_threshold"))[0])


@tried("cache_interval")
@pytest.mark.usefixtures("bypassed")
def test_an_interval_of_a_cache_that_has_none_changes_nothing(runs: Runs) -> None:
    case = BROKEN["cache_interval"]
    assert torch.equal(runs.latents(case)[0], runs.latents(without(case, "cache_interval"))[0])


@tried("cache with compile")
@pytest.mark.usefixtures("bypassed")
def test_a_cache_makes_graphs_in_the_steps(runs: Runs) -> None:
    refused(runs, "cache with compile", "more graphs after the Compilation stage")


@pytest.mark.usefixtures("bypassed")
def test_what_mag_skips_in_a_graph_cannot_be_read_back(runs: Runs) -> None:
    _, resolved = runs.latents(make_a14b(**EIGHT_STEPS, cache=Cache.MAG, compile=Compile.REGIONAL, compile_backend="aot_eager"))
    assert resolved.block_computations == {}


@tried("group options")
@pytest.mark.usefixtures("bypassed")
def test_options_of_groups_are_of_nothing_where_there_is_no_group(runs: Runs) -> None:
    refused(runs, "group options", "declared group_disk=True, resolved no group")


@tried("group_blocks")
@pytest.mark.usefixtures("bypassed")
def test_leaves_are_moved_one_at_a_time(runs: Runs) -> None:
    # With a stream blocks are too: tests/trial/test_groups.py.
    refused(runs, "group_blocks", "declared group_blocks=2, resolved leaves")


@tried("group_record_stream or group_low_cpu_mem")
@pytest.mark.usefixtures("bypassed")
def test_a_stream_cannot_be_recorded_where_there_is_none(runs: Runs) -> None:
    refused(runs, "group_record_stream or group_low_cpu_mem", "`record_stream` cannot be True when `use_stream=False`")


# Streams are test_groups.py's.
TRIED["group_low_cpu_mem with group_disk"] = test_groups.test_weights_on_disk_are_kept_nowhere_on_the_host_so_low_cpu_mem_does_nothing
TRIED["group_non_blocking with group_stream"] = test_groups.test_with_a_stream_non_blocking_copies_are_what_diffusers_does_anyway


@tried("group_disk with torchao or quanto")
@pytest.mark.usefixtures("bypassed")
@pytest.mark.parametrize("field", ["quant", "quant_2", "text_encoder_quant"])
@pytest.mark.parametrize(
    ("quant", "reason"), [(Quant.TORCHAO_INT8, "safetensors cannot serialize"), (Quant.QUANTO_INT8, "invalid python storage")]
)
def test_tensors_of_a_quantiser_cannot_be_parked_on_disk(runs: Runs, field: str, quant: Quant, reason: str) -> None:
    case = make_a14b(offload=Offload.GROUP_BLOCK, group_disk=True, **{field: quant})
    assert "group_disk with torchao or quanto" in forbidden(case)
    ending = runs.trial(case)
    assert ending.outcome is Outcome.INVALID
    assert reason in ending.reason


class _ZerosForEmpty:
    """torch, with memory that is not written yet made visible."""

    def __getattr__(self, name: str) -> object:
        return torch.zeros_like if name == "empty_like" else getattr(torch, name)


@tried("group_disk with group_leaf")
def test_t5_s_tied_embedding_is_lost_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of its two names parks what the first has left: uninitialised memory."""
    monkeypatch.setattr("diffusers.hooks.group_offloading.torch", _ZerosForEmpty())
    case = BROKEN["group_disk with group_leaf"]
    pipe = loaded(case)
    pipe.text_encoder.shared.weight.data.fill_(7.0)
    options.place(pipe, case, CPU, scratch=tmp_path)
    parked = [
        part._diffusers_hook.get_hook("group_offloading").group for part in (pipe.text_encoder.shared, pipe.text_encoder.encoder.embed_tokens)
    ]
    first, second = (load_file(group.safetensors_file_path)["tensor_0"] for group in parked)
    assert bool((first == 7.0).all())
    assert bool((second == 0.0).all())


def one_forward(pipe: WanPipe) -> torch.Tensor:
    x_BCFHW = torch.ones(1, 16, 2, 8, 8, dtype=torch.bfloat16)
    text_BTD = torch.ones(1, 8, 32, dtype=torch.bfloat16)
    with torch.no_grad():
        return pipe.transformer(hidden_states=x_BCFHW, timestep=torch.tensor([500.0]), encoder_hidden_states=text_BTD, return_dict=False)[0]


@tried("offload=sequential with quanto or gguf")
@pytest.mark.parametrize(
    ("quant", "error"), [(Quant.QUANTO_INT8, TypeError), (Quant.QUANTO_FP8, TypeError), (Quant.GGUF_Q8_0, KeyError), (Quant.TORCHAO_INT8, None)]
)
def test_accelerate_cannot_make_weights_of_quanto_and_gguf_anew(quant: Quant, error: type[Exception] | None) -> None:
    # What sequential offload does to a component; the mode itself needs an accelerator.
    case = make_a14b(quant=quant)
    pipe = loaded(case)
    quantise.apply(pipe, case)
    expected = one_forward(pipe)
    if error is None:
        cpu_offload(pipe.transformer, CPU, offload_buffers=True)
        assert torch.equal(one_forward(pipe), expected)
        return
    with pytest.raises(error):
        cpu_offload(pipe.transformer, CPU, offload_buffers=True)


@tried("offload=expert")
@pytest.mark.usefixtures("bypassed")
def test_one_expert_never_changes_places(runs: Runs) -> None:
    latents, resolved = runs.latents(BROKEN["offload=expert"])
    assert resolved.expert_swaps == 1  # it came, and nothing ever made it go
    assert torch.equal(latents, runs.latents(make_case())[0])


@tried("offload=expert with quant")
@pytest.mark.parametrize("quant", [*rules._TORCHAO[:3], *rules._QUANTO, Quant.FP8_CAST, Quant.GGUF_Q8_0])
def test_the_swap_moves_no_tensor_of_torchao_and_quanto(quant: Quant) -> None:
    moves = not forbidden(make_a14b(offload=Offload.EXPERT, quant=quant))
    case = make_a14b(quant=quant)
    pipe = loaded(case)
    quantise.apply(pipe, case)
    weight = next(block_linears(pipe.transformer))[1].weight
    before = _values(weight).data_ptr()
    ExpertSwap(list(experts(pipe).values()), CPU, pinned=False).bring(pipe.transformer)
    assert (_values(weight).data_ptr() != before) is moves


def _values(weight: torch.Tensor) -> torch.Tensor:
    """The tensor that holds a weight's numbers, inside whatever a quantiser has made of it."""
    return getattr(weight, "qdata", getattr(weight, "_data", weight))


@tried("offload with bitsandbytes")
@pytest.mark.usefixtures("bypassed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="test_gpu.py has it")
def test_bitsandbytes_refuses_without_a_gpu_anyway(runs: Runs) -> None:
    assert runs.trial(BROKEN["offload with bitsandbytes"]).outcome is Outcome.INVALID


TRIED["text_encoder=cpu with bitsandbytes"] = test_quantise.test_weights_of_bitsandbytes_that_never_reached_a_gpu_are_invalid


@tried("quant=gguf")
@pytest.mark.usefixtures("bypassed")
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"quant": Quant.GGUF}, "transformer_gguf=: no such file"),
        ({"quant_2": Quant.GGUF, "transformer_gguf": "x.gguf"}, "transformer_2_gguf=: no such file"),
        ({"transformer_gguf": "x.gguf"}, "declared transformer_gguf=x.gguf, resolved none in 20 layers of transformer"),
        ({"text_encoder_quant": Quant.GGUF}, "declared text_encoder_quant=gguf, resolved none in 6 layers of text_encoder"),
    ],
)
def test_gguf_without_a_file_and_a_file_without_gguf_come_to_nothing(runs: Runs, fields: dict[str, object], told: str) -> None:
    case = make_a14b(**fields)
    assert "quant=gguf" in forbidden(case)
    ending = runs.trial(case)
    assert ending.outcome is not Outcome.OK
    assert told in ending.reason


@tried("fused_qkv with quant=gguf")
def test_packed_projections_cannot_be_fused() -> None:
    case = make_a14b(quant=Quant.GGUF_Q8_0)
    pipe = loaded(case)
    quantise.apply(pipe, case)  # a file's layers are such when projections are fused
    with pytest.raises(RuntimeError, match="Error.s. in loading state_dict for Linear"):
        projections.apply(pipe, make_a14b(fused_qkv=True))


@tried("compile with gguf")
@pytest.mark.usefixtures("bypassed")
def test_torch_cannot_trace_parameters_of_gguf(runs: Runs) -> None:
    refused(runs, "compile with gguf", "KeyError")


@tried("text_encoder=cpu")
@pytest.mark.usefixtures("bypassed")
def test_model_offload_brings_t5_to_the_device_whatever_was_asked(runs: Runs) -> None:
    # Sequential offload hooks T5 likewise, on a GPU.
    refused(runs, "text_encoder=cpu", "declared text_encoder=cpu=no hook, resolved CpuOffload")


@tried("vae_offload")
@pytest.mark.parametrize("mode", [Offload.MODEL, Offload.GROUP_BLOCK, Offload.GROUP_LEAF])
def test_these_modes_move_the_vae_already(mode: Offload) -> None:
    case = make_a14b(offload=mode)
    pipe = loaded(case)
    placement = offload.apply_offload(pipe, case, CPU)
    assert offload.hooks(pipe, placement)["vae"] == ("CpuOffload" if mode is Offload.MODEL else "group_offloading")


@tried("compile with leaf offload")
@pytest.mark.usefixtures("bypassed")
def test_hooks_on_leaves_reach_torch_s_recompile_limit(runs: Runs) -> None:
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        refused(runs, "compile with leaf offload", "recompile")


def test_sequential_offload_s_hooks_reach_it_too_even_in_one_block() -> None:
    pipe = loaded(make_a14b())
    cpu_offload(pipe.transformer, CPU, offload_buffers=True)
    torch.compiler.reset()
    pipe.transformer.compile_repeated_blocks(backend="aot_eager")
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True), pytest.raises(FailOnRecompileLimitHit):
        one_forward(pipe)


@pytest.mark.parametrize(("offload", "scope"), [(Offload.GROUP_LEAF, Compile.REGIONAL), (Offload.GROUP_BLOCK, Compile.FULL)])
def test_other_group_offload_compiles_and_changes_nothing(runs: Runs, offload: Offload, scope: Compile) -> None:
    case = make_a14b(offload=offload, compile=scope, compile_backend="aot_eager", steps=2)
    assert not forbidden(case)
    error, resolved = runs.error(case)
    assert error == 0.0
    assert resolved.graphs


# A sample of what is allowed

SEED, SAMPLE, BUDGET_S = 20260101, 40, 30.0
SPACE: dict[str, tuple[object, ...]] = {
    "offload": tuple(Offload),
    "quant": (Quant.NONE, Quant.FP8_CAST, Quant.TORCHAO_INT8, Quant.QUANTO_INT8, Quant.GGUF_Q8_0),
    "quant_2": (None, Quant.NONE, Quant.TORCHAO_FP8),
    "text_encoder_quant": (Quant.NONE, Quant.FP8_CAST, Quant.TORCHAO_INT8_DYNAMIC, Quant.QUANTO_FP8, Quant.GGUF_Q4_0),
    "text_encoder": tuple(TextEncoder),
    "vae_offload": (False, True),
    "vae_dtype": (Dtype.FP32, Dtype.BF16),
    "vae_tiling": (False, True),
    "attention": (Attention.NATIVE, Attention.NATIVE_MATH),
    "fused_qkv": (False, True),
    "cache": (Cache.NONE, Cache.PAB),
    "group_stream": (False, True),
    "group_non_blocking": (False, True),
    "group_disk": (False, True),
    "group_blocks": (1, 2),
    "guidance": (1.0, 4.0),
}
# Reasons that are a library's or the machine's, of a CPU without accelerator; "declared X, resolved Y" is ours.
THEIRS = ("requires accelerator", "Cannot access accelerator", "Found no NVIDIA driver", "requires an onload device")
# PAB works on a range of timesteps that two steps may miss, and then says so: that is the answer to a case, not a mismatch of levers.
NOTHING_TO_SKIP = "declared cache=pab, resolved none skipped"


def sample(count: int, seed: int) -> list[Case]:
    """Allowed cases that between them have many pairs of values: each the best of a few candidates by pairs not met before."""
    draw = random.Random(seed)
    met: set[tuple[object, ...]] = set()
    chosen: list[Case] = []
    while len(chosen) < count:
        candidates = [found for _ in range(60) if (found := _candidate(draw, len(chosen))) is not None][:12]
        best, pairs = max(candidates, key=lambda found: len(found[1] - met))
        met |= pairs
        chosen.append(best)
    return chosen


def _candidate(draw: random.Random, index: int) -> tuple[Case, set[tuple[object, ...]]] | None:
    fields = {name: draw.choice(values) if draw.random() < 0.4 else values[0] for name, values in SPACE.items()}
    group = fields["offload"] in (Offload.GROUP_BLOCK, Offload.GROUP_LEAF)
    if not group:
        fields |= {"group_stream": True, "group_non_blocking": False, "group_disk": False, "group_blocks": 1}
    case = make_a14b(**fields, steps=2) if index % 2 else make_case(**{**fields, "quant_2": None, "steps": 2})
    if forbidden(case) or problems(case):
        return None
    return case, set(itertools.combinations([(name, str(getattr(case, name))) for name in SPACE], 2))


def test_the_sample_is_the_same_for_a_seed_and_meets_most_pairs_of_levers() -> None:
    cases = sample(SAMPLE, SEED)
    assert cases == sample(SAMPLE, SEED)
    assert len({case.id for case in cases}) > 0.9 * SAMPLE
    used = {name: {getattr(case, name) for case in cases} for name in SPACE}
    assert all(found == set(SPACE[name]) for name, found in used.items()), used


def test_a_sample_of_what_the_rules_allow_runs_or_is_refused_by_a_library(runs: Runs) -> None:
    until_s = time.monotonic() + BUDGET_S
    for done, case in enumerate(sample(SAMPLE, SEED)):
        if time.monotonic() > until_s and done >= SAMPLE // 4:
            break
        ending = runs.trial(case)
        allowed = ending.outcome is Outcome.OK or (
            ending.outcome is Outcome.INVALID and any(word in ending.reason for word in (*THEIRS, NOTHING_TO_SKIP))
        )
        changed = {name: str(getattr(case, name)) for name in SPACE if getattr(case, name) != SPACE[name][0]}
        assert allowed, f"{case.model} {changed}: {ending.outcome} {ending.reason}"

"""What can be said of a case before it runs: the rules that no machine changes.

`problems` are mistakes of a config, told before a sweep begins. `FORBIDDEN` are combinations of levers that a sweep's axes meet in good
faith: such a case is planned, skipped with the reason, and ends as one row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wansweep.case import Case, Model
from wansweep.levers import Attention, Cache, Compile, Offload, Quant, TextEncoder
from wansweep.plan import bounds
from wansweep.plan.geometry import as_run, degree_problems, shape_problems

_SOURCE = "https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/"
_TORCH = "https://github.com/pytorch/pytorch/blob/v2.13.0/torch/distributed/fsdp/_fully_shard/"
_ISSUES = "https://github.com/huggingface/diffusers/issues/"

_GROUP = (Offload.GROUP_BLOCK, Offload.GROUP_LEAF)
_EXPERT = (Offload.EXPERT, Offload.EXPERT_PINNED)
_TORCHAO = (Quant.TORCHAO_INT8, Quant.TORCHAO_INT8_DYNAMIC, Quant.TORCHAO_FP8, Quant.TORCHAO_FP8_DYNAMIC)
_BNB = (Quant.BNB_8BIT, Quant.BNB_4BIT)
_QUANTO = (Quant.QUANTO_INT8, Quant.QUANTO_FP8)
_GGUF = (Quant.GGUF, Quant.GGUF_Q8_0, Quant.GGUF_Q5_0, Quant.GGUF_Q4_0)
# Registered with supports_context_parallel=True.
_SPLITS_SEQUENCES = (
    Attention.NATIVE,
    Attention.NATIVE_CUDNN,
    Attention.NATIVE_FLASH,
    Attention.FLASH,
    Attention.FLASH_HUB,
    Attention.FLASH_VARLEN_HUB,
    Attention.FLASH_3_HUB,
    Attention.FLASH_3_VARLEN_HUB,
    Attention.SAGE,
    Attention.SAGE_HUB,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A combination that cannot work.

    Attributes:
        what: The fields in short, as the reason begins.
        why: One line, with the way out.
        source: Where it is known from.
        forbids: Whether a case is such a combination.
    """

    what: str
    why: str
    source: str
    forbids: Callable[[Case], bool]


def _gguf_files_amiss(case: Case) -> bool:
    files = {"transformer": case.transformer_gguf, "transformer_2": case.transformer_2_gguf}
    unpaired = any((case.quants.get(name) is Quant.GGUF) != bool(file) for name, file in files.items())
    return unpaired or case.text_encoder_quant is Quant.GGUF


FORBIDDEN = (
    Rule(
        what="attention with ulysses or ring",
        why="this backend cannot split a sequence over ranks; native, _native_cudnn, _native_flash, flash, _flash_3_hub and sage can",
        source=f"{_SOURCE}models/attention_dispatch.py",
        forbids=lambda case: _splits_sequence(case) and case.attention not in _SPLITS_SEQUENCES,
    ),
    Rule(
        what="ring with attention=native",
        why="ring attention joins its parts by their log-sum-exp, which native does not give; take _native_cudnn or _native_flash on a GPU",
        source=f"{_SOURCE}models/attention_dispatch.py",
        forbids=lambda case: case.ring > 1 and case.attention is Attention.NATIVE,
    ),
    Rule(
        what="cfg_parallel without guidance",
        why="with guidance=1 or less a step has one forward, and the other half would repeat it; take ulysses",
        source=f"{_SOURCE}pipelines/wan/pipeline_wan.py",
        forbids=lambda case: case.cfg_parallel > 1 and case.guidance <= 1,
    ),
    Rule(
        what="fsdp on one GPU",
        why="there is nobody to share the weights with; take offload",
        source=f"{_TORCH}_fsdp_param_group.py",
        forbids=lambda case: case.fsdp and case.gpus == 1,
    ),
    Rule(
        what="fsdp with offload",
        why="fully_shard computes from its own hold on the shards, so offload would move what nothing reads; take offload=none",
        source=f"{_TORCH}_fsdp_param.py",
        forbids=lambda case: case.fsdp and case.offload is not Offload.NONE,
    ),
    Rule(
        what="fsdp with quant",
        why="quantised weights cannot be cut in shards, or are no longer quantised when they are; take quant=fp8_cast",
        source=f"{_TORCH}_fsdp_param.py",
        forbids=lambda case: case.fsdp and not _expert_quants(case) <= {Quant.NONE, Quant.FP8_CAST},
    ),
    Rule(
        what="fsdp with compile=regional",
        why="fully_shard gives every block a class of its own, which diffusers does not find; take compile=full",
        source=f"{_SOURCE}models/modeling_utils.py",
        forbids=lambda case: case.fsdp and case.compile is Compile.REGIONAL,
    ),
    Rule(
        what="cache=first_block or mag with ulysses or ring",
        why="they compare what goes into the first block, whole, with what comes out, a part of it; take pab or taylorseer",
        source=f"{_SOURCE}hooks/first_block_cache.py",
        forbids=lambda case: case.cache in (Cache.FIRST_BLOCK, Cache.MAG) and _splits_sequence(case),
    ),
    Rule(
        what="cache=first_block or mag with fsdp",
        why="fully_shard gives every block a class of its own, which these caches do not know; take pab or taylorseer",
        source=f"{_SOURCE}hooks/_helpers.py",
        forbids=lambda case: case.cache in (Cache.FIRST_BLOCK, Cache.MAG) and case.fsdp,
    ),
    Rule(
        what="cache=mag with cfg_parallel",
        why="it calibrates on the forward with the prompt, which one half never runs; take pab, taylorseer or first_block",
        source=f"{_SOURCE}hooks/mag_cache.py",
        forbids=lambda case: case.cache is Cache.MAG and case.cfg_parallel > 1,
    ),
    Rule(
        what=f"attention={Attention.SAGE_INT8_FP8_SM90}",
        why="its kernel gives noise on Wan2.2; take sage",
        source=f"{_ISSUES}12783",
        forbids=lambda case: case.attention is Attention.SAGE_INT8_FP8_SM90,
    ),
    Rule(
        what="vae_slicing",
        why="diffusers slices a batch of videos, and of one nothing would change; take vae_tiling, or batch=2",
        source=f"{_SOURCE}models/autoencoders/autoencoder_kl_wan.py",
        forbids=lambda case: case.vae_slicing and case.batch == 1,
    ),
    Rule(
        what="guidance_2 without CFG",
        why="guidance of at most 1 turns CFG off in both experts, so guidance_2 would be ignored; set it to 1 too (a zip walks both)",
        source=f"{_SOURCE}pipelines/wan/pipeline_wan.py",
        forbids=lambda case: case.guidance <= 1 and case.guidance_2 is not None and case.guidance_2 > 1,
    ),
    Rule(
        what="cache_threshold",
        why="only first_block and mag have a threshold",
        source=f"{_SOURCE}hooks",
        forbids=lambda case: case.cache_threshold is not None and case.cache not in (Cache.FIRST_BLOCK, Cache.MAG),
    ),
    Rule(
        what="cache_interval",
        why="only taylorseer and pab have an interval",
        source=f"{_SOURCE}hooks",
        forbids=lambda case: case.cache_interval is not None and case.cache not in (Cache.TAYLORSEER, Cache.PAB),
    ),
    Rule(
        what="cache with compile",
        why="a cache decides in Python, outside any graph, and what it skipped cannot be counted inside one; take compile=none",
        source=f"{_SOURCE}hooks/first_block_cache.py",
        forbids=lambda case: case.cache is not Cache.NONE and case.compile is not Compile.NONE,
    ),
    Rule(
        what="group options",
        why="they are of offload=group_block and group_leaf",
        source=f"{_SOURCE}hooks/group_offloading.py",
        forbids=lambda case: case.offload not in _GROUP and _group_options(case),
    ),
    Rule(
        what="group_blocks",
        why="a stream moves one block at a time, and group_leaf has no blocks; set group_stream=false with offload=group_block",
        source=f"{_SOURCE}hooks/group_offloading.py",
        forbids=lambda case: case.group_blocks > 1 and (case.group_stream or case.offload is Offload.GROUP_LEAF),
    ),
    Rule(
        what="group_record_stream or group_low_cpu_mem",
        why="both are about the stream; set group_stream=true",
        source=f"{_SOURCE}hooks/group_offloading.py",
        forbids=lambda case: (case.group_record_stream or case.group_low_cpu_mem) and not case.group_stream,
    ),
    Rule(
        what="group_low_cpu_mem with group_disk",
        why="weights on disk are kept nowhere on the host, so nothing would change; take one of the two",
        source=f"{_SOURCE}hooks/group_offloading.py",
        forbids=lambda case: case.group_low_cpu_mem and case.group_disk,
    ),
    Rule(
        what="group_non_blocking with group_stream",
        why="copies in a stream never block, so nothing would change; set group_stream=false",
        source=f"{_SOURCE}hooks/group_offloading.py",
        forbids=lambda case: case.group_non_blocking and case.group_stream,
    ),
    Rule(
        what="group_disk with torchao or quanto",
        why="their tensors cannot be parked in a safetensors file; take fp8_cast or gguf_*",
        source=f"{_SOURCE}hooks/group_offloading.py",
        forbids=lambda case: case.group_disk and _any_moved(case, (*_TORCHAO, *_QUANTO)),
    ),
    Rule(
        what="offload=sequential with quanto or gguf",
        why="accelerate makes each weight anew from its values alone, and these need more; take group_leaf",
        source="https://github.com/huggingface/accelerate/blob/v1.15.0/src/accelerate/utils/modeling.py",
        forbids=lambda case: case.offload is Offload.SEQUENTIAL and _any_moved(case, (*_QUANTO, *_GGUF)),
    ),
    Rule(
        what="group_disk with group_leaf",
        why="T5's embedding has two names and is parked twice, the second time when it is gone; take group_block or text_encoder=cpu",
        source=f"{_SOURCE}hooks/group_offloading.py",
        forbids=lambda case: case.group_disk and case.offload is Offload.GROUP_LEAF and case.text_encoder is not TextEncoder.CPU,
    ),
    Rule(
        what="offload=expert",
        why="ti2v_5b has one expert, so there is nothing to swap; take model",
        source=f"{_SOURCE}pipelines/wan/pipeline_wan.py",
        forbids=lambda case: case.offload in _EXPERT and case.model is Model.TI2V_5B,
    ),
    Rule(
        what="offload=expert with quant",
        why="weights of torchao and quanto are several tensors each, of which the swap moves none; take model, or fp8_cast or gguf_*",
        source=f"{_SOURCE}hooks/group_offloading.py",
        forbids=lambda case: case.offload in _EXPERT and _any_expert(case, (*_TORCHAO, *_QUANTO)),
    ),
    Rule(
        what="offload with bitsandbytes",
        why="bitsandbytes quantises weights as they reach the device, where they stay; take offload=none, or another quant",
        source=f"{_SOURCE}quantizers/bitsandbytes/bnb_quantizer.py",
        forbids=lambda case: (
            (case.offload is not Offload.NONE and _any_expert(case, _BNB))
            or (case.offload not in (Offload.NONE, *_EXPERT) and case.text_encoder_quant in _BNB)
        ),
    ),
    Rule(
        what="text_encoder=cpu with bitsandbytes",
        why="bitsandbytes quantises weights as they reach the GPU, and these never do; take another text_encoder_quant",
        source=f"{_SOURCE}quantizers/bitsandbytes/bnb_quantizer.py",
        forbids=lambda case: case.text_encoder is TextEncoder.CPU and case.text_encoder_quant in _BNB,
    ),
    Rule(
        what="quant=gguf",
        why="it goes with a file: transformer_gguf, and transformer_2_gguf of the low-noise expert; T5 takes gguf_*",
        source=f"{_SOURCE}quantizers/gguf/gguf_quantizer.py",
        forbids=_gguf_files_amiss,
    ),
    Rule(
        what="fused_qkv with quant=gguf",
        why="the projections of a file are packed already when they would be fused; take gguf_q8_0, gguf_q5_0 or gguf_q4_0",
        source=f"{_SOURCE}models/transformers/transformer_wan.py",
        forbids=lambda case: case.fused_qkv and _any_expert(case, (Quant.GGUF,)),
    ),
    Rule(
        what="compile with gguf",
        why="torch.compile cannot trace diffusers' GGUF parameters; take torchao_int8",
        source=f"{_SOURCE}quantizers/gguf/utils.py",
        forbids=lambda case: case.compile is not Compile.NONE and _any_expert(case, _GGUF),
    ),
    Rule(
        what="text_encoder=cpu",
        why="this offload mode brings T5 to the device itself; take none, expert or group_block",
        source=f"{_SOURCE}pipelines/pipeline_utils.py",
        forbids=lambda case: case.text_encoder is TextEncoder.CPU and case.offload in (Offload.MODEL, Offload.SEQUENTIAL),
    ),
    Rule(
        what="vae_offload",
        why="this offload mode moves the VAE already; take none or expert",
        source=f"{_SOURCE}pipelines/pipeline_utils.py",
        forbids=lambda case: case.vae_offload and case.offload not in (Offload.NONE, *_EXPERT),
    ),
    Rule(
        what="compile with leaf offload",
        why="hooks on the layers inside what is compiled reach torch's recompile limit, and it gives up; take none, model or regional",
        source=f"{_SOURCE}hooks/group_offloading.py",
        forbids=lambda case: (
            (case.compile is not Compile.NONE and case.offload is Offload.SEQUENTIAL)
            or (case.compile is Compile.FULL and case.offload is Offload.GROUP_LEAF)
        ),
    ),
)


def _splits_sequence(case: Case) -> bool:
    return case.ulysses * case.ring > 1


def forbidden(case: Case) -> str:
    """Why the case's levers cannot work together, with the source; empty when they can."""
    return "; ".join(f"{rule.what}: {rule.why} ({rule.source})" for rule in FORBIDDEN if rule.forbids(case))


def problems(case: Case) -> list[str]:
    """Every reason why the case can run nowhere, one line each: the field, its value, the rule and the nearest valid choice."""
    found = bounds.problems(case)
    if case.model is Model.TI2V_5B and case.guidance_2 is not None:
        found.append(f"guidance_2={case.guidance_2}: {case.model} has one expert; leave it null")
    if case.model is Model.TI2V_5B and case.quant_2 is not None:
        found.append(f"quant_2={case.quant_2}: {case.model} has one expert; leave it null")
    if found:
        return found
    return shape_problems(case) or degree_problems(as_run(case))


def _group_options(case: Case) -> bool:
    switched = case.group_record_stream or case.group_non_blocking or case.group_low_cpu_mem or case.group_disk
    return switched or case.group_blocks > 1 or not case.group_stream


def _expert_quants(case: Case) -> set[Quant]:
    return {quant for component, quant in case.quants.items() if component != "text_encoder"}


def _any_expert(case: Case, quants: tuple[Quant, ...]) -> bool:
    """Whether an expert is kept as one of them."""
    return bool(_expert_quants(case) & set(quants))


def _any_moved(case: Case, quants: tuple[Quant, ...]) -> bool:
    """Whether an expert is, or T5 where the offload mode has it."""
    return _any_expert(case, quants) or (case.text_encoder is not TextEncoder.CPU and case.text_encoder_quant in quants)

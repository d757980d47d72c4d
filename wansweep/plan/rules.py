"""What can be said of a case before it runs: the rules that no machine changes.

`problems` are mistakes of a config, told before a sweep begins. `FORBIDDEN` are combinations of levers that a sweep's axes meet in good
faith: such a case is planned, skipped with the reason, and ends as one row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wansweep.case import Case, Model
from wansweep.levers import Attention, Cache, Compile, Offload, Quant, TextEncoder
from wansweep.plan.geometry import as_run, degree_problems, shape_problems

_SOURCE = "https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/"
_ISSUES = "https://github.com/huggingface/diffusers/issues/"

_GROUP = (Offload.GROUP_BLOCK, Offload.GROUP_LEAF)
_EXPERT = (Offload.EXPERT, Offload.EXPERT_PINNED)
_TORCHAO = (Quant.TORCHAO_INT8, Quant.TORCHAO_INT8_DYNAMIC, Quant.TORCHAO_FP8, Quant.TORCHAO_FP8_DYNAMIC)
_BNB = (Quant.BNB_8BIT, Quant.BNB_4BIT)
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


FORBIDDEN = (
    Rule(
        what="attention with ulysses",
        why="this backend cannot split a sequence over ranks; native, _native_cudnn, _native_flash, flash, _flash_3_hub and sage can",
        source=f"{_SOURCE}models/attention_dispatch.py",
        forbids=lambda case: case.ulysses > 1 and case.attention not in _SPLITS_SEQUENCES,
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
        what="group_disk with torchao",
        why="torchao's tensors cannot be parked in a safetensors file",
        source=f"{_SOURCE}hooks/group_offloading.py",
        forbids=lambda case: case.group_disk and case.quant in _TORCHAO,
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
        why="weights of a quantiser are more than one tensor a parameter, and the swap moves plain tensors; take model",
        source=f"{_SOURCE}quantizers",
        forbids=lambda case: case.offload in _EXPERT and case.quant not in (Quant.NONE, Quant.FP8_CAST),
    ),
    Rule(
        what="offload with bitsandbytes",
        why="bitsandbytes quantises weights as they reach the device, where they stay; take offload=none",
        source=f"{_SOURCE}quantizers/bitsandbytes/bnb_quantizer.py",
        forbids=lambda case: case.offload is not Offload.NONE and case.quant in _BNB,
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
        why="hooks on the layers inside what is compiled compile again and again; take none, expert, model, or regional with group_block",
        source=f"{_SOURCE}hooks/group_offloading.py",
        forbids=lambda case: (
            (case.compile is not Compile.NONE and case.offload in (Offload.GROUP_LEAF, Offload.SEQUENTIAL))
            or (case.compile is Compile.FULL and case.offload in _GROUP)
        ),
    ),
)


def forbidden(case: Case) -> str:
    """Why the case's levers cannot work together, with the source; empty when they can."""
    return "; ".join(f"{rule.what}: {rule.why} ({rule.source})" for rule in FORBIDDEN if rule.forbids(case))


def problems(case: Case) -> list[str]:
    """Every reason why the case can run nowhere, one line each: the field, its value, the rule and the nearest valid choice."""
    found = [f"{name}={value} is under {low}; nearest: {low}" for name, value, low in _lower_bounds(case) if value < low]
    if case.shift <= 0:
        found.append(f"shift={case.shift} is not above 0; the official shifts are 5.0 and 12.0")
    if case.cache_threshold is not None and case.cache_threshold <= 0:
        found.append(f"cache_threshold={case.cache_threshold} is not above 0; diffusers' defaults are 0.05 and 0.06")
    if case.model is Model.TI2V_5B and case.guidance_2 is not None:
        found.append(f"guidance_2={case.guidance_2}: {case.model} has one expert; leave it null")
    if found:
        return found
    return shape_problems(case) or degree_problems(as_run(case))


def _lower_bounds(case: Case) -> tuple[tuple[str, int, int], ...]:
    counts = (("steps", case.steps, 1), ("gpus", case.gpus, 1), ("seed", case.seed, 0), ("batch", case.batch, 1))
    degrees = (("ulysses", case.ulysses, 1), ("ring", case.ring, 1), ("cfg_parallel", case.cfg_parallel, 1))
    interval = 2 if case.cache_interval is None else case.cache_interval
    return (*counts, *degrees, ("group_blocks", case.group_blocks, 1), ("cache_interval", interval, 2))


def _group_options(case: Case) -> bool:
    switched = case.group_record_stream or case.group_non_blocking or case.group_low_cpu_mem or case.group_disk
    return switched or case.group_blocks > 1 or not case.group_stream

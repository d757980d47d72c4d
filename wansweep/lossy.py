"""Which levers change the video, and which only its price.

Lossy, since they compute something else than the official code: quantised weights; caches, which leave blocks out; SageAttention, which
quantises Q and K to INT8 (arXiv 2410.02367); fp16 experts, which are trained in bf16; a VAE in fewer bits than its fp32; VAE tiles, which are
blended where they overlap and see no pixel beyond (diffusers AutoencoderKLWan.tiled_decode).

Lossless up to the order of sums: offload and where T5 and the VAE wait; parallel degrees and FSDP; exact attention backends, flash, cuDNN and
flex among them (arXiv 2205.14135: "exact attention"); fused projections; VAE slices; torch.compile.
"""

from __future__ import annotations

from dataclasses import replace

from wansweep.case import Case, declared_fields
from wansweep.levers import Attention, Cache, Dtype, Quant

# Field to its lossless value; a case that differs has pulled a lossy lever.
LOSSLESS: dict[str, object] = {
    "quant": Quant.NONE,
    "quant_2": None,
    "transformer_gguf": "",
    "transformer_2_gguf": "",
    "text_encoder_quant": Quant.NONE,
    "cache": Cache.NONE,
    "cache_threshold": None,
    "cache_interval": None,
    "vae_dtype": Dtype.FP32,
    "vae_tiling": False,
}
# What does not change the video, and so may differ between a lossy case and the lossless one that it is held against.
FREE = (
    "name",
    "offload",
    "gpus",
    "ulysses",
    "ring",
    "cfg_parallel",
    "fsdp",
    "attention",
    "vae_slicing",
    "fused_qkv",
    "group_blocks",
    "group_stream",
    "group_record_stream",
    "group_non_blocking",
    "group_low_cpu_mem",
    "group_disk",
    "text_encoder",
    "vae_offload",
    "compile",
    "compile_backend",
)


def lossy_levers(case: Case) -> list[str]:
    """The lossy levers that a case pulls, as ``field=value``; empty for a lossless one."""
    pulled = [f"{name}={getattr(case, name)}" for name, lossless in LOSSLESS.items() if getattr(case, name) != lossless]
    pulled += [f"attention={case.attention}"] * ("sage" in case.attention)
    return pulled + [f"dtype={case.dtype}"] * (case.dtype is Dtype.FP16)


def without_loss(case: Case) -> Case:
    """The case with its lossy levers let go; the others, and fp32 experts, stay."""
    dtype = Dtype.BF16 if case.dtype is Dtype.FP16 else case.dtype
    attention = Attention.NATIVE if "sage" in case.attention else case.attention
    return replace(case, dtype=dtype, attention=attention, **LOSSLESS)  # type: ignore[arg-type]


def workload(case: Case) -> tuple[object, ...]:
    """What a case is asked to make, whatever the price: only cases that agree on it are alternatives to each other."""
    plain = replace(case, dtype=Dtype.BF16, **LOSSLESS)  # type: ignore[arg-type]
    return tuple(getattr(plain, field.name) for field in declared_fields() if field.name not in FREE)

"""Whose code runs the networks: what it allocates and moves beside the products, and what surrounds its forwards.

wansweep runs diffusers, which is traced (`plan.trace`). Published figures are often of other code; so that they can be predicted as what they
are, and the formulas judged by them, three more stacks are described by counts of their operators and by where they keep what. Nothing here is
fitted to a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from wansweep.levers import Attention


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """Code that runs Wan2.2.

    Attributes:
        name: As ``stack=`` has it.
        held_bytes: Bytes live at once, a token and channel; null to trace.
        whole_bytes: Of these, what is made for the whole sequence before it is split.
        moved_bytes: Bytes that memory-bound kernels move, a token, channel and block; null to trace.
        tf32_time_embedding: The time embedding is made for every token, of fp32 numbers on tensor cores, on every rank.
        attention: The kernel that it takes where the case says native; null for torch's choice.
        fsdp_fp32: FSDP keeps its shards as the checkpoint has them, in fp32, and shards T5 too.
        text_fp32_on_host: T5 computes in fp32 and waits in pinned host memory, from where it comes for each video.
    """

    name: str
    held_bytes: float | None = None
    whole_bytes: float = 0.0
    moved_bytes: float | None = None
    tf32_time_embedding: bool = False
    attention: Attention | None = None
    fsdp_fp32: bool = False
    text_fp32_on_host: bool = False


DIFFUSERS = Stack(name="diffusers")
# Wan-Video/Wan2.2 at 42bf4cf: its WanAttentionBlock traced on meta with its flash_attention as one kernel, at four lengths: 90.2 bytes are
# live a token and channel, 504 (A14B) to 512 (5B) are moved a block: modulation a token in fp32, rotary positions in complex128. Under
# autocast to fp32 the time embedding of every token is an fp32 product (wan/modules/model.py, forward); sequences are split after it, as views
# of the whole (7 fp32 values a token and channel). The code leaves TF32 as it finds it; that its published table was run with it is concluded
# from 4 and 8 H100: what is not shared there takes 21 s at 720p, where that product alone would take 43 s without. Its checkpoints are fp32,
# and --convert_model_dtype is not applied with FSDP (wan/text2video.py, _configure_model).
OFFICIAL = Stack(
    name="official",
    held_bytes=90.2,
    whole_bytes=28.0,
    moved_bytes=504.0,
    tf32_time_embedding=True,
    attention=Attention.FLASH_3,
    fsdp_fp32=True,
)
# Engines with fused kernels for norm, modulation and rotary positions (LightX2V): each stream of tokens is read and written once a
# fused step, 16 times 2 bytes there and back, and the feed-forward's inner width once.
FUSED = Stack(name="fused", moved_bytes=75.0, attention=Attention.FLASH_3)
# sglang has such kernels too. Its T5 is fp32 (python/sglang/multimodal_gen/configs/pipeline_configs/wan.py, text_encoder_precisions) and waits
# on the host (runtime/server_args.py, _adjust_offload: text_encoder_cpu_offload for video, as of its PR 21248).
SGLANG = Stack(name="sglang", moved_bytes=75.0, attention=Attention.FLASH_3, text_fp32_on_host=True)
STACKS = {stack.name: stack for stack in (DIFFUSERS, OFFICIAL, FUSED, SGLANG)}

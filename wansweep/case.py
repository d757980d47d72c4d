"""The Case: one configuration of a Wan2.2 run, frozen and flat.

What is here is what the user declares. What really happened is `record.Resolved`; the two are kept side by side.
Field names and defaults follow Wan2.2's own (wan/configs/*.py) and diffusers' WanPipeline.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum


class Model(StrEnum):
    """The three Wan2.2 families that diffusers loads."""

    TI2V_5B = "ti2v_5b"
    T2V_A14B = "t2v_a14b"
    I2V_A14B = "i2v_a14b"

    @property
    def has_two_experts(self) -> bool:
        """Whether a high-noise and a low-noise expert share the steps."""
        return self is not Model.TI2V_5B


class Task(StrEnum):
    """What the video is made from: a text, or an image and a text."""

    T2V = "t2v"
    I2V = "i2v"


class Offload(StrEnum):
    """Where weights wait while they are not computing, cheapest in time first (diffusers' names).

    expert is ours: only the two A14B experts change places, from pinned or pageable host memory.
    """

    NONE = "none"
    EXPERT_PINNED = "expert_pinned"
    EXPERT = "expert"
    MODEL = "model"
    GROUP_BLOCK = "group_block"
    GROUP_LEAF = "group_leaf"
    SEQUENTIAL = "sequential"


class Dtype(StrEnum):
    """Number format of weights that are not quantised. The official code has transformers and text encoder in bf16, the VAE in fp32."""

    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"


class Attention(StrEnum):
    """Backends of diffusers' attention dispatcher that run on NVIDIA GPUs or CPUs, by its names (AttentionBackendName)."""

    NATIVE = "native"
    NATIVE_MATH = "_native_math"
    NATIVE_FLASH = "_native_flash"
    NATIVE_CUDNN = "_native_cudnn"
    NATIVE_EFFICIENT = "_native_efficient"
    FLEX = "flex"
    XFORMERS = "xformers"
    FLASH = "flash"
    FLASH_HUB = "flash_hub"
    FLASH_VARLEN = "flash_varlen"
    FLASH_VARLEN_HUB = "flash_varlen_hub"
    FLASH_3 = "_flash_3"
    FLASH_3_VARLEN = "_flash_varlen_3"
    FLASH_3_HUB = "_flash_3_hub"
    FLASH_3_VARLEN_HUB = "_flash_3_varlen_hub"
    FLASH_4_HUB = "flash_4_hub"
    SAGE = "sage"
    SAGE_HUB = "sage_hub"
    SAGE_BLACKWELL_HUB = "sage_blackwell_hub"
    SAGE_VARLEN = "sage_varlen"
    SAGE_INT8_FP8 = "_sage_qk_int8_pv_fp8_cuda"
    SAGE_INT8_FP8_SM90 = "_sage_qk_int8_pv_fp8_cuda_sm90"
    SAGE_INT8_FP16 = "_sage_qk_int8_pv_fp16_cuda"
    SAGE_INT8_FP16_TRITON = "_sage_qk_int8_pv_fp16_triton"


class Cache(StrEnum):
    """What is kept from one step to spare computing in the next (diffusers' caches that do something on Wan)."""

    NONE = "none"
    FIRST_BLOCK = "first_block"
    TAYLORSEER = "taylorseer"
    PAB = "pab"
    MAG = "mag"


class Quant(StrEnum):
    """How the transformers' weights are kept: library, format, and whether activations are quantised too (dynamic)."""

    NONE = "none"
    FP8_CAST = "fp8_cast"
    TORCHAO_INT8 = "torchao_int8"
    TORCHAO_INT8_DYNAMIC = "torchao_int8_dynamic"
    TORCHAO_FP8 = "torchao_fp8"
    TORCHAO_FP8_DYNAMIC = "torchao_fp8_dynamic"
    QUANTO_INT8 = "quanto_int8"
    BNB_8BIT = "bnb_8bit"
    BNB_4BIT = "bnb_4bit"


class TextEncoder(StrEnum):
    """Where T5 is: with the offload mode, always on the CPU, or gone once the prompt is encoded."""

    PLACED = "placed"
    CPU = "cpu"
    DROPPED = "dropped"


class Compile(StrEnum):
    """What torch.compile compiles: nothing, one block that all of its kind share, or a whole expert."""

    NONE = "none"
    REGIONAL = "regional"
    FULL = "full"


class Weights(StrEnum):
    """Where weights come from, when it is not a local folder."""

    TINY = "tiny"
    RANDOM = "random"
    HUB = "hub"


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One configuration. Two cases with equal declared fields are one case.

    Attributes:
        model: Wan2.2 family.
        task: t2v or i2v; only TI2V-5B can do both.
        width: Pixels.
        height: Pixels.
        frames: Frames of video, 4n+1.
        steps: Denoising steps.
        shift: Flow shift of the scheduler. Decides how many steps each A14B expert gets.
        guidance: CFG scale; of the high-noise expert where there are two. At most 1 means no CFG.
        guidance_2: CFG scale of the low-noise expert; null for a model with one.
        weights: ``tiny``, ``random``, ``hub`` or a folder in diffusers' layout.
        prompt: Text prompt.
        negative_prompt: Text for the unconditional forward.
        name: Set for cases that the sweep names; part of the identity, so that one setting can be run under two names.
        seed: Of the noise.
        dtype: Number format of transformers and text encoder.
        offload: Offload mode.
        gpus: Ranks of the gang, one GPU each; the product of the parallel degrees.
        ulysses: Degree of Ulysses sequence parallelism.
        attention: Backend of diffusers' dispatcher, on both experts.
        vae_dtype: Number format of the VAE.
        vae_tiling: The VAE works in tiles.
        vae_slicing: The VAE works one video at a time.
        fused_qkv: Query, key and value in one projection.
        cache: What is kept from step to step.
        cache_threshold: Error that first_block and mag allow; null for diffusers' default.
        cache_interval: Steps that taylorseer and pab compute once in; null for diffusers' default.
        quant: How the transformers' weights are kept.
        group_blocks: Blocks that group_block moves together.
        group_stream: Group offload copies in a stream of its own, where the device has streams.
        group_record_stream: With a stream: memory is given back without waiting for it.
        group_non_blocking: Group offload does not wait for its copies.
        group_low_cpu_mem: With a stream: weights are pinned as they are copied, not all beforehand.
        group_disk: Group offload parks weights on disk.
        text_encoder: Where T5 is.
        vae_offload: The VAE waits on the CPU while it does not compute.
        compile: What torch.compile compiles.
        compile_backend: By torch.compile's names.
        label: What tables call the case; given by the sweep, no part of the identity.
    """

    model: Model
    task: Task
    width: int
    height: int
    frames: int
    steps: int
    shift: float
    guidance: float
    guidance_2: float | None
    weights: str
    prompt: str
    negative_prompt: str
    name: str = ""
    seed: int = 42
    dtype: Dtype = Dtype.BF16
    offload: Offload = Offload.NONE
    gpus: int = 1
    ulysses: int = 1
    attention: Attention = Attention.NATIVE
    vae_dtype: Dtype = Dtype.FP32
    vae_tiling: bool = False
    vae_slicing: bool = False
    fused_qkv: bool = False
    cache: Cache = Cache.NONE
    cache_threshold: float | None = None
    cache_interval: int | None = None
    quant: Quant = Quant.NONE
    group_blocks: int = 1
    group_stream: bool = True
    group_record_stream: bool = False
    group_non_blocking: bool = False
    group_low_cpu_mem: bool = False
    group_disk: bool = False
    text_encoder: TextEncoder = TextEncoder.PLACED
    vae_offload: bool = False
    compile: Compile = Compile.NONE
    compile_backend: str = "inductor"
    label: str = field(default="", compare=False, metadata={"declared": False})

    @property
    def id(self) -> str:
        """Twelve hex digits over the declared fields.

        Fields at their default are left out, so a field added later does not change the ids of old runs.
        """
        declared = {
            f.name: getattr(self, f.name) for f in declared_fields() if f.default is dataclasses.MISSING or getattr(self, f.name) != f.default
        }
        return hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def parallel(self) -> str:
        """The parallel degrees in words: ``ulysses2``, or ``none`` on one GPU."""
        return f"ulysses{self.ulysses}" if self.ulysses > 1 else "none"


def declared_fields() -> tuple[dataclasses.Field[object], ...]:
    """The fields a user may set, in order."""
    return tuple(f for f in dataclasses.fields(Case) if f.metadata.get("declared", True))

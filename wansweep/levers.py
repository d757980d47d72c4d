"""The levers: every closed set of choices that a case makes beyond its model, size and prompt.

Values are what a user writes; names are diffusers' or the field's own.
"""

from __future__ import annotations

from enum import StrEnum


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
    """How a component's weights are kept: library, format, and whether activations are quantised too (dynamic).

    gguf alone means a file, which says its own format; gguf_* quantise the loaded weights.
    """

    NONE = "none"
    FP8_CAST = "fp8_cast"
    TORCHAO_INT8 = "torchao_int8"
    TORCHAO_INT8_DYNAMIC = "torchao_int8_dynamic"
    TORCHAO_FP8 = "torchao_fp8"
    TORCHAO_FP8_DYNAMIC = "torchao_fp8_dynamic"
    QUANTO_INT8 = "quanto_int8"
    QUANTO_FP8 = "quanto_fp8"
    BNB_8BIT = "bnb_8bit"
    BNB_4BIT = "bnb_4bit"
    GGUF_Q8_0 = "gguf_q8_0"
    GGUF_Q5_0 = "gguf_q5_0"
    GGUF_Q4_0 = "gguf_q4_0"
    GGUF = "gguf"


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


class Solver(StrEnum):
    """What turns a prediction of noise into the next latent, on the same shifted flow schedule; the official default is UniPC."""

    UNIPC = "unipc"
    DPMPP = "dpmpp"
    EULER = "euler"


class Weights(StrEnum):
    """Where weights come from, when it is not a local folder."""

    TINY = "tiny"
    RANDOM = "random"
    HUB = "hub"

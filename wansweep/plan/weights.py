"""Bytes of weights, by component and as they are kept: closed formulas over the architecture, held to the checkpoints' counts by test.

A half-precision transformer keeps its norms' weights, its modulation tables and its time embedding in fp32 (diffusers
WanTransformer3DModel._keep_in_fp32_modules). A quantiser takes the linear layers inside the blocks and leaves the rest
(`trial.quantise`).
"""

from __future__ import annotations

from dataclasses import dataclass

from wansweep.levers import Dtype, Quant
from wansweep.plan.architecture import TextEncoder, Transformer

BYTES = {Dtype.BF16: 2, Dtype.FP16: 2, Dtype.FP32: 4}
# Bytes a quantised weight. Scales a row or channel add a share of 1/1000 and are left out; nf4 has an fp32 scale every 64 weights
# (bitsandbytes functional.quantize_4bit, blocksize).
QUANTISED_BYTES: dict[str, float] = {
    Quant.FP8_CAST: 1.0,
    Quant.TORCHAO_INT8: 1.0,
    Quant.TORCHAO_INT8_DYNAMIC: 1.0,
    Quant.TORCHAO_FP8: 1.0,
    Quant.TORCHAO_FP8_DYNAMIC: 1.0,
    Quant.QUANTO_INT8: 1.0,
    Quant.BNB_8BIT: 1.0,
    Quant.BNB_4BIT: 0.5 + 4 / 64,
    # A block of 32 weights and its fp16 scale, q5's with a fifth bit each (ggml-common.h). A gguf file has its own: taken as the largest.
    "gguf_q8_0": 34 / 32,
    "gguf_q5_0": 22 / 32,
    "gguf_q4_0": 18 / 32,
    "gguf": 34 / 32,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerCount:
    """Parameters of the denoiser, or of one expert; counts.

    Attributes:
        linears: Weights of the linear layers inside the blocks, which a quantiser takes.
        islands: What stays in fp32.
        others: Everything else.
    """

    linears: int
    islands: int
    others: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.linears + self.islands + self.others


def kept_bytes(quant: Quant, dtype: Dtype) -> float:
    """Bytes a weight that a quantiser takes, or of the format where there is none."""
    return BYTES[dtype] if quant is Quant.NONE else QUANTISED_BYTES[quant]


def transformer_count(numbers: Transformer) -> TransformerCount:
    """Parameters of a transformer by how they are kept."""
    dim, ffn, layers = numbers.dim, numbers.ffn_dim, numbers.layers
    biases = 8 * dim + ffn + dim
    attention_norms = 4 * dim  # of q and k, in self- and cross-attention: norm_q and norm_k are no islands
    time_embedder = numbers.freq_dim * dim + dim + dim * dim + dim
    patches = numbers.patch**2 * dim * (numbers.in_channels + numbers.out_channels) + dim + numbers.patch**2 * numbers.out_channels
    text = numbers.text_dim * dim + dim + dim * dim + dim
    time_projection = 6 * dim * dim + 6 * dim
    return TransformerCount(
        linears=layers * (8 * dim * dim + 2 * dim * ffn),
        # Each block's modulation and its one norm with weights, and the modulation of the output.
        islands=layers * (6 * dim + 2 * dim) + 2 * dim + time_embedder,
        others=layers * (biases + attention_norms) + patches + text + time_projection,
    )


def text_encoder_count(numbers: TextEncoder) -> int:
    """Parameters of the text encoder; each block has its own table of relative positions (32 buckets)."""
    inner = numbers.heads * numbers.head_dim
    block = 4 * numbers.dim * inner + 3 * numbers.dim * numbers.ffn_dim + 2 * numbers.dim + 32 * numbers.heads
    return numbers.vocabulary * numbers.dim + numbers.layers * block + numbers.dim


def transformer_bytes(numbers: Transformer, dtype: Dtype, quant: Quant = Quant.NONE) -> int:
    """Bytes of one expert's weights as they are kept."""
    count, plain = transformer_count(numbers), BYTES[dtype]
    return round(count.linears * kept_bytes(quant, dtype) + count.islands * 4 + count.others * plain)


def text_encoder_bytes(numbers: TextEncoder, dtype: Dtype, quant: Quant = Quant.NONE) -> int:
    """Bytes of the text encoder's weights as they are kept; its embedding is not quantised."""
    embedding = numbers.vocabulary * numbers.dim
    return round(embedding * BYTES[dtype] + (text_encoder_count(numbers) - embedding) * kept_bytes(quant, dtype))


def largest_linear_bytes(numbers: Transformer, dtype: Dtype) -> int:
    """Bytes of the largest weight inside a block: what is made of a quantised one while it computes, and what leaf offload brings."""
    return numbers.dim * max(numbers.dim, numbers.ffn_dim) * BYTES[dtype]


def pinned_bytes(numbers: Transformer, dtype: Dtype, quant: Quant = Quant.NONE) -> int:
    """Host memory that a pinned copy of one expert takes: torch's pool rounds each block up to a power of two."""
    each = kept_bytes(quant, dtype)
    square, wide = (_power_of_two(numbers.dim * width * each) for width in (numbers.dim, numbers.ffn_dim))
    count = transformer_count(numbers)
    return numbers.layers * (8 * square + 2 * wide) + count.islands * 4 + count.others * BYTES[dtype]


def _power_of_two(size: float) -> int:
    return 1 << (round(size) - 1).bit_length()

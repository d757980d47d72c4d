"""What a card reaches in practice: the datasheet's peak times a share, under a ceiling that the chip's other units set.

Every share and ceiling is a measurement of that kernel alone, or says that it is assumed; none is taken from the time of a whole video, which
is what they predict. `Calibration` corrects them by measurements of a run folder.

Sources:
    MAMF: largest bf16 product of any shape, ml-engineering compute/accelerator (A100 SXM 271.2, H100 SXM 794.5, B200 SXM 1745; fp8 1402.6
        on H100, 3432.5 on B200; TFLOP/s).
    cuBLAS: bf16, H100 SXM, normally distributed values: 741.1 TFLOP/s for 6144 x 6144 x 6144, 797.8 for 8192 (pranjalssh/fast.cu, README,
        kernel 0). The first is taken, as the size nearest to the experts' width of 5120; it is 0.93 of MAMF, the share taken of other
        data-centre cards' MAMF.
    FA3: FlashAttention-3 (arXiv 2407.08608), figure 5, forward, head dimension 128, 16k, not causal, H100 SXM: FA3 648, cuDNN 595, FA2 370.
    FA2: FlashAttention-2 (arXiv 2307.08691), figure 4, same shape, A100 SXM: 225 at most. Cited, not looked up again.
    Sage: on an RTX 4090 SageAttention does about 2.1 times the operations a second of FA2 (arXiv 2410.02367v6, abstract), SageAttention2 about
        3 times (2411.10958v4, abstract). FA2's own 165 TFLOP/s there are cited, not looked up again.
    Boards: largest torch.matmul of normal values, square up to 10240, bf16 and fp32 in TFLOP/s, several boards of a kind
        (zzc0721/torch-performance-test-data, database.md at 9d82827): A100 SXM 265, 19.2; A6000 123, 23.9; RTX 4090 165, 54.5; L40S 269, 46.9;
        L4 71, 15.4; H100 SXM 790, 52; H200 790, 51.3; H20 142, 32; B200 1696, 66.2; RTX 5090 235, 67; RTX PRO 6000 414, 77. Times 0.93, as
        MAMF, the bf16 ones are within 9 % of what is taken here, L4 aside, whose boards do not hold that for longer than such a test.
    L20: cuBLAS half products reach 105 to 115 of 119.5 TFLOP/s on an Ada card that is not held back by power (DefTruth/CUDA-Learn-Notes,
        hgemm/README.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wansweep.hardware import Gpu
from wansweep.levers import Attention, Dtype, Quant

# Copies and pointwise kernels reach about this share of the memory's bandwidth, less where rows are reduced. Assumed for all cards.
MEMORY_SHARE = 0.88
# Weights that stream from pinned memory beside computing: the experts' switch of 26.6 GiB takes 0.80 s on an H100 (sglang's CI baselines).
PINNED_SHARE = 0.57
# Pageable copies go through the CPU and a bounce buffer of the driver's, whatever the link, and on their way back into memory that is touched
# for the first time: 63 GB took 7.5 s to an H20 and 27.2 s back (vllm-omni PR 5922). 6 and 2.6 GB/s were seen on a B200's node (FastVideo PR
# 1836), 12.4 and 0.9 in the seed report (57 GB in 4.6 s; out and in again in 69.8 s).
FROM_PAGEABLE_BYTES_PER_S = 8.4e9
TO_PAGEABLE_BYTES_PER_S = 2.3e9
# NCCL on NVLink reaches about 0.7 of the printed rate in an all-to-all (nccl-tests on eight H100: 310 to 340 GB/s). Assumed for all.
NVLINK_SHARE = 0.70
# GeForce and L cards have no peer access: NCCL stages through the host, two crossings that share its memory. Assumed.
PCIE_PEER_SHARE = 0.22
# Files from the page cache or a fast disk, read by one rank; assumed.
READ_BYTES_PER_S = 3e9
# Random values made on the device; assumed, far under the memory's bandwidth because a generator's arithmetic binds.
FILL_BYTES_PER_S = 100e9
# A bf16 product on a server's CPU; assumed.
CPU_FLOP_PER_S = 1e12
# An operator of eager torch costs the host this; the GPU waits where its kernels are shorter. Assumed.
LAUNCH_S = 6e-6
# torch.compile fuses what is memory-bound: a stream of tokens is read and written once a step instead of once an operator. Counted on a block
# of the A14B: 70 of 361 bytes a token and channel.
COMPILED_MOVES = 0.2
# A compilation before the first step; assumed.
COMPILE_S = {"none": 0.0, "regional": 25.0, "full": 90.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """How near a kernel comes to the card's dense peak in its number format.

    Attributes:
        share: Of the peak, where nothing else is in the way.
        ceiling: FLOP/s that its other units allow whatever the peak is, as on cards that share a chip but not its tensor rate; null for none.
    """

    share: float
    ceiling: float | None = None

    def of(self, peak: float) -> float:
        """FLOP/s reached where the peak is this."""
        reached = self.share * peak
        return reached if self.ceiling is None else min(reached, self.ceiling)


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Kernels of a chip generation.

    Attributes:
        matmul: bf16 products, large (cuBLAS).
        flash: FA2, which torch's own attention takes.
        cudnn: cuDNN's attention.
        flash_3: The newest FlashAttention for the chip: FA3 on Hopper, FA4 on B200; FA2 elsewhere.
        sage: INT8 products of q and k, of the bf16 peak.
        convolution: 3D convolutions of the VAE, of the tf32 or 16-bit peak.
        fp32: fp32 products.
        flop_per_j: FLOP that a joule pays for, where the power limit binds; null where none is known to.
        fp32_flop_per_j: Likewise in fp32.
    """

    matmul: Reach
    flash: Reach
    cudnn: Reach
    flash_3: Reach
    sage: Reach
    convolution: Reach
    fp32: Reach
    flop_per_j: float | None = None
    fp32_flop_per_j: float | None = None


_AMPERE = Family(
    matmul=Reach(share=0.81),  # MAMF x cuBLAS
    flash=Reach(share=0.71),  # FA2
    cudnn=Reach(share=0.71),
    flash_3=Reach(share=0.71),
    sage=Reach(share=1.1),  # assumed: INT8 products of q and k, half-precision ones of v
    convolution=Reach(share=0.60),  # assumed, as Ada
    fp32=Reach(share=0.98),  # Boards, A100
)
# Half of the fp32 units of these share their issue port with integers.
_AMPERE_GEFORCE = replace(_AMPERE, fp32=Reach(share=0.62))  # Boards, A6000
_ADA = Family(
    matmul=Reach(share=0.92),  # L20
    flash=Reach(share=0.95),  # FA2 has 165 of 165.2 on an RTX 4090, which boosts above the clock of the datasheet
    cudnn=Reach(share=0.95),
    flash_3=Reach(share=0.95),
    sage=Reach(share=2.0),  # Sage: 2.1 times FA2
    convolution=Reach(share=0.60),  # assumed: implicit products of 27 taps with a transposition before
    # Full-rate cards of 72 to 350 W do not hold the datasheet's clock. Assumed from L4 boards, which reach 45 to 50 of 121 TFLOP/s.
    flop_per_j=0.70e12,
    fp32=Reach(share=0.66),  # Boards, RTX 4090
    fp32_flop_per_j=0.134e12,  # Boards, L40S
)
_HOPPER = Family(
    matmul=Reach(share=0.93, ceiling=741e12),  # cuBLAS; the share binds on H20 alone
    flash=Reach(share=0.60, ceiling=370e12),  # FA3; mma.sync issues 0.6 of what wgmma does
    cudnn=Reach(share=0.90, ceiling=595e12),  # FA3
    flash_3=Reach(share=0.93, ceiling=648e12),  # FA3
    sage=Reach(share=1.2, ceiling=850e12),  # assumed
    # The A14B's VAE decodes 480p in 2.0 to 2.3 s on an H100, in bf16 (LightX2V's stage table): 172 to 212e12 beside what is memory-bound; a
    # decode in fp32 says 286e12 (sglang PR 26214). Weights in the channels-last layout reach 800e12 in bf16 (sglang PR 34125), but diffusers'
    # are not in it.
    convolution=Reach(share=0.60, ceiling=213e12),
    fp32=Reach(share=0.77),  # Boards, H100 and H200; 0.73 on H20
)
_BLACKWELL = Family(
    matmul=Reach(share=0.72),  # MAMF x cuBLAS
    flash=Reach(share=0.20),  # FA2's mma.sync on sm_100; assumed
    cudnn=Reach(share=0.62),  # assumed, a little under it
    flash_3=Reach(share=0.70),  # assumed from what FlashAttention 4 is reported to reach: 1.6 PFLOP/s
    sage=Reach(share=0.5),  # assumed
    convolution=Reach(share=0.35),  # assumed
    fp32=Reach(share=0.88),  # Boards
)
# GeForce Blackwell (sm_120) has Ada's tensor instructions. An RTX 5090 boosts above the clock of its datasheet: Boards times 0.93, as MAMF.
_BLACKWELL_GEFORCE = replace(_ADA, matmul=Reach(share=1.04))
_FAMILIES = {(8, 0): _AMPERE, (8, 6): _AMPERE_GEFORCE, (8, 9): _ADA, (9, 0): _HOPPER, (10, 0): _BLACKWELL, (12, 0): _BLACKWELL_GEFORCE}

_FLASH_3 = (Attention.FLASH_3, Attention.FLASH_3_HUB, Attention.FLASH_3_VARLEN, Attention.FLASH_3_VARLEN_HUB, Attention.FLASH_4_HUB)
_SAGE = tuple(attention for attention in Attention if "sage" in attention)
# Attention as products that read and write all scores is bound by them; xformers' and torch's efficient kernels reach half of FA2 (FA2, figure
# 4).
_EFFICIENT = (Attention.NATIVE_EFFICIENT, Attention.XFORMERS)
_EFFICIENT_SHARE, _MATH_SHARE = 0.6, 0.15
# 8-bit products on tensor cores against bf16 ones on the same card: MAMF, 1402.6 over 794.5 and 3432.5 over 1745. Int8's is assumed.
_EIGHT_BIT = {Quant.TORCHAO_FP8_DYNAMIC: 1.77, Quant.TORCHAO_INT8_DYNAMIC: 1.5}


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Factors on what a card reaches, learnt from a run folder; 1 leaves a rate as the table has it.

    Attributes:
        matmul: On products and what is memory-bound.
        attention: On attention.
        vae: On encoding and decoding.
        transfer: On copies between host and device.
    """

    matmul: float = 1.0
    attention: float = 1.0
    vae: float = 1.0
    transfer: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """What one GPU does a second; FLOP and bytes.

    Attributes:
        matmul: Products of the transformer, in the case's format.
        attention: Of the case's kernel.
        convolution: Of the VAE, in its format.
        fp32: Products in fp32.
        tf32: Products of fp32 numbers on tensor cores, where torch is allowed to; as bf16's, at their peak.
        memory: Bytes of memory-bound kernels.
        vae_memory: Likewise in the VAE.
        pinned: Bytes from pinned host memory, beside computing.
        from_pageable: Bytes from pageable memory.
        to_pageable: Bytes back into it.
        peer: Bytes to other ranks.
    """

    matmul: float
    attention: float
    convolution: float
    fp32: float
    tf32: float
    memory: float
    vae_memory: float
    pinned: float
    from_pageable: float
    to_pageable: float
    peer: float


def family(gpu: Gpu) -> Family:
    """The kernels of a card's generation."""
    return _FAMILIES[gpu.compute_capability]


def rates(gpu: Gpu, *, dtype: Dtype, vae_dtype: Dtype, quant: Quant, attention: Attention, calibration: Calibration) -> Rates:
    """What a card reaches on a case's networks."""
    kernels = family(gpu)
    half = gpu.bf16 if gpu.bf16 is not None else gpu.fp32

    def powered(flops: float, flop_per_j: float | None = kernels.flop_per_j) -> float:
        return flops if flop_per_j is None else min(flops, flop_per_j * gpu.tdp_w)

    fp32 = powered(kernels.fp32.of(gpu.fp32), kernels.fp32_flop_per_j)
    tf32 = max(fp32, powered(kernels.matmul.of(half)) * (gpu.tf32 or 0.0) / half)
    plain = dtype is Dtype.FP32
    matmul = fp32 if plain else powered(kernels.matmul.of(half)) * _EIGHT_BIT.get(quant, 1.0)
    attend = fp32 if plain else powered(_attention(kernels, attention).of(half))
    peak = (gpu.tf32 or gpu.fp32) if vae_dtype is Dtype.FP32 else half
    memory = MEMORY_SHARE * gpu.memory_bytes_per_s
    peer = NVLINK_SHARE * gpu.nvlink_bytes_per_s if gpu.nvlink_bytes_per_s else PCIE_PEER_SHARE * gpu.pcie_bytes_per_s
    return Rates(
        matmul=matmul * calibration.matmul,
        attention=attend * calibration.attention,
        convolution=powered(kernels.convolution.of(peak)) * calibration.vae,
        fp32=fp32 * calibration.matmul,
        tf32=tf32 * calibration.matmul,
        memory=memory * calibration.matmul,
        vae_memory=memory * calibration.vae,
        pinned=PINNED_SHARE * gpu.pcie_bytes_per_s * calibration.transfer,
        from_pageable=FROM_PAGEABLE_BYTES_PER_S * calibration.transfer,
        to_pageable=TO_PAGEABLE_BYTES_PER_S * calibration.transfer,
        peer=peer,
    )


def _attention(kernels: Family, attention: Attention) -> Reach:
    """The kernel behind a backend of diffusers' dispatcher; native is FA2 as torch chooses."""
    if attention in _FLASH_3:
        return kernels.flash_3
    if attention in _SAGE:
        return kernels.sage
    if attention is Attention.NATIVE_CUDNN:
        return kernels.cudnn
    if attention in _EFFICIENT:
        return Reach(share=kernels.flash.share * _EFFICIENT_SHARE, ceiling=kernels.flash.ceiling)
    if attention is Attention.NATIVE_MATH:
        return Reach(share=_MATH_SHARE)
    return kernels.flash

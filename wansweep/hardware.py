"""The GPU table: what each card could do at best, and where that is printed.

Peaks are DENSE, with fp32 accumulate. Datasheets headline the 2:1 sparse figure (L4, H100, H200, B200), and GeForce prints an
fp16-accumulate rate twice that of the fp32-accumulate one; both are halved here. `Gpu.fp32` is the rate of the CUDA cores, which torch uses
for fp32 matrix products by default; cuDNN convolutions (the VAE) default to tf32.

`usable_bytes` is the smallest total that torch reported for the named card in public logs and out-of-memory messages: drivers and ECC move it
by up to 0.6 GiB, so a card that runs is asked, and this is for planning without one. Makers' "GB" of memory are GiB.

Not here: what a card reaches in practice, and boards that share a chip but no figures (H100 PCIe and NVL, A100 PCIe, H200 NVL, RTX 4090 D and
laptop parts, RTX PRO 6000 Server and Max-Q). `find` answers None for them; a guess would make a wrong MFU look measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from wansweep.units import GIB, MIB

# PCI Express: transfers a second and lane; one bit a transfer, 128b/130b encoded (PCIe base specification, generations 3 to 5).
_PCIE_TRANSFERS_PER_S = {3: 8e9, 4: 16e9, 5: 32e9}


class Precision(StrEnum):
    """Number format of a matrix product, as its inputs are stored."""

    FP32 = "fp32"
    TF32 = "tf32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    INT8 = "int8"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One GPU model.

    Attributes:
        name: As ``hardware=`` has it.
        device_name: As NVML and torch report it.
        architecture: Generation.
        compute_capability: CUDA's major and minor.
        fp32, tf32, bf16, fp16, fp8, int8: Peak dense FLOP/s (int8: operations/s), fp32 accumulate; null where the card has no such unit.
        memory_bytes_per_s: Bandwidth of the device memory.
        vram_bytes: Nominal memory.
        usable_bytes: Total as CUDA sees it, before any context; null where no public figure is known.
        nvlink_bytes_per_s: In ONE direction, half of what datasheets print; null without NVLink.
        pcie_generation: Of the host link.
        pcie_lanes: Of the host link.
        tdp_w: Power limit as shipped.
        source: Documents of the figures, and what could not be confirmed.
    """

    name: str
    device_name: str
    architecture: str
    compute_capability: tuple[int, int]
    fp32: float
    tf32: float | None
    bf16: float | None
    fp16: float | None
    fp8: float | None
    int8: float | None
    memory_bytes_per_s: float
    vram_bytes: int
    usable_bytes: int | None
    nvlink_bytes_per_s: float | None
    pcie_generation: int
    pcie_lanes: int
    tdp_w: float
    source: str

    @property
    def pcie_bytes_per_s(self) -> float:
        """Raw bandwidth of the host link in one direction; copies of pinned memory reach about 80 to 90% of it."""
        return _PCIE_TRANSFERS_PER_S[self.pcie_generation] * self.pcie_lanes * 128 / 130 / 8


_ROWS = (
    Gpu(
        name="rtx4090",
        device_name="NVIDIA GeForce RTX 4090",
        architecture="Ada Lovelace",
        compute_capability=(8, 9),
        fp32=82.6e12,
        tf32=82.6e12,
        bf16=165.2e12,
        fp16=165.2e12,
        fp8=330.3e12,  # 660.6 in the whitepaper before v2.02, and still the fp16-accumulate rate
        int8=660.6e12,
        memory_bytes_per_s=1008e9,
        vram_bytes=24 * GIB,
        usable_bytes=24081 * MIB,  # up to 24217; 24564 under Windows
        nvlink_bytes_per_s=None,
        pcie_generation=4,
        pcie_lanes=16,
        tdp_w=450,
        source="NVIDIA Ada GPU architecture whitepaper v2.1, appendix A",
    ),
    Gpu(
        name="rtx5090",
        device_name="NVIDIA GeForce RTX 5090",
        architecture="Blackwell",
        compute_capability=(12, 0),
        fp32=104.8e12,
        tf32=104.8e12,
        bf16=209.5e12,
        fp16=209.5e12,
        fp8=419e12,
        int8=838e12,
        memory_bytes_per_s=1792e9,
        vram_bytes=32 * GIB,
        usable_bytes=32102 * MIB,
        nvlink_bytes_per_s=None,
        pcie_generation=5,
        pcie_lanes=16,
        tdp_w=575,
        source="NVIDIA RTX Blackwell GPU architecture whitepaper, table 3",
    ),
    Gpu(
        name="l4",
        device_name="NVIDIA L4",
        architecture="Ada Lovelace",
        compute_capability=(8, 9),
        fp32=30.3e12,
        tf32=60e12,
        bf16=121e12,
        fp16=121e12,
        fp8=242.5e12,
        int8=242.5e12,
        memory_bytes_per_s=300e9,
        vram_bytes=24 * GIB,
        usable_bytes=22563 * MIB,
        nvlink_bytes_per_s=None,
        pcie_generation=4,
        pcie_lanes=16,
        tdp_w=72,
        source="NVIDIA L4 datasheet (prints sparse figures: 120, 242, 485; halved). At 72 W no run holds the clock these figures assume.",
    ),
    Gpu(
        name="a10g",
        device_name="NVIDIA A10G",
        architecture="Ampere",
        compute_capability=(8, 6),
        fp32=35e12,
        tf32=35e12,
        bf16=70e12,
        fp16=70e12,
        fp8=None,
        int8=140e12,
        memory_bytes_per_s=600e9,
        vram_bytes=24 * GIB,
        usable_bytes=22587 * MIB,
        nvlink_bytes_per_s=None,
        pcie_generation=4,
        pcie_lanes=16,
        tdp_w=300,
        source="NVIDIA A10G datasheet for AWS, 2022-02-17 (not the A10: 125 TFLOP/s bf16, 150 W); fp32 and tf32 unconfirmed",
    ),
    Gpu(
        name="l40s",
        device_name="NVIDIA L40S",
        architecture="Ada Lovelace",
        compute_capability=(8, 9),
        fp32=91.6e12,
        tf32=183e12,
        bf16=362.05e12,
        fp16=362.05e12,
        fp8=733e12,
        int8=733e12,
        memory_bytes_per_s=864e9,
        vram_bytes=48 * GIB,
        usable_bytes=45495 * MIB,  # with ECC, on by default
        nvlink_bytes_per_s=None,
        pcie_generation=4,
        pcie_lanes=16,
        tdp_w=350,
        source="NVIDIA L40S datasheet (prints dense | sparse)",
    ),
    Gpu(
        name="rtx6000ada",
        device_name="NVIDIA RTX 6000 Ada Generation",
        architecture="Ada Lovelace",
        compute_capability=(8, 9),
        fp32=91.1e12,
        tf32=182.1e12,
        bf16=364.2e12,
        fp16=364.2e12,
        fp8=728.5e12,
        int8=728.5e12,
        memory_bytes_per_s=960e9,
        vram_bytes=48 * GIB,
        usable_bytes=48497 * MIB,  # ECC off, as shipped; turning it on takes about 3 GiB
        nvlink_bytes_per_s=None,
        pcie_generation=4,
        pcie_lanes=16,
        tdp_w=300,
        source="NVIDIA RTX Blackwell PRO GPU architecture whitepaper v1.0, table 4, Ada column (bf16); tf32, fp8, int8 from the chip's ratios",
    ),
    Gpu(
        name="rtxpro6000",
        device_name="NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
        architecture="Blackwell",
        compute_capability=(12, 0),
        fp32=126e12,
        tf32=251.9e12,
        bf16=503.8e12,
        fp16=503.8e12,
        fp8=1007.6e12,
        int8=1007.6e12,
        memory_bytes_per_s=1792e9,
        vram_bytes=96 * GIB,
        usable_bytes=97249 * MIB,  # 94.97 GiB; which of the three boards of this name is not said
        nvlink_bytes_per_s=None,
        pcie_generation=5,
        pcie_lanes=16,
        tdp_w=600,
        source="NVIDIA RTX Blackwell PRO GPU architecture whitepaper v1.0, appendix A (bf16); fp32, tf32, fp8, int8 from the chip's ratios",
    ),
    Gpu(
        name="a100-40gb",
        device_name="NVIDIA A100-SXM4-40GB",
        architecture="Ampere",
        compute_capability=(8, 0),
        fp32=19.5e12,
        tf32=156e12,
        bf16=312e12,
        fp16=312e12,
        fp8=None,
        int8=624e12,
        memory_bytes_per_s=1555e9,
        vram_bytes=40 * GIB,
        usable_bytes=40441 * MIB,
        nvlink_bytes_per_s=300e9,
        pcie_generation=4,
        pcie_lanes=16,
        tdp_w=400,
        source="NVIDIA A100 GPU architecture whitepaper, table 4",
    ),
    Gpu(
        name="a100-80gb",
        device_name="NVIDIA A100-SXM4-80GB",
        architecture="Ampere",
        compute_capability=(8, 0),
        fp32=19.5e12,
        tf32=156e12,
        bf16=312e12,
        fp16=312e12,
        fp8=None,
        int8=624e12,
        memory_bytes_per_s=2039e9,
        vram_bytes=80 * GIB,
        usable_bytes=81038 * MIB,
        nvlink_bytes_per_s=300e9,
        pcie_generation=4,
        pcie_lanes=16,
        tdp_w=400,
        source="NVIDIA A100 80GB datasheet",
    ),
    Gpu(
        name="h20",
        device_name="NVIDIA H20",
        architecture="Hopper",
        compute_capability=(9, 0),
        fp32=44e12,
        tf32=74e12,
        bf16=148e12,
        fp16=148e12,
        fp8=296e12,
        int8=296e12,
        memory_bytes_per_s=4000e9,
        vram_bytes=96 * GIB,
        usable_bytes=97285 * MIB,
        nvlink_bytes_per_s=450e9,
        pcie_generation=5,
        pcie_lanes=16,
        tdp_w=400,
        source="press reports of NVIDIA's HGX H20 brief (Tom's Hardware, TweakTown, 2024); NVIDIA publishes no datasheet",
    ),
    Gpu(
        name="h100",
        device_name="NVIDIA H100 80GB HBM3",
        architecture="Hopper",
        compute_capability=(9, 0),
        fp32=66.9e12,
        tf32=494.7e12,
        bf16=989.4e12,
        fp16=989.4e12,
        fp8=1978.9e12,
        int8=1978.9e12,
        memory_bytes_per_s=3352e9,
        vram_bytes=80 * GIB,
        usable_bytes=81082 * MIB,
        nvlink_bytes_per_s=450e9,
        pcie_generation=5,
        pcie_lanes=16,
        tdp_w=700,
        source="NVIDIA H100 datasheet, SXM column (prints sparse figures: 989, 1979, 3958; halved), more digits by the Hopper whitepaper",
    ),
    Gpu(
        name="h200",
        device_name="NVIDIA H200",
        architecture="Hopper",
        compute_capability=(9, 0),
        fp32=66.9e12,
        tf32=494.7e12,
        bf16=989.4e12,
        fp16=989.4e12,
        fp8=1978.9e12,
        int8=1978.9e12,
        memory_bytes_per_s=4800e9,
        vram_bytes=141 * GIB,
        usable_bytes=143073 * MIB,  # 139.72 GiB
        nvlink_bytes_per_s=450e9,
        pcie_generation=5,
        pcie_lanes=16,
        tdp_w=700,
        source="NVIDIA H200 datasheet, SXM column (prints sparse figures, halved); the die is the H100's",
    ),
    Gpu(
        name="b200",
        device_name="NVIDIA B200",
        architecture="Blackwell",
        compute_capability=(10, 0),
        fp32=75e12,
        tf32=1125e12,
        bf16=2250e12,
        fp16=2250e12,
        fp8=4500e12,
        int8=4500e12,
        memory_bytes_per_s=7700e9,  # brochures round it to 8 TB/s
        vram_bytes=180 * GIB,
        usable_bytes=182631 * MIB,
        nvlink_bytes_per_s=900e9,
        pcie_generation=5,
        pcie_lanes=16,
        tdp_w=1000,
        source="NVIDIA HGX B200 datasheet (prints sparse figures, halved); tf32 printed as 2.2 or 2.25 PFLOP/s by edition",
    ),
)

GPUS: dict[str, Gpu] = {gpu.name: gpu for gpu in _ROWS}


def find(device_name: str) -> Gpu | None:
    """The row of a device, by the name that NVML and torch report; None for a device that is not in the table.

    Drivers before 470 leave out the leading ``NVIDIA``. Anything else has to match in full: an RTX 4090 D is no RTX 4090.
    """
    return next((gpu for gpu in _ROWS if _bare(gpu.device_name) == _bare(device_name)), None)


def peak_flops(gpu: Gpu, dtype: str) -> float | None:
    """Peak dense FLOP/s of matrix products in a `Precision` (or its text); None where the card has no unit for it.

    Raises:
        ValueError: There is no such precision.
    """
    match Precision(dtype):
        case Precision.FP32:
            return gpu.fp32
        case Precision.TF32:
            return gpu.tf32
        case Precision.BF16:
            return gpu.bf16
        case Precision.FP16:
            return gpu.fp16
        case Precision.FP8:
            return gpu.fp8
        case Precision.INT8:
            return gpu.int8


def _bare(device_name: str) -> str:
    """The name in lower case, single-spaced, without the maker."""
    return " ".join(device_name.casefold().split()).removeprefix("nvidia ")

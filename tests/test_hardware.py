from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from wansweep.hardware import GPUS, Gpu, Precision, find, peak_flops
from wansweep.units import GIB

CONF = Path(__file__).parents[1] / "conf" / "hardware"
CONTRACT = ["rtx4090", "rtx5090", "l4", "a10g", "l40s", "rtx6000ada", "rtxpro6000", "a100-40gb", "a100-80gb", "h20", "h100", "h200", "b200"]

# SMs, dense FLOP a clock and SM in bf16 with fp32 accumulate, boost GHz: a second way to each peak, from the architecture whitepapers.
SHADER_ARITHMETIC = {
    "rtx4090": (128, 512, 2.520),
    "rtx5090": (170, 512, 2.407),
    "l4": (58, 1024, 2.040),
    "a10g": (80, 512, 1.710),
    "l40s": (142, 1024, 2.490),
    "rtx6000ada": (142, 1024, 2.505),
    "rtxpro6000": (188, 1024, 2.617),
    "a100-40gb": (108, 2048, 1.410),
    "a100-80gb": (108, 2048, 1.410),
    "h20": (78, 1024, 1.850),
    "h100": (132, 4096, 1.830),
    "h200": (132, 4096, 1.830),
    "b200": (148, 8192, 1.855),
}

# Bus width in bits, Gbit/s a pin: a second way to the bandwidth, where both are published.
MEMORY_ARITHMETIC = {
    "rtx4090": (384, 21),
    "rtx5090": (512, 28),
    "l4": (192, 12.5),
    "a10g": (384, 12.5),
    "l40s": (384, 18),
    "rtx6000ada": (384, 20),
    "rtxpro6000": (512, 28),
    "a100-40gb": (5120, 2 * 1.215),
    "a100-80gb": (5120, 2 * 1.593),
    "h100": (5120, 2 * 2.619),
}


def test_the_table_has_every_name_of_the_contract_and_no_other() -> None:
    assert list(GPUS) == CONTRACT


def test_the_config_files_and_the_table_agree() -> None:
    files = {path.stem: OmegaConf.to_container(OmegaConf.load(path)) for path in CONF.glob("*.yaml")}
    assert files == {name: {"name": name, "gpus": 1, "price_per_gpu_hour": None} for name in [*GPUS, "auto", "cpu"]}


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_a_bf16_peak_is_dense_with_fp32_accumulate_as_the_chip_allows(gpu: Gpu) -> None:
    sms, flop_per_clock, boost_ghz = SHADER_ARITHMETIC[gpu.name]
    assert gpu.bf16 == pytest.approx(sms * flop_per_clock * boost_ghz * 1e9, rel=0.01)


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_peaks_keep_the_ratios_of_their_architecture(gpu: Gpu) -> None:
    assert gpu.bf16 == gpu.fp16
    assert gpu.tf32 == pytest.approx(gpu.bf16 / 2, rel=0.02)
    assert (gpu.fp8 is None) == (gpu.compute_capability < (8, 9))
    if gpu.fp8 is not None:
        assert gpu.fp8 == pytest.approx(gpu.bf16 * 2, rel=0.02)
    # GeForce halves the fp32 accumulate of floats, but integers accumulate at the full rate.
    assert gpu.int8 == pytest.approx(gpu.bf16 * (4 if "GeForce" in gpu.device_name else 2), rel=0.02)


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_what_cuda_sees_is_a_little_less_than_the_nominal_memory(gpu: Gpu) -> None:
    assert gpu.usable_bytes is not None
    assert 0.91 < gpu.usable_bytes / gpu.vram_bytes < 1


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_every_row_names_its_source(gpu: Gpu) -> None:
    assert "NVIDIA" in gpu.source


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_a_gpu_is_found_by_the_name_its_driver_reports(gpu: Gpu) -> None:
    assert find(gpu.device_name) is gpu
    assert find(gpu.device_name.removeprefix("NVIDIA ")) is gpu
    assert find(f" {gpu.device_name.upper()} ") is gpu


@pytest.mark.parametrize(
    "device_name",
    [
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA H100 PCIe",
        "NVIDIA H100 NVL",
        "NVIDIA H200 NVL",
        "NVIDIA A100 80GB PCIe",
        "NVIDIA A10",
        "NVIDIA L40",
        "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        "NVIDIA GB200",
        "NVIDIA",
        "",
    ],
)
def test_a_card_that_only_resembles_one_is_unknown(device_name: str) -> None:
    assert find(device_name) is None


def test_a_peak_is_looked_up_by_enum_or_text() -> None:
    assert peak_flops(GPUS["h100"], Precision.FP8) == 1978.9e12
    assert [peak_flops(GPUS["a100-80gb"], dtype) for dtype in ("fp32", "tf32", "bf16", "fp16", "fp8", "int8")] == [
        19.5e12,
        156e12,
        312e12,
        312e12,
        None,
        624e12,
    ]


def test_an_unknown_precision_is_an_error() -> None:
    with pytest.raises(ValueError, match="fp64"):
        peak_flops(GPUS["h100"], "fp64")


def test_the_host_link_has_the_bandwidth_of_its_generation() -> None:
    assert GPUS["a100-80gb"].pcie_bytes_per_s == pytest.approx(31.5e9, rel=1e-3)
    assert GPUS["h100"].pcie_bytes_per_s == pytest.approx(63.0e9, rel=1e-3)


@pytest.mark.parametrize("name", MEMORY_ARITHMETIC)
def test_the_memory_has_the_bandwidth_of_its_bus(name: str) -> None:
    bits, gigabit_per_s = MEMORY_ARITHMETIC[name]
    assert GPUS[name].memory_bytes_per_s == pytest.approx(bits * gigabit_per_s * 1e9 / 8, rel=0.002)


def test_newer_stacked_memory_is_faster() -> None:
    speeds = [GPUS[name].memory_bytes_per_s for name in ("a100-40gb", "a100-80gb", "h100", "h20", "h200", "b200")]
    assert speeds == sorted(speeds)
    assert speeds[-1] < 8.1e12


def test_nvlink_is_counted_in_one_direction() -> None:
    one_way = {gpu.name: gpu.nvlink_bytes_per_s for gpu in GPUS.values() if gpu.nvlink_bytes_per_s is not None}
    assert one_way == {"a100-40gb": 300e9, "a100-80gb": 300e9, "h20": 450e9, "h100": 450e9, "h200": 450e9, "b200": 900e9}


def test_a_gigabyte_of_memory_is_a_gibibyte() -> None:
    assert {gpu.name: gpu.vram_bytes / GIB for gpu in GPUS.values()} == {
        "rtx4090": 24,
        "rtx5090": 32,
        "l4": 24,
        "a10g": 24,
        "l40s": 48,
        "rtx6000ada": 48,
        "rtxpro6000": 96,
        "a100-40gb": 40,
        "a100-80gb": 80,
        "h20": 96,
        "h100": 80,
        "h200": 141,
        "b200": 180,
    }

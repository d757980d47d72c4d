"""Drives the stub of libnvidia-ml (nvml_stub.c): builds it, and changes what its GPUs do while another process reads them."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).parent
MAX_GPUS = 16
# The order of gpu_t in nvml_stub.c, each with what an idle card does.
FIELDS: dict[str, float] = {
    "mem_total": 141e9,
    "mem_reserved": 600e6,
    "mem_used": 20e9,
    "busy_pct": 0,
    "busy_before_pct": 0,
    "power_w": 80,
    "power_limit_w": 700,
    "energy_base_j": 5000,
    "t0": 0,
    "sm_pct": 0,
    "occupancy_pct": 0,
    "tensor_pct": 0,
    "dram_pct": 0,
    "pcie_tx_mib": 0,
    "pcie_rx_mib": 0,
    "sm_base": 0,
    "occupancy_base": 0,
    "tensor_base": 0,
    "dram_base": 0,
    "pcie_tx_base": 0,
    "pcie_rx_base": 0,
    "sm_clock_mhz": 1980,
    "mem_clock_mhz": 3201,
    "temperature_c": 40,
    "throttle_reasons": 0,
    "throttle_share": 0,
    "throttle_base_s": 0,
    "busy_period_s": 1 / 6,
    "latency_us": 0,
    "processes": 1,
    "gpm": 1,
    "gpm_nan": 0,
    "gpm_id_max": 209,
    "fault": 0,
    "fault_gpm": 0,
    "fault_busy": 0,
    "fault_energy": 0,
    "fault_fields": 0,
    "fault_power": 0,
    "fault_memory": 0,
    "process_pid": 1000,
    "process_bytes": 0,
}
# Which integral a rate feeds.
INTEGRALS = {
    "power_w": "energy_base_j",
    "throttle_share": "throttle_base_s",
    "sm_pct": "sm_base",
    "occupancy_pct": "occupancy_base",
    "tensor_pct": "tensor_base",
    "dram_pct": "dram_base",
    "pcie_tx_mib": "pcie_tx_base",
    "pcie_rx_mib": "pcie_rx_base",
}
_GPU = struct.Struct(f"<{len(FIELDS)}d")
_HEAD = struct.Struct("<2d")


def build(folder: Path, *, old_driver: bool = False) -> Path:
    """The folder in which libnvidia-ml.so.1 now lies."""
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "libnvidia-ml.so.1"
    flags = ["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", *(["-DOLD_DRIVER"] if old_driver else [])]
    subprocess.run(["cc", *flags, "-o", str(out), str(HERE / "nvml_stub.c"), "-lm"], check=True, capture_output=True, timeout=240)
    return folder


class NvmlStub:
    """GPUs that do what a test says."""

    def __init__(self, library: Path, state: Path, *, gpus: int = 1, driver_branch: int = 580) -> None:
        self.library, self.state = library, state
        state.write_bytes(b"\0" * (_HEAD.size + MAX_GPUS * _GPU.size))
        with state.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._map[: _HEAD.size] = _HEAD.pack(gpus, driver_branch)
        self._gpus = [dict(FIELDS) for _ in range(gpus)]
        for gpu in range(gpus):
            self._gpus[gpu]["t0"] = time.time()
            self.set(gpu)

    def uuid(self, gpu: int = 0) -> str:
        return f"GPU-{gpu:08x}-0000-0000-0000-000000000000"

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "LD_LIBRARY_PATH": str(self.library), "NVML_STUB_STATE": str(self.state)}

    def set(self, gpu: int = 0, **changes: float) -> None:
        """From now on; every integral goes on from where it stands."""
        row = self._gpus[gpu]
        assert changes.keys() <= row.keys(), changes.keys() - row.keys()
        now = time.time()
        for rate, integral in INTEGRALS.items():
            row[integral] += row[rate] * (now - row["t0"])
        row["t0"], row["busy_before_pct"] = now, row["busy_pct"]
        row.update(changes)
        start = _HEAD.size + gpu * _GPU.size
        self._map[start : start + _GPU.size] = _GPU.pack(*row.values())

    def reset(self) -> None:
        """Idle and sound again; the counters go on."""
        counters = {"t0", "busy_before_pct", *INTEGRALS.values()}
        for gpu in range(len(self._gpus)):
            self.set(gpu, **{name: value for name, value in FIELDS.items() if name not in counters})

    def close(self) -> None:
        self._map.close()

"""The whole way from a driver to a value: pynvml in a sampler process over a stub of the driver that this test drives."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import wansweep
from wansweep.telemetry.join import Series, by_metric, gaps, value_over
from wansweep.telemetry.samples import GPU_QUANTITIES, HOST, Missing, Value
from wansweep.telemetry.sampling import Sampling
from wansweep.telemetry.trace import Trace
from wansweep.units import MIB

from .nvml_stub import NvmlStub

pytestmark = pytest.mark.alone

ROOT = Path(wansweep.__file__).parent.parent
MakeStub = Callable[..., NvmlStub]
NO_PERMISSION, LOST, UNSUPPORTED, UNKNOWN = 4, 15, 3, 999


@dataclass(frozen=True, kw_only=True)
class Run:
    trace: Trace
    series: dict[tuple[str, str], Series]
    windows: tuple[tuple[float, float], ...]
    stub: NvmlStub

    def over(self, metric: str, *, gpu: int = 0, window: int = 0, end: int | None = None) -> Value:
        start_s, end_s = self.windows[window][0], self.windows[window if end is None else end][1]
        return value_over(self.series, device=self.stub.uuid(gpu), metric=metric, start_s=start_s, end_s=end_s)


def sample(stub: NvmlStub, folder: Path, phases: list[tuple[float, list[dict[str, float]]]]) -> Run:
    """Plays the phases, each so many seconds and what to set on each GPU, beside a sampler.

    Once more when the sampler itself stood still, as it may on a crowded machine: what then is missing is rightly null.
    """
    for _ in range(4):
        run = play(stub, folder, phases)
        if not gaps(run.series[HOST, "sampler_tick_s"]):
            break
    return run


def play(stub: NvmlStub, folder: Path, phases: list[tuple[float, list[dict[str, float]]]]) -> Run:
    stub.reset()
    windows = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LD_LIBRARY_PATH", "NVML_STUB_STATE"):
            patch.setenv(name, stub.env[name])
        gpus = [stub.uuid(gpu) for gpu in range(max(len(changes) for _, changes in phases))]
        with Sampling(out=folder / "trace.jsonl", gpus=gpus, pids=[os.getpid()]) as sampling:
            for seconds, changes in phases:
                for gpu, change in enumerate(changes):
                    stub.set(gpu, **change)
                start_s = time.monotonic()
                time.sleep(seconds)
                windows.append((start_s, time.monotonic()))
            time.sleep(0.2)
    assert sampling.trace.errors == ()
    return Run(trace=sampling.trace, series=by_metric(sampling.trace.samples), windows=tuple(windows), stub=stub)


ENCODE = {
    "sm_pct": 31.5,
    "occupancy_pct": 12,
    "tensor_pct": 8.25,
    "dram_pct": 44,
    "pcie_tx_mib": 20,
    "pcie_rx_mib": 11000,
    "busy_pct": 63,
    "power_w": 233.5,
    "mem_used": 14e9,
    "sm_clock_mhz": 1980,
    "temperature_c": 51,
}
DENOISE = {
    "sm_pct": 97.1,
    "occupancy_pct": 38,
    "tensor_pct": 61.5,
    "dram_pct": 27,
    "pcie_tx_mib": 1,
    "pcie_rx_mib": 2,
    "busy_pct": 100,
    "power_w": 688.25,
    "mem_used": 82.6e9,
    "sm_clock_mhz": 1650,
    "temperature_c": 71,
    "throttle_reasons": 0x4,
    "throttle_share": 0.75,
}
IDLE = {"sm_pct": 0, "busy_pct": 0, "power_w": 120, "mem_used": 82.6e9, "throttle_reasons": 0x1, "throttle_share": 0, "pcie_rx_mib": 0}
# What must come back: metric, and how to get it from what was set.
PROFILE: dict[str, Callable[[dict[str, float]], float]] = {
    "sm_active_pct": lambda gpu: gpu["sm_pct"],
    "sm_occupancy_pct": lambda gpu: gpu["occupancy_pct"],
    "tensor_active_pct": lambda gpu: gpu["tensor_pct"],
    "dram_active_pct": lambda gpu: gpu["dram_pct"],
    "pcie_tx_bytes_per_s": lambda gpu: gpu["pcie_tx_mib"] * MIB,
    "pcie_rx_bytes_per_s": lambda gpu: gpu["pcie_rx_mib"] * MIB,
    "gpu_busy_pct": lambda gpu: gpu["busy_pct"],
    "power_w": lambda gpu: gpu["power_w"],
    "device_used_bytes": lambda gpu: gpu["mem_used"],
    "device_reserved_bytes": lambda _: 600e6,
    "sm_clock_mhz": lambda gpu: gpu["sm_clock_mhz"],
    "mem_clock_mhz": lambda _: 3201,
    "temperature_c": lambda gpu: gpu["temperature_c"],
}


@pytest.fixture(scope="module")
def profile(stub_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("profile")
    stub = NvmlStub(stub_library, folder / "state", gpus=2)
    # The second GPU does at every moment something else than the first.
    phases = [(1.3, [ENCODE, IDLE]), (1.3, [DENOISE, ENCODE]), (1.3, [{**DENOISE, **IDLE}, DENOISE])]
    return sample(stub, folder, phases)


@pytest.mark.parametrize("metric", PROFILE)
@pytest.mark.parametrize(
    ("gpu", "window", "load"),
    [(0, 0, ENCODE), (0, 1, DENOISE), (1, 1, ENCODE), (1, 2, DENOISE)],
    ids=lambda part: part if isinstance(part, int) else "",
)
def test_a_known_profile_comes_back_per_window_within_1_percent(
    profile: Run, metric: str, gpu: int, window: int, load: dict[str, float]
) -> None:
    value = profile.over(metric, gpu=gpu, window=window)
    assert value.value == pytest.approx(PROFILE[metric](load), rel=0.01)
    assert value.max == pytest.approx(PROFILE[metric](load), rel=0.01)
    assert value.coverage > 0.8
    assert value.n_samples >= 3


def test_an_idle_gpu_reads_zero_and_zero_is_a_value(profile: Run) -> None:
    value = profile.over("sm_active_pct", window=2)
    assert value.why is None
    assert value.value == pytest.approx(0, abs=1e-6)


def test_energy_over_the_run_is_power_times_time(profile: Run) -> None:
    spent = sum(power * (b - a) for power, (a, b) in zip((233.5, 688.25, 120), profile.windows, strict=True))
    assert profile.over("energy_j", window=0, end=2).value == pytest.approx(spent, rel=0.01)


def test_throttled_time_and_its_reason_are_those_of_the_window(profile: Run) -> None:
    seconds = profile.windows[1][1] - profile.windows[1][0]
    assert profile.over("throttle_power_s", window=0, end=2).value == pytest.approx(0.75 * seconds, rel=0.01)
    assert profile.over("throttle_thermal_s", window=1).value == 0
    assert profile.over("throttle_reasons", window=1).value == 0x4
    assert profile.over("throttle_reasons", window=2).value == 0x1


def test_the_sampler_says_what_it_cost(profile: Run) -> None:
    cost = profile.trace.cost
    assert cost is not None
    assert cost.nvml_mean_s is not None
    assert cost.nvml_max_s is not None
    assert 0 < cost.nvml_mean_s <= cost.nvml_max_s < cost.wall_s
    assert cost.driver_mean_s == pytest.approx(5 * 10e-6)  # the stub says 10 us a field, and 269-271 are not asked of this driver
    assert 0 < cost.cpu_s < cost.wall_s
    assert cost.ticks > 10


# Each GPU with another fault; the one that is lost and the one that loses its permission do so in the second phase.
GPUS = ["healthy", "no_gpm_permission", "lost", "nan", "no_gpm", "mig", "never_there", "bad_fields", "late", "regained"]
HEALTHY: dict[str, float] = {"sm_pct": 90, "busy_pct": 100, "power_w": 500}


@pytest.fixture(scope="module")
def faults(stub_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("faults")
    stub = NvmlStub(stub_library, folder / "state", gpus=len(GPUS))
    first: dict[str, dict[str, float]] = {
        "nan": {"gpm_nan": 1},
        "no_gpm": {"gpm": 0, "fault_energy": UNSUPPORTED, "fault_power": UNSUPPORTED},
        "mig": {"fault_memory": NO_PERMISSION, "fault_busy": UNSUPPORTED},
        "never_there": {"fault": LOST},
        "bad_fields": {"fault_fields": UNKNOWN},
        "late": {"fault": LOST},
        "regained": {"fault_gpm": NO_PERMISSION},
    }
    second: dict[str, dict[str, float]] = {
        "no_gpm_permission": {"fault_gpm": NO_PERMISSION},
        "lost": {"fault": LOST},
        "late": {"fault": 0},
        "regained": {"fault_gpm": 0},
    }
    return sample(stub, folder, [(1.2, [{**HEALTHY, **first.get(name, {})} for name in GPUS]), (1.2, [second.get(name, {}) for name in GPUS])])


@pytest.mark.parametrize(
    ("gpu", "metric", "before", "after"),
    [
        ("healthy", "sm_active_pct", 90, 90),
        ("healthy", "nvlink_tx_bytes_per_s", Missing.UNSUPPORTED, Missing.UNSUPPORTED),
        ("healthy", "throttle_sw_thermal_s", Missing.UNSUPPORTED, Missing.UNSUPPORTED),
        ("no_gpm_permission", "sm_active_pct", 90, Missing.NO_PERMISSION),
        ("no_gpm_permission", "tensor_active_pct", 0, Missing.NO_PERMISSION),
        ("no_gpm_permission", "gpu_busy_pct", 100, 100),
        ("no_gpm_permission", "power_w", 500, 500),
        ("lost", "sm_active_pct", 90, Missing.ERROR),
        ("lost", "gpu_busy_pct", None, Missing.ERROR),
        ("lost", "power_w", 500, Missing.ERROR),
        ("lost", "energy_j", None, Missing.ERROR),
        ("lost", "device_used_bytes", 20e9, Missing.ERROR),
        ("lost", "temperature_c", 40, Missing.ERROR),
        ("nan", "sm_active_pct", Missing.NO_SAMPLE, Missing.NO_SAMPLE),
        ("nan", "power_w", 500, 500),
        ("no_gpm", "sm_active_pct", Missing.UNSUPPORTED, Missing.UNSUPPORTED),
        ("no_gpm", "gpu_busy_pct", 100, 100),
        ("no_gpm", "energy_j", Missing.UNSUPPORTED, Missing.UNSUPPORTED),
        ("no_gpm", "power_w", Missing.UNSUPPORTED, Missing.UNSUPPORTED),
        ("mig", "device_used_bytes", Missing.NO_PERMISSION, Missing.NO_PERMISSION),
        ("mig", "sm_active_pct", 90, 90),
        ("mig", "gpu_busy_pct", None, 100),
        ("regained", "sm_active_pct", Missing.NO_PERMISSION, 90),
        ("bad_fields", "power_w", Missing.ERROR, Missing.ERROR),
        ("bad_fields", "throttle_power_s", Missing.ERROR, Missing.ERROR),
        ("bad_fields", "sm_active_pct", 90, 90),
    ],
)
def test_a_fault_becomes_a_null_with_its_reason_and_spares_the_rest(
    faults: Run, gpu: str, metric: str, before: float | Missing | None, after: float | Missing | None
) -> None:
    for window, expected in enumerate((before, after)):
        value = faults.over(metric, gpu=GPUS.index(gpu), window=window)
        if isinstance(expected, Missing):
            assert (value.value, value.why) == (None, expected)
        elif expected is not None:
            assert value.value == pytest.approx(expected, rel=0.01)


def test_a_gpu_that_is_not_there_is_all_nulls_and_no_zeros(faults: Run) -> None:
    assert all(faults.over(quantity.name, gpu=GPUS.index("never_there"), end=1).value is None for quantity in GPU_QUANTITIES)
    assert faults.over("power_w", gpu=GPUS.index("never_there")).why is Missing.ERROR


def test_a_gpu_that_comes_late_is_read_from_then_on(faults: Run) -> None:
    late = GPUS.index("late")
    assert faults.over("power_w", gpu=late, window=0).why is Missing.ERROR
    read = faults.series[faults.stub.uuid(late), "sm_active_pct"].points
    assert len(read) >= 2
    assert all(sample.value == pytest.approx(90) for sample in read)


def test_a_device_that_keeps_no_history_of_utilisation_is_asked_for_the_plain_rate(nvml_stub: MakeStub) -> None:
    stub = nvml_stub()
    stub.set(0, busy_period_s=1e6, busy_pct=37)
    script = """
import sys, time
from wansweep.telemetry import gpu_reader, nvml
gpu_reader.BUSY_SILENCE_S = gpu_reader.BUSY_PERIOD_S = 0.05
with nvml.library():
    reader = gpu_reader.GpuReader(sys.argv[1])
    for _ in range(4):
        print(*{(s.value, s.why) for s in reader.read() if s.metric == "gpu_busy_pct"})
        time.sleep(0.06)
"""
    env = {**stub.env, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script, stub.uuid()], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == ""
    assert done.stdout.split("\n")[-2] == "(37.0, None)"


def test_power_averaged_over_a_second_stands_under_a_name_of_its_own(faults: Run) -> None:
    assert faults.over("power_1s_w", gpu=GPUS.index("no_gpm"), window=0).why is Missing.TOO_SHORT
    assert faults.over("power_1s_w", gpu=GPUS.index("no_gpm"), window=0, end=1).value == pytest.approx(500)


def test_an_old_driver_gives_what_it_has(old_stub_library: Path, nvml_stub: MakeStub, tmp_path: Path) -> None:
    stub = nvml_stub(old_stub_library, driver_branch=535)
    run = sample(stub, tmp_path, [(0.8, [{"temperature_c": 66, "busy_pct": 100, "power_w": 321}])])
    assert run.over("temperature_c").value == pytest.approx(66)
    assert run.over("power_w").value == pytest.approx(321)
    for metric in ("sm_active_pct", "device_used_bytes"):
        assert run.over(metric).why is Missing.UNSUPPORTED


def test_renumbered_fields_are_asked_only_of_a_driver_that_means_the_same_by_them(nvml_stub: MakeStub, tmp_path: Path) -> None:
    run = sample(nvml_stub(driver_branch=595), tmp_path, [(0.6, [{}])])
    assert run.over("throttle_sw_thermal_s").value == 0


def test_a_gpm_metric_that_the_driver_does_not_know_leaves_the_others_alone(nvml_stub: MakeStub, tmp_path: Path) -> None:
    run = sample(nvml_stub(), tmp_path, [(0.6, [{"gpm_id_max": 5, "sm_pct": 44}])])
    assert run.over("sm_active_pct").value == pytest.approx(44)
    assert run.over("dram_active_pct").why is Missing.UNSUPPORTED

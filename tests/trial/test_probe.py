"""Counters at the edges of stages, on a workload of known size and on an allocator of known peaks."""

from __future__ import annotations

import time

import pytest

from wansweep.case import Model
from wansweep.record import Stage, StageKind
from wansweep.telemetry import torch_probe
from wansweep.telemetry.samples import Missing, Reading
from wansweep.telemetry.torch_probe import TorchMemory
from wansweep.trial.clock import HostClock
from wansweep.trial.probe import Probe
from wansweep.trial.stages import Stages

pytestmark = pytest.mark.alone

MIB = 2**20


def burn(cpu_s: float) -> None:
    end = time.process_time() + cpu_s
    while time.process_time() < end:
        pass


def test_a_workload_of_known_size_comes_back() -> None:
    stages = Stages(model=Model.TI2V_5B, clock=HostClock(), probe=Probe())
    held = []
    with stages(StageKind.TOTAL_EXECUTION):
        with stages(StageKind.T5_ENCODING):
            time.sleep(0.2)
        cpu_s, begin_s = time.process_time(), time.perf_counter()
        with stages(StageKind.PREPROCESS):
            burn(0.3)
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - begin_s
        with stages(StageKind.VAE_DECODING):
            held.append(bytearray(b"\1") * (256 * MIB))
    asleep, burning, growing, total = stages.done
    assert asleep.duration_s == pytest.approx(0.2, abs=0.02)
    assert (asleep.figures["cpu_s"].value or 0) < 0.02
    assert burning.duration_s == pytest.approx(wall_s, rel=0.02, abs=0.002)
    # Against the process's own account: on a busy machine 0.3 CPU s take longer, and other threads of the process may run beside.
    assert burning.figures["cpu_pct"].value == pytest.approx(100 * cpu_s / wall_s, abs=5)
    before, after = (stage.figures["host_rss_bytes"].value or 0 for stage in (burning, growing))
    assert after - before == pytest.approx(256 * MIB, rel=0.02)
    assert total.figures["cpu_s"].value == pytest.approx(sum(s.figures["cpu_s"].value or 0 for s in stages.done[:-1]), abs=0.01)
    outside_s = (total.duration_s or 0) - sum(s.duration_s or 0 for s in stages.done[:-1])
    assert 0 <= outside_s < 0.01


class Allocator:
    """Peaks since the last reset, as torch's caching allocator keeps them."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def use(self, to_bytes: int) -> None:
        self.now = to_bytes
        self.peak = max(self.peak, to_bytes)

    def memory(self, device: int = 0) -> TorchMemory:
        return TorchMemory(
            why=None, peak_allocated_bytes=self.peak, peak_reserved_bytes=2 * self.peak, device_used_bytes=3 * self.now, pinned_bytes=None
        )

    def reset(self, device: int = 0) -> None:
        self.peak = self.now


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    allocator = Allocator()
    monkeypatch.setattr(torch_probe, "memory", allocator.memory)
    monkeypatch.setattr(torch_probe, "reset_peaks", allocator.reset)
    return allocator


def peaks(stages: list[Stage]) -> dict[str, float | None]:
    return {stage.name: stage.figures["peak_allocated_bytes"].value for stage in stages}


@pytest.mark.parametrize("apart_s", [0.0, 0.005])
def test_each_stage_has_its_own_peak_and_the_stage_around_them_the_highest(allocator: Allocator, apart_s: float) -> None:
    stages = Stages(model=Model.TI2V_5B, clock=HostClock(), probe=Probe())
    with stages(StageKind.TOTAL_EXECUTION):
        allocator.use(5)
        time.sleep(apart_s)
        with stages(StageKind.MODEL_INITIALIZATION):
            allocator.use(20)
            allocator.use(10)
        time.sleep(apart_s)
        with stages(StageKind.STEP_INFERENCE, step=0):
            allocator.use(70)
            allocator.use(10)
        time.sleep(apart_s)
        with stages(StageKind.VAE_DECODING):
            allocator.use(40)
            allocator.use(0)
    assert peaks(stages.done) == {"Model_Initialization": 20, "Step_0_Inference": 70, "VAE_Decoding": 40, "Total_Execution": 70}
    assert stages.done[-1].figures["peak_reserved_bytes"].value == 140
    pinned = stages.done[-1].figures["pinned_bytes"]
    assert (pinned.value, pinned.why) == (None, "unsupported")


def test_a_peak_between_stages_is_the_surrounding_stages(allocator: Allocator) -> None:
    stages = Stages(model=Model.TI2V_5B, clock=HostClock(), probe=Probe())
    with stages(StageKind.TOTAL_EXECUTION):
        with stages(StageKind.T5_ENCODING):
            allocator.use(10)
        allocator.use(90)
        allocator.use(10)
        time.sleep(0.005)
        with stages(StageKind.VAE_DECODING):
            allocator.use(20)
    assert peaks(stages.done) == {"T5_Encoding": 10, "VAE_Decoding": 20, "Total_Execution": 90}


class Meter:
    """An energy counter that a test turns."""

    def __init__(self) -> None:
        self.energy_j = 1000.0
        self.lost = False

    def read_j(self) -> Reading:
        return Reading.missing(Missing.ERROR) if self.lost else Reading(value=self.energy_j)


def test_energy_is_the_difference_of_the_counter_and_null_when_it_cannot_be_known() -> None:
    meter = Meter()
    stages = Stages(model=Model.TI2V_5B, clock=HostClock(), probe=Probe(meter))  # type: ignore[arg-type]
    with stages(StageKind.T5_ENCODING):
        time.sleep(0.25)
        meter.energy_j += 75
    with stages(StageKind.PREPROCESS):
        meter.energy_j += 1  # the counter moves every 100 ms: a stage this short has no figure
    with stages(StageKind.VAE_DECODING):
        time.sleep(0.25)
        meter.lost = True
    figures = [stage.figures["energy_j"] for stage in stages.done]
    assert [(figure.value, figure.why) for figure in figures] == [(75, None), (None, "too_short"), (None, "error")]

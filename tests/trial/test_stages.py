from __future__ import annotations

import time
from pathlib import Path

import pytest

from wansweep.case import Model
from wansweep.record import Expert, StageKind, Timing
from wansweep.trial.clock import EventClock, HostClock
from wansweep.trial.stages import Stages, read_journal


def test_a_journal_gives_back_the_stages_with_their_clock(tmp_path: Path) -> None:
    path = tmp_path / "rank0.jsonl"
    with path.open("ab", buffering=0) as journal:
        stages = Stages(model=Model.T2V_A14B, clock=HostClock(), rank=3, journal=journal)
        with stages(StageKind.TOTAL_EXECUTION):
            with stages(StageKind.PREPROCESS):
                time.sleep(0.01)
            with stages(StageKind.STEP_INFERENCE, step=7, expert=Expert.LOW):
                time.sleep(0.02)
    read = read_journal(path)
    assert [stage.name for stage in read] == ["Total_Execution", "T2V_Preprocess", "Step_7_Inference"]
    assert {stage.rank for stage in read} == {3}
    total, first, second = read
    assert (second.step, second.expert) == (7, Expert.LOW)
    assert total.start_s <= first.start_s
    assert first.start_s + (first.duration_s or 0) <= second.start_s
    assert 0.01 <= (first.duration_s or 0) <= (total.duration_s or 0)
    assert stages.done[-1].name == "Total_Execution"


def test_what_ended_before_a_death_is_kept_and_what_had_begun_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rank0.jsonl"
    with path.open("ab", buffering=0) as journal:
        stages = Stages(model=Model.TI2V_5B, clock=HostClock(), journal=journal)
        with stages(StageKind.T5_ENCODING):
            pass
        with pytest.raises(RuntimeError), stages(StageKind.VAE_DECODING):
            raise RuntimeError
        journal.write(b'{"kind": "Save", "na')
    done, open_ = read_journal(path)
    assert done.duration_s is not None
    assert (open_.name, open_.duration_s) == ("VAE_Decoding", None)


def test_a_rank_that_never_began_has_no_stages(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none.jsonl") == []


def test_a_stage_waits_for_the_device_at_both_ends() -> None:
    calls: list[str] = []
    stages = Stages(model=Model.TI2V_5B, clock=HostClock(Timing.SYNC, lambda: calls.append("sync")))
    with stages(StageKind.SAVE):
        calls.append("work")
    assert calls == ["sync", "work", "sync"]


class Device:
    """A device that works behind the host: an event is reached when the work issued before it is done."""

    def __init__(self) -> None:
        self.done_ms = 0.0
        self.waits = 0

    def work(self, ms: float) -> None:
        self.done_ms += ms

    def wait(self) -> None:
        self.waits += 1

    def event(self) -> FakeEvent:
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, device: Device) -> None:
        self.device = device
        self.at_ms = float("nan")

    def record(self) -> None:
        self.at_ms = self.device.done_ms

    def elapsed_time(self, other: FakeEvent) -> float:
        return other.at_ms - self.at_ms


def test_with_events_a_stage_is_as_long_as_the_device_took_and_nothing_waits_in_between(tmp_path: Path) -> None:
    device = Device()
    clock = EventClock(new_event=device.event, wait=device.wait)
    path = tmp_path / "rank0.jsonl"
    with path.open("ab", buffering=0) as journal:
        stages = Stages(model=Model.TI2V_5B, clock=clock, journal=journal)
        waits = device.waits
        with stages(StageKind.TOTAL_EXECUTION):
            for step, ms in enumerate((7000.0, 5000.0)):
                with stages(StageKind.STEP_INFERENCE, step=step):
                    device.work(ms)  # the host is through in microseconds
        assert device.waits == waits
        assert all((stage.duration_s or 0) < 1 for stage in stages.done)
        stages.settle()
    assert device.waits == waits + 1
    total, first, second = read_journal(path)
    assert (first.duration_s, second.duration_s, total.duration_s) == (pytest.approx(7), pytest.approx(5), pytest.approx(12))
    assert second.start_s - first.start_s == pytest.approx(7)
    assert stages.done[-1].duration_s == pytest.approx(12)


@pytest.mark.alone
def test_a_pause_is_in_no_stages_duration() -> None:
    stages = Stages(model=Model.TI2V_5B, clock=HostClock())
    with stages(StageKind.TOTAL_EXECUTION):
        with stages(StageKind.T5_ENCODING):
            time.sleep(0.01)
        with stages.pause():
            time.sleep(0.05)
    inner, total = stages.done
    assert inner.paused_s == 0
    assert total.paused_s == pytest.approx(0.05, abs=0.02)
    assert total.duration_s == pytest.approx(inner.duration_s, abs=0.005)

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from wansweep.telemetry.samples import Missing, Reading, Sample, Value
from wansweep.telemetry.trace import Cost, Start, TraceWriter, read_trace

START = Start(t_s=1.0, wall_minus_monotonic_s=1.7e9, period_s=0.1, nvml=None)
COST = Cost(
    wall_s=2.0,
    cpu_s=0.1,
    ticks=20,
    late_ticks=0,
    nvml_mean_s=0.001,
    nvml_max_s=0.002,
    driver_mean_s=None,
    clock_step_s=0.0,
    lost_samples=0,
    error="",
)
SAMPLES = (
    Sample(t_s=1.25, device="GPU-1", metric="sm_active_pct", value=87.5, since_s=1.125),
    Sample(t_s=1.25, device="GPU-1", metric="power_w", value=500.25),
    Sample(t_s=1.25, device="GPU-1", metric="energy_j", value=None, why=Missing.UNSUPPORTED),
    Sample(t_s=1.5, device="host", metric="swap_used_bytes", value=0.0),
)


def write(path: Path, *, end: bool = True) -> None:
    with TraceWriter(path) as writer:
        writer.start(START)
        writer.add(SAMPLES)
        if end:
            writer.end(COST)


def test_a_trace_reads_back_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl")
    trace = read_trace(tmp_path / "t.jsonl")
    assert set(trace.samples) == set(SAMPLES)
    assert (trace.start, trace.cost, trace.errors) == (START, COST, ())


@pytest.mark.parametrize("cut", [1, 5, 20, 40])
def test_a_torn_last_line_costs_that_line_alone(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "t.jsonl"
    write(path, end=False)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\n" + whole.splitlines()[-1][:-cut])
    trace = read_trace(path)
    assert set(trace.samples) == set(SAMPLES)
    assert trace.torn_lines == 1
    assert trace.cost is None


def test_every_cut_of_a_trace_can_be_read(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl")
    whole = (tmp_path / "t.jsonl").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        trace = read_trace(tmp_path / "cut")
        assert set(trace.samples) <= set(SAMPLES)
        assert trace.torn_lines <= 1


def test_a_null_is_written_once_until_its_reason_changes(tmp_path: Path) -> None:
    def at(t_s: float, why: Missing | None) -> Sample:
        return Sample(t_s=t_s, device="GPU-1", metric="power_w", value=1.0 if why is None else None, why=why)

    reasons = [Missing.ERROR, Missing.ERROR, Missing.NO_PERMISSION, None, None, Missing.NO_PERMISSION]
    with TraceWriter(tmp_path / "t") as writer:
        writer.add(at(float(i), why) for i, why in enumerate(reasons))
    assert [(s.t_s, s.why) for s in read_trace(tmp_path / "t").samples] == [
        (0.0, Missing.ERROR),
        (2.0, Missing.NO_PERMISSION),
        (3.0, None),
        (4.0, None),
        (5.0, Missing.NO_PERMISSION),
    ]


def test_a_trace_begins_anew_in_place_of_an_older_one(tmp_path: Path) -> None:
    write(tmp_path / "t")
    write(tmp_path / "t")
    assert len(read_trace(tmp_path / "t").samples) == len(SAMPLES)


def test_a_trace_that_cannot_be_opened_is_an_error_and_no_exception(tmp_path: Path) -> None:
    write(tmp_path / "no" / "such" / "folder")
    trace = read_trace(tmp_path / "no" / "such" / "folder")
    assert trace.samples == ()
    assert "No such file" in trace.errors[0]


def test_a_full_disk_is_counted_and_remembered() -> None:
    with TraceWriter(Path("/dev/full")) as writer:
        writer.start(START)
        writer.add(SAMPLES)
        assert "No space left" in writer.error
        assert writer.lost_samples == len(SAMPLES)


def test_an_error_in_the_cost_is_an_error_of_the_trace(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t") as writer:
        writer.end(dataclasses.replace(COST, error="disk full"))
    assert read_trace(tmp_path / "t").errors == ("disk full",)


def test_a_figure_is_either_a_number_or_a_reason() -> None:
    with pytest.raises(AssertionError):
        Reading(value=None)
    with pytest.raises(AssertionError):
        Value(value=0.0, why=Missing.GAP, n_samples=0, coverage=0.0, max=None)
    assert Reading.missing(Missing.ERROR).value is None

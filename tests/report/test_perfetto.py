"""trace.json against Chrome's Trace Event Format, as its document has it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from tests.gpu_runs import gpu_cases, gpu_records, gpu_trace
from wansweep.record import Record, StageKind
from wansweep.report.perfetto import render
from wansweep.tables.curves import curve_frame

Event = dict[str, Any]


def sampled(record: Record) -> pl.DataFrame:
    return curve_frame(gpu_trace(record), record)


def trace(records: Sequence[Record], curves: Callable[[Record], pl.DataFrame | None] = sampled, **options: int) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(render(records, curves, **options))
    return document


def check(document: dict[str, Any]) -> None:
    """Whether every event is one by the format: fields, types, and slices of a thread that contain each other or do not meet."""
    threads: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    processes = {event["pid"] for event in document["traceEvents"] if event["name"] == "process_name"}
    for event in document["traceEvents"]:
        assert isinstance(event["ts"], int)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["pid"] in processes
        match event["ph"]:
            case "X":
                assert event["dur"] >= 0
                threads[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
            case "C":
                assert event["args"]
                assert all(isinstance(value, int | float) for value in event["args"].values())
            case "M":
                assert event["name"] in ("process_name", "process_sort_index", "thread_name")
            case other:
                pytest.fail(f"a phase that is not ours: {other}")
    for slices in threads.values():
        open_until: list[int] = []
        for begin, end in sorted(slices, key=lambda one: (one[0], -one[1])):
            while open_until and open_until[-1] <= begin:
                open_until.pop()
            assert not open_until or end <= open_until[-1]
            open_until.append(end)


def slices(document: dict[str, Any], name: str) -> list[Event]:
    return [event for event in document["traceEvents"] if event["ph"] == "X" and event["name"] == name]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    cases = [case for case in gpu_cases() if case.label in ("ti2v_5b-none", "t2v_a14b-ulysses2", "t2v_a14b-expert", "t2v_a14b-1080p")]
    return gpu_records(cases, repeats=2)


def test_every_event_is_one_by_the_format(records: list[Record]) -> None:
    document = trace(records)
    check(document)
    assert document["otherData"]["trials"] == len(records)
    assert {event["ph"] for event in document["traceEvents"]} == {"X", "C", "M"}


def test_the_check_finds_slices_that_cross(records: list[Record]) -> None:
    document = trace(records[:1])
    slices(document, "VAE_Decoding")[0]["dur"] += 10**9
    with pytest.raises(AssertionError):
        check(document)


def test_stages_keep_their_names_times_and_experts_and_lie_in_their_step(records: list[Record]) -> None:
    (record,) = [one for one in records if one.label == "t2v_a14b-expert" and one.trial == 0]
    document = trace([record])
    for stage in record.stages:
        (event,) = slices(document, stage.name)
        assert event["ts"] == pytest.approx(1e6 * stage.start_s, abs=1)
        assert event["dur"] == pytest.approx(1e6 * (stage.duration_s or 0), abs=2)
    (step,) = slices(document, "Step_6 (low-noise expert)")
    (inference,) = slices(document, "Step_6_Inference")
    assert inference["args"]["expert"] == "low"
    assert step["ts"] <= inference["ts"] < inference["ts"] + inference["dur"] <= step["ts"] + step["dur"]


def test_the_parts_of_loading_stand_on_a_thread_of_their_own(records: list[Record]) -> None:
    document = trace(records[:1])
    (loading,) = slices(document, "Model_Initialization")
    parts = {name: slices(document, name)[0] for name in ("open", "read", "h2d")}
    assert slices(document, "cast") == []  # it took no time
    assert {part["tid"] for part in parts.values()} == {2}
    assert all(loading["ts"] <= part["ts"] and part["ts"] + part["dur"] <= loading["ts"] + loading["dur"] for part in parts.values())


def test_a_trial_is_a_process_a_rank_and_stands_where_it_began(records: list[Record]) -> None:
    document = trace(records)
    names = {event["args"]["name"]: event["pid"] for event in document["traceEvents"] if event["name"] == "process_name"}
    assert "t2v_a14b-ulysses2 #1 (ok) rank 1 on NVIDIA H200" in names
    assert "t2v_a14b-1080p #0 (oom) rank 0 on NVIDIA H200" in names
    begins = {event["pid"]: event["ts"] for event in slices(document, "Model_Initialization")}
    first, second = (begins[names[f"ti2v_5b-none #{trial} (ok) rank 0 on NVIDIA H200"]] for trial in (0, 1))
    assert second - first == 120_000_000


def test_memory_and_power_are_counters_in_their_units(records: list[Record]) -> None:
    (record,) = [one for one in records if one.label == "t2v_a14b-ulysses2" and one.trial == 0]
    document = trace([record])
    counters = [event for event in document["traceEvents"] if event["ph"] == "C"]
    assert {"GPU memory in use", "host memory (PSS)", "power", "SM active", "host memory available"} <= {event["name"] for event in counters}
    peak_gib = max(event["args"]["GiB"] for event in counters if event["name"] == "GPU memory in use")
    samples = gpu_trace(record).filter(pl.col("metric") == "device_used_bytes")["value"]
    assert peak_gib == pytest.approx(max(samples) / 2**30, abs=1e-3)
    by_rank = {event["pid"] for event in counters if event["name"] == "power"}
    assert len(by_rank) == 2
    (node,) = {event["pid"] for event in counters if event["name"] == "host memory available"}
    assert node not in by_rank


def test_a_long_sweep_keeps_its_newest_trials_and_says_how_many_it_left_out(records: list[Record]) -> None:
    whole = trace(records, most_events=10**6)
    short = trace(records, most_events=150)
    check(short)
    assert len(short["traceEvents"]) <= 150 < len(whole["traceEvents"])
    assert short["otherData"]["trials_left_out"] == len(records) - short["otherData"]["trials"] > 0
    titles = [event["args"]["name"] for event in short["traceEvents"] if event["name"] == "process_name"]
    assert any(records[-1].label in title for title in titles)


def test_records_without_stages_samples_or_at_all_make_a_trace(records: list[Record]) -> None:
    check(trace([replace(records[0], stages=(), ranks=())], lambda _: None))
    assert trace([])["traceEvents"] == []
    warmed = [replace(one, paused_s=30.0) if one.kind is StageKind.TOTAL_EXECUTION else one for one in records[0].stages]
    document = trace([replace(records[0], stages=tuple(warmed))])
    assert slices(document, "Total_Execution")[0]["dur"] > 60e6

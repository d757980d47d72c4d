"""trace.json: a sweep on one timeline, for ui.perfetto.dev and chrome://tracing.

Chrome's Trace Event Format (JSON object form): a process a rank of a trial, threads for its stages and for the parts of its loading, counters
for what was sampled. A trial stands at the wall clock's second of its start; within it everything is on one monotonic clock. Perfetto colours
by name without digits, so a step's slice has its expert in its name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import polars as pl

from wansweep.record import Record, Stage, StageKind
from wansweep.units import GIB

Event = dict[str, Any]
Curves = Callable[[Record], pl.DataFrame | None]

# Of about 130 bytes: Perfetto opens some tens of MB at once.
MOST_EVENTS = 200_000
LEAST_COUNTERS = 100
# A node's ranks have their ids between it and the next trial's node.
_PIDS = 1000
_STAGES, _PARTS = 1, 2
_PARTS_OF_LOADING = ("open_s", "read_s", "cast_s", "fill_s", "h2d_s")


class _Place(NamedTuple):
    """Where a trial stands: its first process id, and seconds after the sweep's first trial."""

    first_pid: int
    shift_s: float


class _Counter(NamedTuple):
    """How a metric is shown: track, unit, stored units in one shown."""

    track: str
    unit: str
    per_shown: float = 1.0


_COUNTERS = {
    "device_used_bytes": _Counter("GPU memory in use", "GiB", GIB),
    "host_pss_bytes": _Counter("host memory (PSS)", "GiB", GIB),
    "host_rss_bytes": _Counter("host memory (RSS)", "GiB", GIB),
    "host_available_bytes": _Counter("host memory available", "GiB", GIB),
    "power_w": _Counter("power", "W"),
    "sm_active_pct": _Counter("SM active", "%"),
    "gpu_busy_pct": _Counter("GPU busy", "%"),
    "tensor_active_pct": _Counter("tensor cores active", "%"),
    "dram_active_pct": _Counter("DRAM active", "%"),
    "sm_clock_mhz": _Counter("SM clock", "MHz"),
    "temperature_c": _Counter("temperature", "C"),
    "pcie_rx_bytes_per_s": _Counter("PCIe to the GPU", "GB/s", 1e9),
    "pcie_tx_bytes_per_s": _Counter("PCIe from the GPU", "GB/s", 1e9),
}


def render(records: Sequence[Record], curves: Curves, *, most_events: int = MOST_EVENTS) -> str:
    """The trace of a run as JSON. Where it would be too large, the newest trials are in it, and ``otherData`` says how many are not.

    Args:
        records: Oldest first.
        curves: Gives a trial's samples as `tables.curves` makes them, null without; asked for as long as there is room for counters.
        most_events: Events that the file may hold.
    """
    origin = min((begin for record in records if (begin := _begin(record))), default=None)
    places = {number: _Place(first_pid=1 + _PIDS * number, shift_s=_seconds_between(origin, record)) for number, record in enumerate(records)}
    told: dict[int, list[Event]] = {}
    room = most_events
    for number in reversed(places):
        events = list(_trial(records[number], places[number]))
        if len(events) > room:
            break
        room -= len(events)
        told[number] = events
    for number in told:
        told[number] += _counters(records[number], curves, places[number], most=room // len(told))
    other = {"trials": len(told), "trials_left_out": len(records) - len(told), "begin_utc": origin.isoformat() if origin else None}
    document = {"displayTimeUnit": "ms", "otherData": other, "traceEvents": [event for number in sorted(told) for event in told[number]]}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _begin(record: Record) -> datetime | None:
    """When the trial began; an imported report does not say."""
    return datetime.fromisoformat(record.started_utc) if record.started_utc else None


def _seconds_between(origin: datetime | None, record: Record) -> float:
    begin = _begin(record)
    return (begin - origin).total_seconds() if origin and begin else 0.0


def _trial(record: Record, place: _Place) -> Iterator[Event]:
    """Stages of one trial: its node at the first process, its ranks after it."""
    first_pid, shift_s = place
    ranks = sorted({stage.rank for stage in record.stages} | {facts.rank for facts in record.ranks})
    names = {facts.rank: facts.device_name for facts in record.ranks}
    title = f"{record.label} #{record.trial} ({record.outcome})"
    yield from _named(first_pid, f"{title} node {record.node}", sort=first_pid)
    for rank in ranks:
        pid = first_pid + 1 + rank
        yield from _named(pid, f"{title} rank {rank}" + (f" on {names[rank]}" if rank in names else ""), sort=pid)
        yield _meta(pid, _STAGES, "thread_name", {"name": "stages"})
    for rank in ranks:
        stages = sorted((stage for stage in record.stages if stage.rank == rank), key=lambda stage: (stage.start_s, -(stage.duration_s or 0)))
        yield from _slices(stages, pid=first_pid + 1 + rank, shift_s=shift_s)


def _counters(record: Record, curves: Curves, place: _Place, *, most: int) -> list[Event]:
    """What was sampled in a trial, thinned to the room there is; nothing where a line would have next to no points."""
    samples = curves(record) if most >= LEAST_COUNTERS else None
    if samples is None or samples.is_empty():
        return []
    rows = samples.gather_every(-(-samples.height // most)).iter_rows(named=True)
    first = place.first_pid
    return [_counted(row, pid=first if row["rank"] is None else first + 1 + row["rank"], shift_s=place.shift_s) for row in rows]


def _slices(stages: Sequence[Stage], *, pid: int, shift_s: float) -> Iterator[Event]:
    """A rank's stages inside Total_Execution, a slice around what belongs to one step, and the parts of loading on a thread of their own."""
    ended = [stage for stage in stages if stage.duration_s is not None]
    for stage in ended:
        args: dict[str, object] = {name: figure.value for name, figure in stage.figures.items() if figure.value is not None}
        if stage.expert:
            args["expert"] = str(stage.expert)
        yield _slice(stage.name, str(stage.kind), stage.start_s, _end_s(stage), pid=pid, tid=_STAGES, shift_s=shift_s, args=args)
    for step in sorted({stage.step for stage in ended if stage.step is not None}):
        parts = [stage for stage in ended if stage.step == step]
        expert = f" ({parts[0].expert}-noise expert)" if parts[0].expert else ""
        begin_s, end_s = min(part.start_s for part in parts), max(map(_end_s, parts))
        args = {"step": step} | ({"expert": str(parts[0].expert)} if parts[0].expert else {})
        yield _slice(f"Step_{step}{expert}", "step", begin_s, end_s, pid=pid, tid=_STAGES, shift_s=shift_s, args=args)
    yield from _loading(ended, pid=pid, shift_s=shift_s)


def _loading(stages: Sequence[Stage], *, pid: int, shift_s: float) -> Iterator[Event]:
    """The parts of Model_Initialization one after the other: their lengths were measured, their order was not."""
    stage = next((one for one in stages if one.kind is StageKind.MODEL_INITIALIZATION), None)
    lengths = {name: stage.figures[name].value for name in _PARTS_OF_LOADING if name in stage.figures} if stage else {}
    if stage is None or not any(lengths.values()):
        return
    yield _meta(pid, _PARTS, "thread_name", {"name": "parts of loading (lengths measured, order not)"})
    at_s = stage.start_s
    for name, seconds in lengths.items():
        if seconds:
            yield _slice(name.removesuffix("_s"), "loading", at_s, at_s + seconds, pid=pid, tid=_PARTS, shift_s=shift_s, args={})
            at_s += seconds


def _end_s(stage: Stage) -> float:
    """When a stage was over; warm-ups within it are in the window and not in its duration."""
    return stage.start_s + (stage.duration_s or 0.0) + stage.paused_s


def _slice(name: str, category: str, begin_s: float, end_s: float, *, pid: int, tid: int, shift_s: float, args: Mapping[str, object]) -> Event:
    # Both ends are rounded, not the length: neighbours that touch must not overlap by a rounding error.
    begin_us, end_us = _us(begin_s + shift_s), _us(end_s + shift_s)
    return {"name": name, "cat": category, "ph": "X", "ts": begin_us, "dur": end_us - begin_us, "pid": pid, "tid": tid, "args": dict(args)}


def _counted(row: Mapping[str, Any], *, pid: int, shift_s: float) -> Event:
    shown = _COUNTERS[row["metric"]]
    value = round(row["value"] / shown.per_shown, 3)
    return {"name": shown.track, "ph": "C", "ts": _us(row["t_s"] + shift_s), "pid": pid, "tid": 0, "args": {shown.unit: value}}


def _named(pid: int, name: str, *, sort: int) -> Iterator[Event]:
    yield _meta(pid, 0, "process_name", {"name": name})
    yield _meta(pid, 0, "process_sort_index", {"sort_index": sort})


def _meta(pid: int, tid: int, name: str, args: dict[str, object]) -> Event:
    return {"name": name, "ph": "M", "ts": 0, "pid": pid, "tid": tid, "args": args}


def _us(seconds: float) -> int:
    return round(1e6 * seconds)

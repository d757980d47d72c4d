"""The file a sampler leaves: JSON lines, written as it goes, read back even when it ends in half a line.

One line holds what was read at one moment on one device, as short keys (``t`` end, ``s`` start of an interval, ``d`` device,
``v`` values, ``n`` nulls and why)::

    {"t":812.1034,"d":"GPU-8d2...","v":{"power_w":512.3,"temperature_c":61},"n":{"throttle_hw_thermal_s":"unsupported"}}

The first line is the `Start`, the last the `Cost`; a sampler that was killed leaves no last line. A null stands once, when its
reason changes, so that an unsupported metric does not fill the disk.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from wansweep.telemetry.samples import Missing, Sample

SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Under what a trace was taken.

    Attributes:
        t_s: CLOCK_MONOTONIC of the first line.
        wall_minus_monotonic_s: What to add to a ``t_s`` for Unix time.
        period_s: Of the GPU readings, as asked.
        nvml: Null when NVML answered, else why there is no GPU in the trace.
        schema: Version of this format.
    """

    t_s: float
    wall_minus_monotonic_s: float
    period_s: float
    nvml: Missing | None
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What the sampler itself cost and what went wrong in it.

    Attributes:
        wall_s: From its first to its last tick.
        cpu_s: Its own CPU seconds, imports included.
        ticks: Rounds of reading.
        late_ticks: Rounds that began more than one period after they should have.
        nvml_mean_s: Mean time to read one GPU once.
        nvml_max_s: Longest time to read one GPU once.
        driver_mean_s: The same by the driver's own account (latencyUsec of the field values); null where it gave none.
        clock_step_s: How far the wall clock jumped against the monotonic one; over 5 ms, busy samples are misplaced by it.
        lost_samples: Samples that could not be written.
        error: First thing that went wrong, such as a full disk; empty when nothing did.
    """

    wall_s: float
    cpu_s: float
    ticks: int
    late_ticks: int
    nvml_mean_s: float | None
    nvml_max_s: float | None
    driver_mean_s: float | None
    clock_step_s: float
    lost_samples: int
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What was sampled, as read back.

    Attributes:
        samples: In the order written.
        start: Null when not even the first line could be written.
        cost: Null when the sampler was killed.
        torn_lines: Lines that were cut short and left out.
        errors: What went wrong, one line each; empty for a sound trace.
    """

    samples: tuple[Sample, ...]
    start: Start | None
    cost: Cost | None
    torn_lines: int
    errors: tuple[str, ...] = ()


class TraceWriter:
    """Writes a trace, in place of an older one; a full disk is remembered, counted and survived.

    Every line is one write to an unbuffered file, so a reader never waits for it and a kill loses one line at most.

    Attributes:
        error: First error, empty while there is none.
        lost_samples: Samples that are not on disk.
    """

    def __init__(self, path: Path) -> None:
        self.error = ""
        self.lost_samples = 0
        self._torn = False
        self._nulls: dict[tuple[str, str], Missing] = {}
        self._file: int | None = None
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            self._remember(error, path)
        self._path = path

    def start(self, start: Start) -> None:
        """Writes the first line."""
        self._line({"start": dataclasses.asdict(start)})

    def end(self, cost: Cost) -> None:
        """Writes the last line."""
        self._line({"end": dataclasses.asdict(cost)})

    def add(self, samples: Iterable[Sample]) -> None:
        """Writes the samples; those of one moment and device share a line, and a null is left out while its reason stays the same."""
        news = [sample for sample in samples if self._is_news(sample)]
        for (t_s, since_s, device), group in groupby(news, key=lambda s: (s.t_s, s.since_s, s.device)):
            line: dict[str, Any] = {"t": round(t_s, 6), "d": device}
            if since_s is not None:
                line["s"] = round(since_s, 6)
            together = list(group)
            if values := {s.metric: s.value for s in together if s.why is None}:
                line["v"] = values
            if nulls := {s.metric: str(s.why) for s in together if s.why is not None}:
                line["n"] = nulls
            if not self._line(line):
                self.lost_samples += len(together)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.close()

    def _is_news(self, sample: Sample) -> bool:
        key = (sample.device, sample.metric)
        if sample.why is None:
            self._nulls.pop(key, None)
            return True
        if self._nulls.get(key) is sample.why:
            return False
        self._nulls[key] = sample.why
        return True

    def _line(self, line: dict[str, Any]) -> bool:
        if self._file is None:
            return False
        text = json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        if self._torn:  # half a line stands before us: close it, so that only it is lost
            text = b"\n" + text
        try:
            written = os.write(self._file, text)
        except OSError as error:
            self._remember(error, self._path)
            return False
        self._torn = written < len(text)
        if self._torn and not self.error:
            self.error = f"{self._path.name}: {written} of {len(text)} bytes written; is the disk full?"
        return not self._torn

    def _remember(self, error: OSError, path: Path) -> None:
        if not self.error:
            self.error = f"{path.name}: {error.strerror or error}"


def read_trace(path: Path) -> Trace:
    """The trace at ``path``, as far as it was written.

    A file that is not there, or cannot be read, is a trace without samples that says so: a trial outlives its telemetry.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        return Trace(samples=(), start=None, cost=None, torn_lines=0, errors=(f"{path.name}: {error.strerror or error}",))
    samples: list[Sample] = []
    start: Start | None = None
    cost: Cost | None = None
    torn = 0
    for text in filter(None, lines):
        try:
            line = json.loads(text)
            if "start" in line:
                nvml = line["start"]["nvml"]
                start = Start(**{**line["start"], "nvml": None if nvml is None else Missing(nvml)})
            elif "end" in line:
                cost = Cost(**line["end"])
            else:
                samples += _samples(line)
        except (ValueError, TypeError, KeyError):
            torn += 1
    errors = [cost.error] if cost is not None and cost.error else []
    if torn:
        errors.append(f"{path.name}: {torn} torn lines")
    return Trace(samples=tuple(samples), start=start, cost=cost, torn_lines=torn, errors=tuple(errors))


def _samples(line: dict[str, Any]) -> Iterator[Sample]:
    for metric, value in line.get("v", {}).items():
        yield Sample(t_s=line["t"], device=line["d"], metric=metric, value=float(value), since_s=line.get("s"))
    for metric, why in line.get("n", {}).items():
        yield Sample(t_s=line["t"], device=line["d"], metric=metric, value=None, why=Missing(why), since_s=line.get("s"))

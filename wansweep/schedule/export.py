"""A sweep's progress as metrics of Ray: on the dashboard, and at the Prometheus endpoints under ``ray_wansweep_``.

Set by the driver alone, from what controllers report, so a series has one writer. Labels are bounded: a sweep's first `CASES` labels, ranks,
stage kinds, outcomes. Ray forgets a gauge that is not set again within two of its reports (20 s), so all are, for as long as they are true;
what a finished trial leaves is set to zero and then let go.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Self

from ray.util.metrics import Counter, Gauge

from wansweep.record import Outcome, Record, StageKind
from wansweep.schedule.progress import GPU_READINGS, HOST_READINGS, Progress, left_s

PREFIX = "wansweep_"
# Cases with a label of their own; the rest share one, so that a sweep of thousands does not drown a Prometheus.
CASES = 200
REST = "other"
# Ray takes what was set every 10 s at most.
AGAIN_EVERY_S = 1.0


class CaseState(IntEnum):
    """Where a case is, as the number that is exported."""

    WAITING = 0
    RUNNING = 1
    OK = 2
    ANSWERED = 3
    FAILED = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One metric.

    Attributes:
        name: Without `PREFIX`; ends in its unit where it has one.
        labels: Its labels.
        help: As Prometheus shows it.
        counts: Whether it only grows; Prometheus then appends ``_total``.
    """

    name: str
    labels: tuple[str, ...]
    help: str
    counts: bool = False

    @property
    def exported(self) -> str:
        """The name that Prometheus sees."""
        return f"ray_{PREFIX}{self.name}{'_total' if self.counts else ''}"


STATES = ", ".join(f"{state.value} {state.name.lower()}" for state in CaseState)
SERIES = (
    Series(name="case_state", labels=("case",), help=f"Where a case is: {STATES} (answered: oom, invalid, skipped; failed: crash, timeout)."),
    Series(name="stage", labels=("case", "stage"), help="1 while rank 0 of a trial of the case is in a stage of this kind, else 0."),
    Series(name="step", labels=("case",), help="Denoising step that is under way or was last, from 0."),
    Series(name="steps", labels=("case",), help="Denoising steps of the case."),
    Series(name="step_s", labels=("case",), help="How long the last whole denoising step took, in s."),
    Series(name="device_used_bytes", labels=("case", "rank"), help="Memory in use on the rank's GPU, in bytes."),
    Series(name="sm_active_pct", labels=("case", "rank"), help="SM activity of the rank's GPU (GPM), in percent."),
    Series(name="gpu_busy_pct", labels=("case", "rank"), help="Time in which a kernel was resident on the rank's GPU, in percent."),
    Series(name="power_w", labels=("case", "rank"), help="Power of the rank's GPU, in W."),
    Series(name="host_rss_bytes", labels=("case", "rank"), help="Resident memory of the rank's process tree, in bytes."),
    Series(name="trials", labels=("outcome",), help="Trials that are over, by outcome.", counts=True),
    Series(name="trials_running", labels=(), help="Trials that run."),
    Series(name="trials_waiting", labels=(), help="Trials that wait."),
    Series(name="eta_s", labels=(), help="Seconds left at the pace so far; 0 before there is one and at the end."),
)


class Exporter:
    """Sets the metrics of one sweep, again and again while its ``with`` lasts; a `Watcher`.

    Args:
        total: Trials of the sweep.
    """

    def __init__(self, *, total: int) -> None:
        self._metrics = {
            series.name: (Counter if series.counts else Gauge)(PREFIX + series.name, description=series.help, tag_keys=series.labels)
            for series in SERIES
        }
        self._total = total
        self._done = 0
        self._began_s = time.monotonic()
        self._cases: dict[str, str] = {}
        self._running: dict[tuple[str, int], Progress] = {}
        self._true: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._setting = threading.Lock()
        self._over = threading.Event()
        self._again = threading.Thread(target=self._keep_setting, daemon=True)
        self._sums()

    def __enter__(self) -> Self:
        self._again.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._again.join()

    def waiting(self, label: str) -> None:
        """The case has trials that wait."""
        self._gauge("case_state", CaseState.WAITING, case=self._case(label))

    def doing(self, label: str, trial: int, what: str) -> None:
        """A trial of the case has its GPUs."""
        self._gauge("case_state", CaseState.RUNNING, case=self._case(label))

    def progress(self, now: Progress) -> None:
        """A trial runs, and this is where it is."""
        case, before = self._case(now.label), self._running.get((now.label, now.trial))
        self._running[now.label, now.trial] = now
        self._gauge("case_state", CaseState.RUNNING, case=case)
        if before is None or before.kind is not now.kind:
            if before is not None:
                self._end_stage(case, before.kind)
            if now.kind is not None:
                self._gauge("stage", 1, case=case, stage=str(now.kind))
        self._gauge("steps", now.steps, case=case)
        if now.step is not None:
            self._gauge("step", now.step, case=case)
        if now.step_s is not None:
            self._gauge("step_s", now.step_s, case=case)
        for rank, readings in now.readings.items():
            for name, value in readings.items():
                self._gauge(name, value, case=case, rank=str(rank))
        self._sums()

    def finished(self, record: Record) -> None:
        """A trial is over."""
        case, last = self._case(record.label), self._running.pop((record.label, record.trial), None)
        state = CaseState.OK if record.outcome is Outcome.OK else CaseState.ANSWERED if record.outcome.is_answer else CaseState.FAILED
        self._gauge("case_state", state, case=case)
        self._metrics["trials"].inc(1, tags={"outcome": str(record.outcome)})
        self._done += 1
        if last is not None:
            self._end_stage(case, last.kind)
            for rank, readings in last.readings.items():
                for name in readings:
                    self._end(name, case=case, rank=str(rank))
        self._sums()

    def finishing(self) -> None:
        """Those that wait will not run; nothing else changes."""

    def _keep_setting(self) -> None:
        while not self._over.wait(AGAIN_EVERY_S):
            for name, labels in list(self._true):
                with self._setting:
                    if (value := self._true.get((name, labels))) is not None:
                        self._metrics[name].set(value, tags=dict(labels))

    def _sums(self) -> None:
        self._gauge("trials_running", len(self._running))
        self._gauge("trials_waiting", self._total - self._done - len(self._running))
        self._gauge("eta_s", left_s(ran_s=time.monotonic() - self._began_s, done=self._done, total=self._total) or 0)

    def _end_stage(self, case: str, kind: StageKind | None) -> None:
        if kind is not None:
            self._end("stage", case=case, stage=str(kind))

    def _case(self, label: str) -> str:
        """The label that stands for the case."""
        if label not in self._cases:
            self._cases[label] = label if len(self._cases) < CASES else REST
        return self._cases[label]

    def _gauge(self, name: str, value: float, **labels: str) -> None:
        with self._setting:
            self._true[name, tuple(labels.items())] = float(value)
            self._metrics[name].set(float(value), tags=labels)

    def _end(self, name: str, **labels: str) -> None:
        self._gauge(name, 0, **labels)
        with self._setting:
            del self._true[name, tuple(labels.items())]


assert {*GPU_READINGS, *HOST_READINGS} <= {series.name for series in SERIES}

"""A sweep's trials on Ray Tune: in the order of the plan, as soon as their GPUs are free.

Stock Tune picks pending trials from a set, so order is lost and large cases starve; our searcher admits the head of the queue only when
what it needs is free. Every admitted trial ends in a record, also when its controller dies.
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Protocol

from ray.tune import Callback, FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from wansweep.case import Case
from wansweep.plan.rules import forbidden
from wansweep.record import Outcome, Record, from_json
from wansweep.schedule.cluster import Capacity, Connection
from wansweep.schedule.controller import CaseTrial
from wansweep.schedule.export import Exporter
from wansweep.schedule.order import Order
from wansweep.schedule.progress import PROGRESS, Progress
from wansweep.sweep import Sweep


class Watcher(Protocol):
    """Told of a sweep's progress as it happens, on the driver's main thread."""

    def doing(self, label: str, what: str) -> None:
        """A trial is running and this is its stage."""

    def progress(self, now: Progress) -> None:
        """Where a running trial is; after `doing`, and more of it."""

    def finished(self, record: Record) -> None:
        """A trial is over."""


class _Watchers:
    """Several watchers as one, told in order."""

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def doing(self, label: str, what: str) -> None:
        for watcher in self._watchers:
            watcher.doing(label, what)

    def progress(self, now: Progress) -> None:
        for watcher in self._watchers:
            watcher.progress(now)

    def finished(self, record: Record) -> None:
        for watcher in self._watchers:
            watcher.finished(record)


def run_trials(sweep: Sweep, todo: Sequence[tuple[Case, int]], *, connection: Connection, run_folder: str, watcher: Watcher) -> bool:
    """Run the trials (case, repeat) and hand every record to the watcher. Returns whether the user interrupted.

    Cases that no node can ever hold, or whose levers cannot work together, end as ``invalid`` at once.
    """
    capacity = connection.capacity
    queue = _Queue(capacity=capacity, exclusive=sweep.cluster.exclusive)
    exporter = Exporter(total=len(todo))
    watcher = _Watchers(watcher, exporter)
    for case, trial in todo:
        if refusal := capacity.refusal(case.gpus) or forbidden(case):
            watcher.finished(_unrun(case, trial, Outcome.INVALID, refusal))
        else:
            queue.waiting.append(_order(sweep, case, trial, connection, run_folder))
            exporter.waiting(case.label)
    if not queue.waiting:
        return False
    tuner = Tuner(
        CaseTrial,
        tune_config=TuneConfig(
            search_alg=_PlanSearcher(queue), num_samples=-1, reuse_actors=True, trial_name_creator=_trial_name, trial_dirname_creator=_trial_dir
        ),
        run_config=RunConfig(
            name=sweep.name,
            storage_path=str(connection.scratch / "tune"),
            callbacks=[_Recorder(watcher)],
            failure_config=FailureConfig(max_failures=0),
            verbose=0,
        ),
    )
    with _interruptible(queue) as interrupted:
        try:
            tuner.fit()
        except KeyboardInterrupt:
            interrupted.set()
    return interrupted.is_set()


def _order(sweep: Sweep, case: Case, trial: int, connection: Connection, run_folder: str) -> Order:
    return Order(
        case=case,
        trial=trial,
        source=sweep.models[case.model],
        rank_cpus=connection.capacity.rank_cpus(case.gpus),
        on_gpus=connection.capacity.on_gpus,
        procedure=sweep.procedure,
        run_folder=run_folder,
        scratch=str(connection.scratch) if connection.started else None,
    )


def _unrun(case: Case, trial: int, outcome: Outcome, reason: str) -> Record:
    """The record of a trial that left none itself."""
    return Record(
        case=case,
        case_id=case.id,
        label=case.label,
        trial=trial,
        outcome=outcome,
        reason=reason,
        resolved=None,
        stages=(),
        started_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        startup_s=None,
        wall_s=0.0,
        warm=False,
        node="",
    )


def _trial_name(trial: TuneTrial) -> str:
    order: Order = trial.config["order"]
    return order.name


def _trial_dir(trial: TuneTrial) -> str:
    order: Order = trial.config["order"]
    return f"{order.case.id}-{order.trial}"


@dataclass(kw_only=True)
class _Queue:
    """Trials in order, and what of the cluster is free.

    Attributes:
        exclusive: At most one trial a node.
        waiting: Not yet admitted.
        live: Tune's trial id to what it takes.
    """

    capacity: Capacity
    exclusive: bool
    waiting: deque[Order] = field(default_factory=deque)
    live: dict[str, float] = field(default_factory=dict)

    def admit(self, trial_id: str) -> Order | None:
        """The head of the queue when it can start now."""
        need = self.capacity.need(self.waiting[0].case.gpus)
        # Ray counts resources in ten-thousandths.
        crowded = sum(self.live.values()) + need > self.capacity.slots + 1e-4
        if crowded or (self.exclusive and len(self.live) >= len(self.capacity.cpus)):
            return None
        self.live[trial_id] = need
        return self.waiting.popleft()


class _PlanSearcher(Searcher):  # type: ignore[misc]
    """Admits the head of the queue when its GPUs are free."""

    def __init__(self, queue: _Queue) -> None:
        super().__init__()
        self._queue = queue

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next order, null to be asked again later, or that there are no more."""
        if not self._queue.waiting:
            return str(Searcher.FINISHED)
        order = self._queue.admit(trial_id)
        return {"order": order} if order else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Free what the trial took."""
        self._queue.live.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a resume runs what has no record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""


class _Recorder(Callback):  # type: ignore[misc]
    """Hands records and progress to the watcher."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._recorded: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles callbacks with its state; a terminal and open files cannot follow."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object) -> None:
        """A trial has its resources."""
        self._watcher.doing(trial.config["order"].case.label, "starting")

    def on_trial_result(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: object) -> None:
        """A trial reported."""
        if "record" in result:
            self._recorded.add(trial.trial_id)
            self._watcher.finished(from_json(result["record"]))
        else:
            self._watcher.doing(result["label"], result["doing"])
            self._watcher.progress(PROGRESS.validate_json(result["progress"]))

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object) -> None:
        """A controller died, and its ranks with it; after its record, that no longer matters."""
        if trial.trial_id in self._recorded:
            return
        order: Order = trial.config["order"]
        self._watcher.finished(_unrun(order.case, order.trial, Outcome.CRASH, "the trial's controller died; see the logs in the Ray dashboard"))


@contextmanager
def _interruptible(queue: _Queue) -> Iterator[threading.Event]:
    """While the ``with`` lasts, a first SIGINT lets running trials finish and starts no more; a second one stops now."""
    interrupted = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()
        queue.waiting.clear()

    before: Callable[[int, FrameType | None], Any] | int | None = signal.signal(signal.SIGINT, on_signal)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)

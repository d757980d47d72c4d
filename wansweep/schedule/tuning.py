"""A sweep's trials on Ray Tune: in the packer's order, on the packer's nodes.

Stock Tune picks pending trials from a set, so order is lost and large cases starve; our searcher admits what the queue says, when what it
needs is free. Every admitted trial ends in a record, also when its controller dies; one that was lost with its node is tried again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError as HostOutOfMemory
from ray.exceptions import RayActorError
from ray.tune import Callback, FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from wansweep import twins
from wansweep.case import Case
from wansweep.errors import StoreError
from wansweep.plan.packing import Predicted
from wansweep.plan.rules import forbidden
from wansweep.record import Outcome, Record, Shortage, from_json, unrun
from wansweep.schedule.cluster import Connection, capacity_now
from wansweep.schedule.controller import CaseTrial
from wansweep.schedule.exits import killed_for_memory
from wansweep.schedule.export import Exporter
from wansweep.schedule.order import WORK, Order
from wansweep.schedule.progress import PROGRESS, Progress
from wansweep.schedule.queue import RETURN_S, Queue
from wansweep.schedule.signals import interruptible
from wansweep.sweep import Sweep


class Watcher(Protocol):
    """Told of a sweep's progress as it happens, on the driver's main thread."""

    def doing(self, label: str, trial: int, what: str) -> None:
        """A trial is running and this is its stage."""

    def progress(self, now: Progress) -> None:
        """Where a running trial is; after `doing`, and more of it."""

    def finished(self, record: Record) -> None:
        """A trial is over."""

    def finishing(self) -> None:
        """The user interrupted: what runs may finish, and no more starts. From a signal's handler, so no more than noted."""


class _Watchers:
    """Several watchers as one, told in order. Where a record cannot be kept no more trials start, but what runs may still find room."""

    def __init__(self, *watchers: Watcher, stop: Callable[[], None]) -> None:
        self._watchers = watchers
        self._stop = stop
        self.refused = False

    def doing(self, label: str, trial: int, what: str) -> None:
        for watcher in self._watchers:
            watcher.doing(label, trial, what)

    def progress(self, now: Progress) -> None:
        for watcher in self._watchers:
            watcher.progress(now)

    def finishing(self) -> None:
        for watcher in self._watchers:
            watcher.finishing()

    def finished(self, record: Record) -> None:
        for watcher in self._watchers:
            try:
                watcher.finished(record)
            except StoreError:
                self.refused = True
                self._stop()


def run_trials(
    sweep: Sweep,
    todo: Sequence[tuple[Case, int]],
    *,
    connection: Connection,
    run_folder: str,
    watcher: Watcher,
    predicted: Mapping[str, Predicted] | None = None,
    work: str = WORK,
) -> bool:
    """Run the trials (case, repeat) and hand every record to the watcher. Returns whether the user interrupted.

    Cases that no node can ever hold, or whose levers cannot work together, end as ``invalid`` at once. ``work`` is the module that a rank
    runs, `schedule.rank.Work`; ``predicted`` is by case id.
    """
    capacity = connection.capacity
    queue = Queue(
        capacity=capacity,
        cluster=sweep.cluster,
        nodes_now=lambda: capacity_now().nodes(gpus=capacity.on_gpus),
        return_s=0.0 if connection.started else RETURN_S,
    )
    orders, kept = [], twins.kept(sweep)
    exporter = Exporter(total=len(todo))
    watchers = _Watchers(watcher, exporter, stop=queue.clear)
    for case, trial in todo:
        if refusal := capacity.refusal(case.gpus, straddle=sweep.cluster.straddle) or forbidden(case):
            watchers.finished(unrun(case, trial, Outcome.INVALID, refusal))
        else:
            orders.append(replace(_order(sweep, case, trial, connection, run_folder, kept), work=work))
            exporter.waiting(case.label)
    if not orders or watchers.refused:
        return False
    queue.add(orders, predicted)
    recorder = _Recorder(watchers, queue, retries=sweep.procedure.retries)
    tuner = Tuner(
        CaseTrial,
        tune_config=TuneConfig(
            search_alg=_PlanSearcher(queue, recorder),
            scheduler=_Rescuer(queue),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_dir,
        ),
        run_config=RunConfig(
            name=sweep.name,
            storage_path=str(connection.scratch / "tune"),
            callbacks=[recorder],
            failure_config=FailureConfig(max_failures=0),
            verbose=0,
        ),
    )

    def finish() -> None:
        queue.clear()
        watchers.finishing()

    with exporter, _death_for_memory_is_a_death(), interruptible(finish, recorder.interrupted, grace_s=sweep.cluster.grace_s):
        try:
            tuner.fit()
        except KeyboardInterrupt:
            recorder.interrupted.set()
    return recorder.interrupted.is_set()


@contextmanager
def _death_for_memory_is_a_death() -> Iterator[None]:
    """While the ``with`` lasts, Tune takes a controller that Ray's memory monitor killed for one that died.

    The error of it is no RayActorError (ray 2.60), and Tune ends the whole experiment on one that it does not know.
    """
    failed = RayActorManager._actor_task_failed

    def told(manager: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:  # noqa: ANN401  (Tune's)
        failed(manager, tracked_actor_task, RayActorError(error_msg=str(exception)) if isinstance(exception, HostOutOfMemory) else exception)

    RayActorManager._actor_task_failed = told
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = failed


def _order(sweep: Sweep, case: Case, trial: int, connection: Connection, run_folder: str, kept: frozenset[str]) -> Order:
    return Order(
        case=case,
        trial=trial,
        source=sweep.models[case.model],
        rank_cpus=connection.capacity.rank_cpus(case.gpus),
        on_gpus=connection.capacity.on_gpus,
        procedure=replace(sweep.procedure, drift=case.id in kept),
        run_folder=run_folder,
        scratch=str(connection.scratch) if connection.started else None,
        driver_node=connection.node,
    )


def _dominating(queue: Queue, record: Record) -> list[Record]:
    """Records of the waiting trials that need no less memory than one that ran out of it; they wait no longer."""
    # What the host lacked says nothing of a GPU, and may be another program's doing.
    if record.outcome is not Outcome.OOM or (record.shortage and record.shortage.of_host):
        return []
    reason = f"dominated: needs no less memory than {record.label}, which ran out of it ({record.reason})"
    return [unrun(order.case, order.trial, Outcome.SKIPPED, reason) for order in queue.dominating(record.case)]


def _trial_name(trial: TuneTrial) -> str:
    order: Order = trial.config["order"]
    return order.name


def _trial_dir(trial: TuneTrial) -> str:
    order: Order = trial.config["order"]
    return f"{order.key}-{len(order.earlier_attempts)}"


class _PlanSearcher(Searcher):  # type: ignore[misc]
    """Admits what the queue starts."""

    def __init__(self, queue: Queue, recorder: _Recorder) -> None:
        super().__init__()
        self._queue = queue
        self._recorder = recorder

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next order, null to be asked again later, or that there are no more."""
        if order := self._queue.admit(trial_id):
            return {"order": order}
        for stranded in self._queue.stranded():
            self._recorder.give_up(stranded, "no node that is left can hold it")
        return str(Searcher.FINISHED) if self._queue.over else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Free what the trial took."""
        self._queue.release(trial_id, learn=not error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a resume runs what has no record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""


class _Rescuer(FIFOScheduler):  # type: ignore[misc]
    """Takes back trials whose node went away before it could reserve anything for them; Tune would wait for ever."""

    def __init__(self, queue: Queue) -> None:
        super().__init__()
        self._queue = queue

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:  # noqa: ANN401  (Tune's wrapper)
        """As Tune does, after looking at the nodes of what waits for its resources."""
        for trial in list(tune_controller.get_live_trials()):
            order: Order = trial.config["order"]
            if trial.status == TuneTrial.PENDING and self._queue.gone(order):
                self._queue.release(trial.trial_id, learn=False)
                self._queue.put_back(order)
                tune_controller.stop_trial(trial)
        return super().choose_trial_to_run(tune_controller)


class _Recorder(Callback):  # type: ignore[misc]
    """Hands records and progress to the watcher."""

    def __init__(self, watcher: Watcher, queue: Queue, *, retries: int) -> None:
        self._watcher = watcher
        self._queue = queue
        self._retries = retries
        self.interrupted = threading.Event()
        self._recorded: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles callbacks with its state; a terminal and open files cannot follow."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object) -> None:
        """A trial has its resources."""
        order: Order = trial.config["order"]
        self._watcher.doing(order.case.label, order.trial, "starting")

    def on_trial_result(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: object) -> None:
        """A trial reported."""
        if "record" in result:
            self._recorded.add(trial.trial_id)
            # Tune keeps each trial's last result, and there may be thousands of some 100 kB.
            record, order = from_json(result.pop("record")), trial.config["order"]
            if not (result["lost"] and self._again(order, record.reason)):
                self._watcher.finished(replace(record, shared_with=self._queue.shared_with(order)))
                for skipped in _dominating(self._queue, record):
                    self._watcher.finished(skipped)
        else:
            now = PROGRESS.validate_json(result["progress"])
            self._watcher.doing(now.label, now.trial, now.doing)
            self._watcher.progress(now)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object) -> None:
        """A controller died, and its ranks with it; after its record, that no longer matters."""
        if trial.trial_id in self._recorded:
            return
        order: Order = trial.config["order"]
        if killed := killed_for_memory(_error_of(trial)):
            self._end(order, Outcome.OOM, f"the host ran out of memory: {killed}, its controller's", shortage=Shortage(of_host=True))
            return
        reason = f"its controller on node {order.place[0][:8]} died, or the node with it"
        if not self._again(order, reason):
            self.give_up(order, f"{reason}; see the logs in the Ray dashboard")

    def _again(self, order: Order, reason: str) -> bool:
        """Whether a trial that was lost will be tried again."""
        if self.interrupted.is_set() or len(order.earlier_attempts) >= self._retries:
            return False
        self._queue.try_again(order, reason)
        self._watcher.doing(order.case.label, order.trial, "lost; waiting to be tried again")
        return True

    def give_up(self, order: Order, reason: str) -> None:
        """The record of a trial that left none, and is not tried again."""
        self._end(order, Outcome.CRASH, reason)

    def _end(self, order: Order, outcome: Outcome, reason: str, *, shortage: Shortage | None = None) -> None:
        record = unrun(order.case, order.trial, outcome, reason)
        beside = self._queue.shared_with(order)
        self._watcher.finished(replace(record, shortage=shortage, earlier_attempts=order.earlier_attempts, shared_with=beside))


def _error_of(trial: TuneTrial) -> str:
    """What Ray said of a trial that went away; Tune keeps it in a file."""
    file = trial.error_file
    try:
        return Path(file).read_text() if file else ""
    except OSError:
        return ""

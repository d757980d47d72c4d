"""One sweep from what was asked for to a folder that answers: what has no record yet, less what will not fit, as trials on a cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wansweep import forecast, twins
from wansweep.lock import locked
from wansweep.publish import Publisher
from wansweep.resume import Resumed, of_the_sweep, resume
from wansweep.schedule.signals import terminable
from wansweep.store import RunFolder, create, open_folder
from wansweep.sweep import Sweep, joined
from wansweep.telemetry.environment import environment

if TYPE_CHECKING:
    from wansweep.case import Case
    from wansweep.config import Request
    from wansweep.plan.packing import Predicted
    from wansweep.record import Record
    from wansweep.tables.results import Results


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """What became of a sweep.

    Attributes:
        folder: Its run folder.
        results: What the folder holds, of this run and of those it went on with.
        interrupted: The user stopped it.
    """

    folder: RunFolder
    results: Results
    interrupted: bool


def run_sweep(request: Request, tell: Callable[[str], None]) -> Ran:
    """Run what has no record yet as Ray Tune trials; each record is kept as it comes.

    Args:
        request: The sweep, and the folder to go on with.
        tell: Takes what the user should know meanwhile, a line at a time.

    Raises:
        WansweepError: The folder, the cluster or the disk does not let it.
    """
    with terminable(), _run_folder(request, tell) as resumed:
        folder = resumed.folder
        publisher = Publisher(folder, departures=resumed.departures)
        # The folder's cases; a forced resume may have been for some of them, or for more.
        sweep = replace(request.sweep, cases=folder.sweep().cases)
        todo = unfinished(sweep, {case.id for case in request.sweep.cases}, publisher.records)
        todo, predicted = fitting(sweep, folder, publisher, todo, tell)
        interrupted = _run_trials(sweep, publisher, todo, folder=folder, predicted=predicted, tell=tell) if todo else False
        publisher.settle()
        results = publisher.conclude(tell)
    return Ran(folder=folder, results=results, interrupted=interrupted)


@contextmanager
def _run_folder(request: Request, tell: Callable[[str], None]) -> Iterator[Resumed]:
    """A new run folder, or the one to go on with; nobody else writes there while the ``with`` lasts.

    Raises:
        ConfigError: The folder was made for another sweep, or on another machine.
        StoreError: It cannot be written, or another one writes there.
    """
    here = environment()
    folder = open_folder(request.resume) if request.resume else create(request.reports, request.sweep, here)
    with locked(folder.path) as warning:
        if warning:
            tell(f"wansweep: {warning}")
        folder.tidy()
        if request.resume is None:
            yield Resumed(folder=folder, departures=())
        else:
            yield resume(request.resume, request.sweep, here, force=request.force)


def unfinished(sweep: Sweep, asked: Collection[str], records: Sequence[Record]) -> list[tuple[Case, int]]:
    """The trials (case, repeat) that have no record of an answer yet; a prediction is none where it is to be tried all the same."""
    anyway = sweep.procedure.try_anyway
    finished = {
        (record.case_id, record.trial) for record in records if record.outcome.is_answer and not (anyway and forecast.is_prediction(record))
    }
    repeats = twins.repeats(sweep)
    return [(case, trial) for case in sweep.cases if case.id in asked for trial in range(repeats[case.id]) if (case.id, trial) not in finished]


def remaining(request: Request) -> dict[str, int]:
    """Trials that going on with the request's folder would run, by id of the cases that have any. Nothing is written.

    Raises:
        ConfigError: The folder was made for another sweep.
        StoreError: It is no run folder.
    """
    assert request.resume is not None
    folder = of_the_sweep(request.resume, request.sweep, force=request.force)
    sweep = joined(folder.sweep(), request.sweep)  # a forced resume adds its cases to the folder's
    todo = unfinished(sweep, {case.id for case in request.sweep.cases}, folder.read()[0])
    return dict(Counter(case.id for case, _ in todo))


def fitting(
    sweep: Sweep, folder: RunFolder, publisher: Publisher, todo: list[tuple[Case, int]], tell: Callable[[str], None]
) -> tuple[list[tuple[Case, int]], Mapping[str, Predicted]]:
    """What is left of the trials once those that are predicted not to fit have their records, and predictions by case id."""
    rows = forecast.foretell(sweep, folder)
    for line in forecast.warnings(rows):
        tell(line)
    publisher.foretold()
    skipped = [] if sweep.procedure.try_anyway else forecast.unfit(rows, todo)
    for record in skipped:
        publisher.add(record)
    gone = {(record.case_id, record.trial) for record in skipped}
    return [(case, trial) for case, trial in todo if (case.id, trial) not in gone], forecast.lengths(rows, sweep.procedure)


def _run_trials(
    sweep: Sweep,
    publisher: Publisher,
    todo: list[tuple[Case, int]],
    *,
    folder: RunFolder,
    predicted: Mapping[str, Predicted],
    tell: Callable[[str], None],
) -> bool:
    """Run trials on a Ray cluster, storing each record as it comes. Returns whether the user interrupted."""
    # Here, so that a folder with nothing left to run is answered without Ray.
    from wansweep.schedule.cluster import connect
    from wansweep.schedule.live import LiveView
    from wansweep.schedule.tuning import run_trials

    with connect(sweep.cluster) as connection:
        tell(connection.told())
        with LiveView(total=len(todo), title=sweep.name, on_record=publisher.add, file=folder.live) as view:
            return run_trials(sweep, todo, connection=connection, run_folder=str(folder.path.resolve()), watcher=view, predicted=predicted)

"""A rank that only sleeps, for as many seconds as its case's prompt says: what is left is what running trials costs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pydantic import TypeAdapter

from wansweep.record import Outcome, RankFacts, Stage, StageKind
from wansweep.trial.task import Ending, Seat, Task

_STAGE = TypeAdapter(Stage)


def introduce(rank: int, cores: float) -> RankFacts:
    """A rank without a device."""
    return RankFacts(rank=rank, device_uuid=None, device_name="none", device_total_bytes=None, cores=cores)


def run_rank(task: Task, seat: Seat) -> Ending:
    """One stage of the prompt's length."""
    begin_s = time.perf_counter()
    time.sleep(float(task.case.prompt))
    write_stage(task.journal(seat.rank), seat.rank, start_s=begin_s - task.origin_s, duration_s=time.perf_counter() - begin_s)
    return Ending(rank=seat.rank, outcome=Outcome.OK, reason="", resolved=None)


def write_stage(journal: Path, rank: int, *, start_s: float, duration_s: float) -> None:
    """The stage as a line of the journal."""
    kind = StageKind.TOTAL_EXECUTION
    journal.write_bytes(_STAGE.dump_json(Stage(kind=kind, name=str(kind), rank=rank, start_s=start_s, duration_s=duration_s)) + b"\n")


if __name__ == "__main__":
    # The same worker by hand: a process that imports what it needs, works and leaves its stage.
    write_stage(Path(sys.argv[1]), 0, start_s=0.0, duration_s=0.0)

"""What ranks run where the fate of records is the subject: a whole trial's stages at once, always the same, and a line in a ledger.

The prompt is ``LEDGER SECONDS``: so long it takes after its first line; or ``LEDGER FILE``: until that file is there. What it makes is
small enough for thirty of them in a minute.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from pydantic import TypeAdapter

from tests.makers import make_resolved, make_stages
from wansweep.record import Outcome, RankFacts, Stage, Timing
from wansweep.trial.task import Ending, Seat, Task

_STAGE = TypeAdapter(Stage)


def introduce(rank: int, cores: float) -> RankFacts:
    return RankFacts(rank=rank, device_uuid=None, device_name="stub", device_total_bytes=None, cores=cores, pid=os.getpid())


def run_rank(task: Task, seat: Seat) -> Ending:
    ledger, until = task.case.prompt.split()
    with Path(ledger).open("a") as file:
        file.write(f"{task.case.id}\n")
    lines = b"".join(_STAGE.dump_json(stage) + b"\n" for stage in make_stages(task.case, rank=seat.rank))
    task.journal(seat.rank).write_bytes(lines)
    _wait(until)
    return Ending(rank=seat.rank, outcome=Outcome.OK, reason="", resolved=make_resolved(task.case), timing=Timing.PERF_COUNTER)


def _wait(until: str) -> None:
    if not until.startswith("/"):
        time.sleep(float(until))
        return
    while not Path(until).exists():
        time.sleep(0.05)

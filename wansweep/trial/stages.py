"""Stages of a rank: begin and end of named windows on one monotonic clock, written down as they happen.

Every begin and end is a line of the rank's journal, a plain file on its node. What was measured before a rank died is therefore
still there, and the trial's controller reads from it what a running rank is doing. Read back with `read_journal`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from pydantic import TypeAdapter, ValidationError

from wansweep.case import Model
from wansweep.record import Expert, Stage, StageKind, stage_name

_STAGE = TypeAdapter(Stage)


def no_sync() -> None:
    """Wait for nothing: a CPU has finished when it returns."""


@dataclass(kw_only=True)
class Stages:
    """Records the stages of one rank.

    Attributes:
        model: Gives the Preprocess stage its name.
        rank: Of the gang.
        origin_s: Value of ``time.perf_counter`` that is zero for every rank of the trial (one host, one CLOCK_MONOTONIC).
        journal: Where each begin and end is written, unbuffered; null keeps them in memory only.
        sync: Waits for the device, so that a window holds the work issued in it.
    """

    model: Model
    rank: int = 0
    origin_s: float = field(default_factory=time.perf_counter)
    journal: BinaryIO | None = None
    sync: Callable[[], None] = no_sync
    done: list[Stage] = field(default_factory=list)

    @contextmanager
    def __call__(self, kind: StageKind, *, step: int | None = None, expert: Expert | None = None) -> Iterator[None]:
        """Times what runs inside the ``with``; an exception leaves the stage begun and not ended."""
        self.sync()
        start = time.perf_counter()
        begun = Stage(
            kind=kind,
            name=stage_name(kind, self.model, step=step),
            rank=self.rank,
            start_s=start - self.origin_s,
            duration_s=None,
            step=step,
            expert=expert,
        )
        self._write(begun)
        yield
        self.sync()
        ended = replace(begun, duration_s=time.perf_counter() - start)
        self._write(ended)
        self.done.append(ended)

    def _write(self, stage: Stage) -> None:
        if self.journal is not None:
            self.journal.write(_STAGE.dump_json(stage) + b"\n")


def read_journal(path: Path) -> list[Stage]:
    """The stages in a journal in order of their begin; the ones without an end keep a null duration.

    A line that a dying rank left half written is passed over; a missing file is a rank that never began.
    """
    stages: dict[str, Stage] = {}
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            stage = _STAGE.validate_json(line)
        except ValidationError:
            continue
        stages[stage.name] = stage
    return list(stages.values())

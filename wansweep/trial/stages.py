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
from typing import TYPE_CHECKING, BinaryIO

from pydantic import TypeAdapter, ValidationError

from wansweep.case import Model
from wansweep.record import Expert, Figure, Stage, StageKind, stage_name

if TYPE_CHECKING:  # they import torch, which the controller that reads journals does not
    from wansweep.trial.clock import Clock, Mark
    from wansweep.trial.communication import Communication
    from wansweep.trial.probe import Probe

_STAGE = TypeAdapter(Stage)


@dataclass(kw_only=True)
class Stages:
    """Records the stages of one rank.

    Attributes:
        model: Gives the Preprocess stage its name.
        clock: Tells when the device was where.
        rank: Of the gang.
        origin_s: Value of ``time.perf_counter`` that is zero for every rank of the trial (one host, one CLOCK_MONOTONIC).
        journal: Where each begin and end is written, unbuffered; null keeps them in memory only.
        probe: Reads counters at the edges; null measures time alone.
        communication: Hears of collectives; null where there are none or they cannot be timed.
        on_end: Told of each stage while it still lasts, so that it sees what computing it left behind; must take microseconds.
        done: Stages that have ended, in order of their end.
    """

    model: Model
    clock: Clock
    rank: int = 0
    origin_s: float = field(default_factory=time.perf_counter)
    journal: BinaryIO | None = None
    probe: Probe | None = None
    communication: Communication | None = None
    on_end: Callable[[StageKind, Expert | None], None] | None = None
    done: list[Stage] = field(default_factory=list)
    _marks: list[tuple[Mark, Mark, list[tuple[Mark, Mark]]]] = field(default_factory=list)
    _paused_s: float = 0.0

    @contextmanager
    def __call__(self, kind: StageKind, *, step: int | None = None, expert: Expert | None = None) -> Iterator[dict[str, Figure]]:
        """Times what runs inside the ``with``; an exception leaves the stage begun and not ended.

        Figures put into the dictionary are kept beside the probe's.
        """
        if self.probe is not None:
            self.probe.begin()
        begin = self.clock.mark()
        paused_before_s = self._paused_s
        begun = Stage(
            kind=kind,
            name=stage_name(kind, self.model, step=step),
            rank=self.rank,
            start_s=begin.host_s - self.origin_s,
            duration_s=None,
            step=step,
            expert=expert,
        )
        self._write(begun)
        given: dict[str, Figure] = {}
        heard = self.communication if kind is not StageKind.TOTAL_EXECUTION else None
        if heard is not None:
            heard.begin()
        yield given
        if self.on_end is not None:
            self.on_end(kind, expert)
        waits = heard.end() if heard is not None else []
        end = self.clock.mark()
        figures = {**(self.probe.end() if self.probe is not None else {}), **given}
        if heard is not None:
            figures["communication_s"] = Figure(value=0.0)
        ended = self._timed(replace(begun, paused_s=self._paused_s - paused_before_s, figures=figures), begin, end, waits)
        self._write(ended)
        self.done.append(ended)
        self._marks.append((begin, end, waits))

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What runs inside the ``with`` is in no open stage's duration."""
        begin = time.perf_counter()
        yield
        self._paused_s += time.perf_counter() - begin

    def settle(self) -> None:
        """After the run: the device's own times in place of the host's, in `done` and in the journal."""
        self.clock.settle()
        settled = [self._timed(stage, *marks) for stage, marks in zip(self.done, self._marks, strict=True)]
        for before, after in zip(self.done, settled, strict=True):
            if after != before:
                self._write(after)
        self.done = settled

    def _timed(self, stage: Stage, begin: Mark, end: Mark, waits: list[tuple[Mark, Mark]]) -> Stage:
        start_s, end_s = self.clock.at_s(begin), self.clock.at_s(end)
        if self.communication is not None and "communication_s" in stage.figures:
            stage = replace(stage, figures={**stage.figures, "communication_s": Figure(value=self.communication.seconds(waits))})
        return replace(stage, start_s=start_s - self.origin_s, duration_s=end_s - start_s - stage.paused_s)

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

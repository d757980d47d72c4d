"""The sweep as it runs: a calm table on a terminal, a line an event anywhere else, a board for `wansweep watch`. Knows no Ray, no tables."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console

from wansweep.errors import StoreError
from wansweep.record import Outcome, Record
from wansweep.schedule.board import FINISHING, Board, Drawn, board, can_draw, eta, post
from wansweep.schedule.progress import Progress, left_s

POST_EVERY_S = 1.0


class LiveView:
    """Shows a sweep's progress while its ``with`` lasts, and passes every record on.

    Attributes:
        total: Trials of the sweep.
        outcomes: Trials that are over, by outcome.
        running: Label and repeat to stage and since when.
        at: Label and repeat to what a running trial told last.
    """

    def __init__(
        self, *, total: int, title: str, on_record: Callable[[Record], None], file: Path | None = None, stream: TextIO = sys.stderr
    ) -> None:
        """Nothing is shown yet.

        Args:
            total: Trials of the sweep.
            title: Its name.
            on_record: Is given every record first.
            file: Where the board is posted for other shells, and removed at the end; null posts none.
            stream: Of the table or the lines.
        """
        self.total = total
        self.outcomes: Counter[Outcome] = Counter()
        self.running: dict[tuple[str, int], tuple[str, float]] = {}
        self.at: dict[tuple[str, int], Progress] = {}
        self._title = title
        self._on_record = on_record
        self._file = file
        self._finishing = self._told = False
        self._over = threading.Event()
        self._poster = threading.Thread(target=self._keep_posting, daemon=True)
        self._console = Console(file=stream)
        self._began_s = time.monotonic()
        self._live = Drawn(self.board, console=self._console)

    def __enter__(self) -> Self:
        if self._file is not None:
            self._poster.start()
        if can_draw(self._console):
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if can_draw(self._console):
            self._live.stop()
        if self._file is not None:
            self._over.set()
            self._poster.join()
            with suppress(OSError):
                self._file.unlink()

    def doing(self, label: str, trial: int, what: str) -> None:
        """A trial is running and this is its stage."""
        stage, since_s = self.running.get((label, trial), ("", time.monotonic()))
        self.running[label, trial] = (what, since_s)
        if not stage:
            self._say(f"{label}: {what}")
        if self._finishing and not self._told:
            self._told = True
            self._say(FINISHING)

    def progress(self, now: Progress) -> None:
        """Where a running trial is."""
        self.at[now.label, now.trial] = now

    def finishing(self) -> None:
        """The user interrupted: what runs may finish."""
        self._finishing = True

    def finished(self, record: Record) -> None:
        """A trial is over: its record is passed on first, then shown.

        Raises:
            StoreError: It could not be kept.
        """
        self.running.pop((record.label, record.trial), None)
        self.at.pop((record.label, record.trial), None)
        try:
            self._on_record(record)
        except StoreError as error:
            self._say(f"{record.label}: {record.outcome}, but it could not be kept, and no more trials start: {error}")
            raise
        self.outcomes[record.outcome] += 1
        reason = f" ({record.reason})" if record.reason else ""
        self._say(f"[{self.done}/{self.total}] {record.label}: {record.outcome}{reason}, {record.wall_s:.1f} s{eta(self._left_s(), ', ')}")

    @property
    def done(self) -> int:
        """Trials that are over."""
        return self.outcomes.total()

    def board(self) -> Board:
        """The sweep now."""
        return board(
            title=self._title,
            total=self.total,
            outcomes=self.outcomes,
            running=self.running,
            at=self.at,
            left_s=self._left_s(),
            finishing=self._finishing,
        )

    def _left_s(self) -> float | None:
        return left_s(ran_s=time.monotonic() - self._began_s, done=self.done, total=self.total)

    def _keep_posting(self) -> None:
        """Also while nothing happens for long: a board that is not renewed is one whose driver died."""
        assert self._file is not None
        while True:
            post(self.board(), self._file)
            if self._over.wait(POST_EVERY_S):
                return

    def _say(self, line: str) -> None:
        if not can_draw(self._console):
            self._console.file.write(f"{line}\n")
            self._console.file.flush()

"""The sweep as it runs: a calm table on a terminal, a line an event anywhere else, a board for `wansweep watch`. Knows no Ray, no tables."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live

from wansweep.errors import StoreError
from wansweep.record import Outcome, Record
from wansweep.schedule.board import Board, board, eta, post
from wansweep.schedule.progress import Progress, left_s

REFRESH_PER_S = 4
POST_EVERY_S = 1.0


class LiveView:
    """Shows a sweep's progress while its ``with`` lasts, and passes every record on.

    Attributes:
        total: Trials of the sweep.
        outcomes: Trials that are over, by outcome.
        running: Label to stage and since when.
        at: Label to what a running trial told last.
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
        self.running: dict[str, tuple[str, float]] = {}
        self.at: dict[str, Progress] = {}
        self._title = title
        self._on_record = on_record
        self._file = file
        self._posted_s = float("-inf")
        self._console = Console(file=stream)
        self._began_s = time.monotonic()
        self._live = Live(get_renderable=self.board, console=self._console, refresh_per_second=REFRESH_PER_S, transient=True)

    def __enter__(self) -> Self:
        self._post()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._console.is_terminal:
            self._live.stop()
        if self._file is not None:
            with suppress(OSError):
                self._file.unlink()

    def doing(self, label: str, what: str) -> None:
        """A trial is running and this is its stage."""
        stage, since_s = self.running.get(label, ("", time.monotonic()))
        self.running[label] = (what, since_s)
        if not stage:
            self._say(f"{label}: {what}")
        self._post()

    def progress(self, now: Progress) -> None:
        """Where a running trial is."""
        self.at[now.label] = now

    def finished(self, record: Record) -> None:
        """A trial is over: its record is passed on first, then shown.

        Raises:
            StoreError: It could not be kept.
        """
        self.running.pop(record.label, None)
        self.at.pop(record.label, None)
        try:
            self._on_record(record)
        except StoreError as error:
            self._say(f"{record.label}: {record.outcome}, but it could not be kept, and no more trials start: {error}")
            raise
        self.outcomes[record.outcome] += 1
        reason = f" ({record.reason})" if record.reason else ""
        self._say(f"[{self.done}/{self.total}] {record.label}: {record.outcome}{reason}, {record.wall_s:.1f} s{eta(self._left_s(), ', ')}")
        self._post()

    @property
    def done(self) -> int:
        """Trials that are over."""
        return self.outcomes.total()

    def board(self) -> Board:
        """The sweep now."""
        return board(title=self._title, total=self.total, outcomes=self.outcomes, running=self.running, at=self.at, left_s=self._left_s())

    def _left_s(self) -> float | None:
        return left_s(ran_s=time.monotonic() - self._began_s, done=self.done, total=self.total)

    def _post(self) -> None:
        if self._file is not None and time.monotonic() - self._posted_s >= POST_EVERY_S:
            self._posted_s = time.monotonic()
            post(self.board(), self._file)

    def _say(self, line: str) -> None:
        if not self._console.is_terminal:
            self._console.file.write(f"{line}\n")
            self._console.file.flush()

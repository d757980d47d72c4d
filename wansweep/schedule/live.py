"""The sweep as it runs: a calm table on a terminal, a line an event anywhere else. Knows neither Ray nor tables."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from wansweep.record import Outcome, Record

REFRESH_PER_S = 4
# Rows of running trials shown; the rest is a count.
SHOWN = 20


class LiveView:
    """Shows a sweep's progress while its ``with`` lasts, and passes every record on.

    Attributes:
        total: Trials of the sweep.
        outcomes: Trials that are over, by outcome.
        running: Label to stage and since when.
    """

    def __init__(self, *, total: int, title: str, on_record: Callable[[Record], None], stream: TextIO = sys.stderr) -> None:
        self.total = total
        self.outcomes: Counter[Outcome] = Counter()
        self.running: dict[str, tuple[str, float]] = {}
        self._title = title
        self._on_record = on_record
        self._console = Console(file=stream)
        self._began_s = time.monotonic()
        self._live = Live(get_renderable=self._picture, console=self._console, refresh_per_second=REFRESH_PER_S, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def doing(self, label: str, what: str) -> None:
        """A trial is running and this is its stage."""
        stage, since = self.running.get(label, ("", time.monotonic()))
        self.running[label] = (what, since)
        if not stage:
            self._say(f"{label}: {what}")

    def finished(self, record: Record) -> None:
        """A trial is over: its record is passed on first, then shown."""
        self._on_record(record)
        self.running.pop(record.label, None)
        self.outcomes[record.outcome] += 1
        reason = f" ({record.reason})" if record.reason else ""
        self._say(f"[{self.done}/{self.total}] {record.label}: {record.outcome}{reason}, {record.wall_s:.1f} s{self._eta(', ')}")

    @property
    def done(self) -> int:
        """Trials that are over."""
        return self.outcomes.total()

    def _say(self, line: str) -> None:
        if not self._console.is_terminal:
            self._console.file.write(f"{line}\n")
            self._console.file.flush()

    def _eta(self, before: str = "") -> str:
        """Time left at the pace so far; empty before there is one, and at the end."""
        if not self.done or self.done == self.total:
            return ""
        left_s = (time.monotonic() - self._began_s) / self.done * (self.total - self.done)
        return f"{before}about {left_s:.0f} s left" if left_s < 120 else f"{before}about {left_s / 60:.0f} min left"

    def _picture(self) -> Group:
        table = Table.grid(padding=(0, 2))
        now = time.monotonic()
        for label, (stage, since) in list(self.running.items())[:SHOWN]:
            table.add_row(Text(label), Text(stage, style="cyan"), f"{now - since:.0f} s")
        if len(self.running) > SHOWN:
            table.add_row(f"and {len(self.running) - SHOWN} more", "", "")
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        waiting = self.total - self.done - len(self.running)
        done = f"{self.done} of {self.total} done{f' ({counts})' if counts else ''}"
        head = f"{self._title}: {done}, {len(self.running)} running, {waiting} waiting{self._eta(', ')}"
        bar = Table.grid()
        bar.add_row(ProgressBar(total=self.total, completed=self.done, width=60))
        return Group(Text(head), bar, table)

"""A sweep at one moment, as a picture that fits its terminal, and as a small file for who looks on from another shell. Knows no Ray."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from wansweep.record import Outcome
from wansweep.schedule.progress import Progress
from wansweep.store import content
from wansweep.units import BYTES, show

# Lines of a terminal that are not rows of running trials: head, bar, the count of the rest, the prompt's own.
FRAME = 5
BAR = 60
# However narrow it is, so much of a label is shown.
LABEL = 8
# Figures at the end of a row want this much width; a narrower terminal does without.
WIDE = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A trial that runs.

    Attributes:
        label: Of its case.
        doing: Its stage, or what it does instead.
        ran_s: Since it has its GPUs.
        at: More of it; null until it has told.
    """

    label: str
    doing: str
    ran_s: float
    at: Progress | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """A sweep at one moment.

    Attributes:
        title: Its name.
        total: Its trials.
        outcomes: Trials that are over, by outcome.
        running: Trials that run, longest first.
        left_s: Seconds left at the pace so far; null before there is one.
        written_s: Wall clock when this was true.
        pid: Of the driver.
    """

    title: str
    total: int
    outcomes: dict[Outcome, int]
    running: tuple[Running, ...]
    left_s: float | None
    written_s: float
    pid: int

    @property
    def done(self) -> int:
        """Trials that are over."""
        return sum(self.outcomes.values())

    def head(self) -> str:
        """The counts, on one line."""
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        waiting = self.total - self.done - len(self.running)
        done = f"{self.done} of {self.total} done{f' ({counts})' if counts else ''}"
        return f"{self.title}: {done}, {len(self.running)} running, {waiting} waiting{eta(self.left_s, ', ')}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The picture: as many running trials as the terminal has room for, and a count of the rest. Made anew for every size."""
        yield Text(self.head(), no_wrap=True, overflow="ellipsis")
        bar = Table.grid()
        bar.add_row(ProgressBar(total=max(1, self.total), completed=self.done, width=min(BAR, options.max_width)))
        yield bar
        shown = max(1, console.size.height - FRAME)
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, overflow="ellipsis", min_width=LABEL)
        for column in range(2 + 4 * (options.max_width >= WIDE)):
            table.add_column(no_wrap=True, justify="left" if column == 0 else "right", style="cyan" if column == 0 else "")
        for trial in self.running[:shown]:
            table.add_row(Text(trial.label), *_cells(trial, wide=options.max_width >= WIDE))
        yield table
        if len(self.running) > shown:
            yield Text(f"and {len(self.running) - shown} more")


BOARD = TypeAdapter(Board)


def _cells(trial: Running, *, wide: bool) -> list[str]:
    """Stage, figures where there is room, and time."""
    figures: list[str] = []
    if wide:
        at = trial.at
        step = f"step {at.step + 1}/{at.steps}" if at is not None and at.step is not None else ""
        pace = f"{at.step_s:.2f} s/step" if at is not None and at.step_s is not None else ""
        used = _highest(at, "device_used_bytes")
        busy = _highest(at, "sm_active_pct") or _highest(at, "gpu_busy_pct")
        figures = [step, pace, "" if used is None else f"{show(used, BYTES, digits=1)} GiB", "" if busy is None else f"{busy:.0f} %"]
    return [trial.doing, *figures, f"{trial.ran_s:.0f} s"]


def _highest(at: Progress | None, name: str) -> float | None:
    """The reading of the rank that has most of it."""
    values = [readings[name] for readings in at.readings.values() if name in readings] if at else []
    return max(values, default=None)


def eta(left_s: float | None, before: str = "") -> str:
    """Time left in words; empty for none."""
    if not left_s:
        return ""
    return f"{before}about {left_s:.0f} s left" if left_s < 120 else f"{before}about {left_s / 60:.0f} min left"


def post(board: Board, file: Path) -> None:
    """Put the board where others look; never half, and not so durable that a disk must be waited for. A full disk leaves the last one."""
    scratch = file.with_name(f".{file.name}")
    try:
        scratch.write_bytes(BOARD.dump_json(board))
        scratch.replace(file)
    except OSError:
        with suppress(OSError):
            scratch.unlink()


def posted(file: Path) -> Board | None:
    """The board that is there; null for none."""
    try:
        return BOARD.validate_json(content(file))
    except (OSError, ValidationError):
        return None


def board(
    *,
    title: str,
    total: int,
    outcomes: dict[Outcome, int],
    running: dict[str, tuple[str, float]],
    at: dict[str, Progress],
    left_s: float | None,
) -> Board:
    """The board now.

    Args:
        title: Of the sweep.
        total: Its trials.
        outcomes: Trials that are over.
        running: Label to stage and, on the monotonic clock, since when.
        at: Label to what a trial told last.
        left_s: Seconds left.
    """
    now_s = time.monotonic()
    rows = tuple(Running(label=label, doing=what, ran_s=now_s - since_s, at=at.get(label)) for label, (what, since_s) in running.items())
    return Board(title=title, total=total, outcomes=dict(outcomes), running=rows, left_s=left_s, written_s=time.time(), pid=os.getpid())

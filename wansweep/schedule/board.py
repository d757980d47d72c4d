"""A sweep at one moment, as a picture that fits its terminal, and as a small file for who looks on from another shell. Knows no Ray."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from wansweep.files import content
from wansweep.record import Outcome
from wansweep.schedule.progress import Progress
from wansweep.units import BYTES, show

# Lines of a terminal that are not rows of running trials: head (two, where it is narrow), bar, the count of the rest, the prompt's own.
FRAME = 5
REFRESH_PER_S = 4
FINISHING = "interrupted, what runs may finish (Ctrl-C again stops it)"
BAR = 60
# However narrow it is, so much of a label is shown.
LABEL = 8
GAP = 2
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
        finishing: The user interrupted: what runs may finish, and no more starts.
    """

    title: str
    total: int
    outcomes: dict[Outcome, int]
    running: tuple[Running, ...]
    left_s: float | None
    written_s: float
    pid: int
    finishing: bool = False

    @property
    def done(self) -> int:
        """Trials that are over."""
        return sum(self.outcomes.values())

    def head(self) -> str:
        """The counts, on one line."""
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        waiting = self.total - self.done - len(self.running)
        done = f"{self.done} of {self.total} done{f' ({counts})' if counts else ''}"
        if self.finishing:
            return f"{self.title}: {FINISHING}: {done}, {len(self.running)} running"
        return f"{self.title}: {done}, {len(self.running)} running, {waiting} waiting{eta(self.left_s, ', ')}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The picture: as many running trials as the terminal has room for, and a count of the rest. Made anew for every size."""
        yield from Text(self.head()).wrap(console, options.max_width)[:2]
        if console.is_terminal:  # without colours it is blank
            bar = Table.grid()
            bar.add_row(ProgressBar(total=max(1, self.total), completed=self.done, width=min(BAR, options.max_width)))
            yield bar
        shown = max(1, console.size.height - FRAME)
        rows = [(trial.label, _cells(trial, wide=options.max_width >= WIDE)) for trial in self.running[:shown]]
        # A narrow terminal cuts the labels, not what their trials do.
        rest = sum(GAP + max(map(len, column)) for column in zip(*(cells for _, cells in rows), strict=True))
        table = Table.grid(padding=(0, GAP))
        table.add_column(no_wrap=True, overflow="ellipsis", min_width=LABEL, max_width=max(LABEL, options.max_width - rest))
        for column in range(2 + 4 * (options.max_width >= WIDE)):
            table.add_column(no_wrap=True, justify="left" if column == 0 else "right", style="cyan" if column == 0 else "")
        for label, cells in rows:
            table.add_row(Text(label), *cells)
        yield table
        if len(self.running) > shown:
            yield Text(f"and {len(self.running) - shown} more")


BOARD = TypeAdapter(Board)


def can_draw(console: Console) -> bool:
    """Whether it is a terminal that can take back what stands on it; a dumb one, as of an editor or a CI, gets lines."""
    return console.is_terminal and not console.is_dumb_terminal


class Drawn(Live):
    """A board that is drawn again and again in its place, until the ``with`` ends and it is gone.

    A terminal that changes its size wraps what stood there, and nobody knows any more how many lines that are: the screen begins anew.
    """

    def __init__(self, look: Callable[[], Board], *, console: Console) -> None:
        """Not drawn yet.

        Args:
            look: Gives the board now; from another thread.
            console: A terminal.
        """
        super().__init__(get_renderable=look, console=console, refresh_per_second=REFRESH_PER_S, transient=True)
        self._size = console.size

    def refresh(self) -> None:
        """Draw it."""
        if (size := self.console.size) != self._size:
            self._size = size
            self.console.control(Control.clear(), Control.home())
        super().refresh()


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
    running: Mapping[tuple[str, int], tuple[str, float]],
    at: Mapping[tuple[str, int], Progress],
    left_s: float | None,
    finishing: bool = False,
) -> Board:
    """The board now.

    Args:
        title: Of the sweep.
        total: Its trials.
        outcomes: Trials that are over.
        running: Label and repeat to stage and, on the monotonic clock, since when.
        at: Label and repeat to what a trial told last.
        left_s: Seconds left.
        finishing: The user interrupted.
    """
    now_s = time.monotonic()
    now = list(running.items())  # at once: another thread than the drawing one changes it
    several = Counter(label for (label, _), _ in now)
    rows = tuple(
        Running(label=f"{label} #{trial}" if several[label] > 1 else label, doing=what, ran_s=now_s - since_s, at=at.get((label, trial)))
        for (label, trial), (what, since_s) in now
    )
    return Board(
        title=title,
        total=total,
        outcomes=dict(outcomes),
        running=rows,
        left_s=left_s,
        written_s=time.time(),
        pid=os.getpid(),
        finishing=finishing,
    )

"""A running sweep, followed from another shell by the board that its driver posts in the run folder. Knows no Ray and touches nothing."""

from __future__ import annotations

import time
from enum import Enum
from pathlib import Path
from typing import TextIO

from rich.console import Console

from wansweep.schedule.board import Board, Drawn, can_draw, posted

LOOK_EVERY_S = 1.0
# A driver posts every second; one that renders a large report may be silent for some.
SILENT_S = 30.0


class Sight(Enum):
    """What was there to follow."""

    NOTHING = "no board: the sweep is over, or has not begun"
    OVER = "the sweep ended while it was followed"
    SILENT = "a board that its driver no longer renews"
    LOOKED = "looked at once"


def follow(file: Path, *, stream: TextIO, once: bool = False) -> tuple[Sight, Board | None]:
    """Shows the board until it goes away, or once where it cannot be drawn again. Returns how that ended, and the last board.

    Args:
        file: Where the driver posts.
        stream: To show on.
        once: Do not wait.
    """
    console = Console(file=stream)
    last = posted(file)
    if last is None:
        return Sight.NOTHING, None
    if silent_s(last) > SILENT_S:
        return Sight.SILENT, last
    if once or not can_draw(console):
        console.print(last)
        return Sight.LOOKED, last
    newest = [last]
    with Drawn(lambda: newest[-1], console=console):
        while (now := posted(file)) is not None:
            newest = [now]
            if silent_s(now) > SILENT_S:
                return Sight.SILENT, now
            time.sleep(LOOK_EVERY_S)
    return Sight.OVER, newest[-1]


def silent_s(board: Board) -> float:
    """Seconds since the driver renewed it."""
    return time.time() - board.written_s

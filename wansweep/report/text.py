"""Rich tables as plain or coloured text, as wide as the terminal: what has no room is left out whole, never cut short."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


# Of a file or a pipe, unless a table is wider.
WIDE = 200
# The first column may be folded down to it.
LEAST = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A column of a table.

    Attributes:
        heading: Wraps between its words.
        cells: From the top.
        number: Right-aligned.
        spare: 0 always stands; of the others the highest goes first where there is no room.
    """

    heading: str
    cells: Sequence[str | Text]
    number: bool = False
    spare: int = 0

    @property
    def least(self) -> int:
        """Characters it takes."""
        return max(map(cell_len, [*self.heading.split(), *(line for text in self.cells for line in str(text).splitlines())]), default=0)


def fitted(columns: Sequence[Shown], *, width: int | None, title: str | None = None) -> Table:
    """The columns as a table no wider than the terminal, which says what it has no room for; without one as wide as they are."""
    first, *others = columns
    while width and others and _taken(others) + min(first.least, LEAST) > width:
        droppable = max(others, key=lambda one: one.spare)
        if not droppable.spare:
            break
        others.remove(droppable)
    room = first.least if width is None else max(1, min(first.least, width - _taken(others)))
    widths = [room, *(one.least for one in others)]
    made = [
        Column(one.heading, justify="right" if one.number else "left", width=wide, overflow="fold")
        for one, wide in zip([first, *others], widths, strict=True)
    ]
    left_out = [one.heading for one in columns[1:] if one not in others]
    caption = f"Too narrow for: {', '.join(left_out)}" if left_out else None
    table = Table(*made, title=title, caption=caption, caption_justify="left", box=box.SIMPLE)
    for cells in zip(*(one.cells for one in [first, *others]), strict=True):
        table.add_row(*cells)
    return table


def _taken(columns: Sequence[Shown]) -> int:
    """Characters of the columns behind the first, with what stands around and between all of them."""
    return 4 + sum(3 + one.least for one in columns)


def as_text(*parts: Table | Text | str, width: int | None = None, colour: bool = False) -> str:
    """What rich would print."""
    for part in parts:
        _tame(part)
    console = Console(file=io.StringIO(), width=width or WIDE, force_terminal=colour, highlight=False)
    if width is None:
        unbound = console.options.update(max_width=100_000)
        console.width = max([WIDE, *(Measurement.get(console, unbound, part).maximum for part in parts if isinstance(part, Table))])
    console.print(*(_CONTROLS.sub("", part) if isinstance(part, str) else part for part in parts), sep="\n")
    stream = console.file
    assert isinstance(stream, io.StringIO)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _tame(part: Table | Text | str) -> None:
    """Take out what would steer a terminal: labels of imported reports, reasons and logs come from elsewhere."""
    texts = [part] if isinstance(part, Text) else []
    if isinstance(part, Table):
        texts = [cell for column in part.columns for cell in column.cells if isinstance(cell, Text)]
    for text in texts:
        if _CONTROLS.search(text.plain):
            text.plain = _CONTROLS.sub("", text.plain)

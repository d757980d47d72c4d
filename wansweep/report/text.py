"""Rich tables as plain or coloured text."""

from __future__ import annotations

import io
import re

from rich.console import Console
from rich.table import Table
from rich.text import Text

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def as_text(*parts: Table | Text | str, width: int | None = None, colour: bool = False) -> str:
    """What rich would print."""
    for part in parts:
        _tame(part)
    console = Console(file=io.StringIO(), width=width or 200, force_terminal=colour, highlight=False)
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

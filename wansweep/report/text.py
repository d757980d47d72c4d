"""Rich tables as plain or coloured text."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table
from rich.text import Text


def as_text(*parts: Table | Text | str, width: int | None = None, colour: bool = False) -> str:
    """What rich would print."""
    console = Console(file=io.StringIO(), width=width or 200, force_terminal=colour, highlight=False)
    console.print(*parts, sep="\n")
    stream = console.file
    assert isinstance(stream, io.StringIO)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"

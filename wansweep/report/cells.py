"""Markdown's building blocks: a table, a cell, a figure with its unit."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wansweep.metrics import METRIC
from wansweep.units import NOT_MEASURED

_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numeric_from: int) -> str:
    """A Markdown table; columns from ``numeric_from`` on are right-aligned."""
    align = [":---" if i < numeric_from else "---:" for i in range(len(headings))]
    return "\n".join(f"| {' | '.join(map(cell, row))} |" for row in [headings, align, *rows])


def cell(text: str) -> str:
    """Text that stays inside its cell, and plain: no pipe, line break or markup of the text's own takes effect."""
    escaped = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return escaped.replace("`", "\\`").replace("*", "\\*").replace("[", "\\[")


def code(text: str) -> str:
    """A command as code on one line, in more backticks than it holds; what breaks lines is written so that a shell breaks them again."""
    try:
        shown = " ".join(map(_word, shlex.split(text))) if _BREAKS.search(text) else text
    except ValueError:  # no command line: a path with a line break and one quote
        shown = _BREAKS.sub(" ", text)
    ticks = fence(shown, least=1)
    return f"{ticks} {shown} {ticks}" if shown.startswith("`") or shown.endswith("`") else f"{ticks}{shown}{ticks}"


def fence(text: str, *, least: int) -> str:
    """So many backticks that the text cannot end what they begin."""
    return "`" * max(least, 1 + max((len(run) for run in re.findall("`+", text)), default=0))


def _word(word: str) -> str:
    r"""A word as a shell takes it; with control characters as ``$'\n'``."""
    if not _BREAKS.search(word):
        return shlex.quote(word)
    plain = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + _BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", plain) + "'"


def figure(row: Mapping[str, float | None], name: str) -> str:
    """A figure of the summary with its unit; bare ``n/a`` when it was not measured."""
    metric, value = METRIC[name], row[name]
    return metric.show(value) if value is None or not metric.unit.symbol else f"{metric.show(value)} {metric.unit.symbol}"


def known(value: object) -> str:
    """A setting as text; ``n/a`` where an imported report does not state it."""
    return NOT_MEASURED if value is None else str(value)


def size(row: Mapping[str, Any]) -> str:
    """Width, height and frames as they ran; of those that an imported report does not state, ``n/a``."""
    if row["width"] is None:
        return NOT_MEASURED
    return f"{row['width']}x{row['height']}" + (f"x{row['frames']}" if row["frames"] is not None else "")

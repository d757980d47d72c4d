"""Markdown's building blocks: a table, a cell, a figure with its unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wansweep.metrics import METRIC
from wansweep.units import NOT_MEASURED


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numeric_from: int) -> str:
    """A Markdown table; columns from ``numeric_from`` on are right-aligned."""
    align = [":---" if i < numeric_from else "---:" for i in range(len(headings))]
    return "\n".join(f"| {' | '.join(map(cell, row))} |" for row in [headings, align, *rows])


def cell(text: str) -> str:
    """Text that stays inside its cell, and plain: no pipe, line break or markup of the text's own takes effect."""
    escaped = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return escaped.replace("`", "\\`").replace("*", "\\*").replace("[", "\\[")


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

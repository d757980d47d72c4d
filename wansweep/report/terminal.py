"""The summary as a terminal table."""

from __future__ import annotations

import polars as pl
from rich import box
from rich.table import Table
from rich.text import Text

from wansweep.metrics import METRIC
from wansweep.record import Outcome
from wansweep.report.cells import known, size
from wansweep.report.text import as_text
from wansweep.tables.results import Results

COLOURS = {Outcome.OK: "green", Outcome.CRASH: "red", Outcome.TIMEOUT: "red", Outcome.OOM: "yellow", Outcome.INVALID: "yellow"}
_FIGURES = ("total_s", "step_s", "load_s", "vae_decode_s", "peak_allocated_bytes")
# What a narrow terminal does without, first to last.
_DISPENSABLE = (
    *(METRIC[name].heading for name in ("vae_decode_s", "load_s")),
    *("Res", "Offload", "GPUs"),
    *(METRIC[name].heading for name in ("step_s", "peak_allocated_bytes")),
)
# So much of a label is on its first line, rather than one more column.
_LABEL = 24
_NOT_RUN = "not run yet"


def render(results: Results, *, width: int | None = None, colour: bool = False) -> str:
    """One row a case: how it ended, its times and its memory; under them, why the others failed."""
    figures = [METRIC[name] for name in _FIGURES]
    # Settings of two presets never stand in one table without their names.
    mixed = results.summary["preset"].n_unique() > 1
    columns: dict[str, list[str]] = {}
    rows = list(results.summary.iter_rows(named=True))
    columns["Case"] = [row["label"] for row in rows]
    if mixed:
        columns["Preset"] = [row["preset"] for row in rows]
    columns["Outcome"] = [row["outcome"] or _NOT_RUN for row in rows]
    columns |= {"GPUs": [known(row["gpus"]) for row in rows], "Res": [size(row) for row in rows]}
    columns["Offload"] = [known(row["offload"]) for row in rows]
    columns |= {metric.heading: [metric.show(row[metric.name]) for row in rows] for metric in figures}
    shown = _fitting(columns, width)
    failed = results.summary.filter(pl.col("reason").is_not_null() & (pl.col("reason") != ""))
    notes = [Text(f"{row['label']}: {row['outcome']}: {row['reason']}") for row in failed.iter_rows(named=True)]
    if left_out := [heading for heading in columns if heading not in shown]:
        notes.append(Text(f"A wider terminal, and report.md, have: {', '.join(left_out)}", style="dim"))
    return as_text(_table(shown, width, title=results.sweep.name), *notes, width=width, colour=colour)


def _fitting(columns: dict[str, list[str]], width: int | None) -> dict[str, list[str]]:
    """The columns that a terminal has room for."""
    shown = dict(columns)
    for heading in _DISPENSABLE:
        if width is None or _natural_width(shown) <= width:
            break
        shown.pop(heading, None)
    return shown


def _natural_width(columns: dict[str, list[str]]) -> int:
    """What the table takes when headings are broken at their spaces, and labels where they are long."""
    widths = {heading: _width(heading, cells) for heading, cells in columns.items()}
    return sum(widths.values()) - max(0, widths["Case"] - _LABEL) + 3 * len(widths) + 1


def _width(heading: str, cells: list[str]) -> int:
    return max(map(len, (*heading.split(), *cells)))


def _table(columns: dict[str, list[str]], width: int | None, *, title: str) -> Table:
    table = Table(title=title, box=box.SIMPLE)
    whole = sum(max(map(len, (heading, *cells))) + 3 for heading, cells in columns.items()) + 1
    for heading, cells in columns.items():
        # Where room is short, labels have what is left by all else, and go on in the next line: what is cut might be another's.
        fixed = _width(heading, cells) if heading != "Case" and width is not None and whole > width else None
        table.add_column(heading, overflow="fold", width=fixed)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*(Text(cell, style=_style(heading, cell)) for heading, cell in zip(columns, row, strict=True)))
    return table


def _style(heading: str, cell: str) -> str:
    if heading != "Outcome":
        return ""
    return "dim" if cell == _NOT_RUN else COLOURS.get(Outcome(cell), "")
